#include "verbs/soft_nic/engine/transport_service.h"

#include "verbs/soft_nic/engine/extended_reliable_connection.h"
#include "verbs/soft_nic/engine/reliable_connection.h"
#include "verbs/soft_nic/engine/unreliable_connection.h"
#include "verbs/soft_nic/engine/unreliable_datagram.h"

namespace sumac::soft_nic {

std::unique_ptr<TransportService> MakeTransportService(QueuePairParts& parts) {
  switch (parts.limits.type) {
    case IBV_QPT_UC:
      return std::make_unique<UnreliableConnection>(parts);
    case IBV_QPT_XRC_SEND:
    case IBV_QPT_XRC_RECV:
      return std::make_unique<ExtendedReliableConnection>(parts);
    case IBV_QPT_UD:
      return std::make_unique<UnreliableDatagram>(parts);
    default:
      return std::make_unique<ReliableConnection>(parts);
  }
}

}  // namespace sumac::soft_nic
