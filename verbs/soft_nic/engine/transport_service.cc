#include "verbs/soft_nic/engine/transport_service.h"

#include "verbs/soft_nic/engine/reliable_connection.h"

namespace sumac::soft_nic {

std::unique_ptr<TransportService> MakeTransportService(QueuePairParts& parts) {
  return std::make_unique<ReliableConnection>(parts);
}

}  // namespace sumac::soft_nic
