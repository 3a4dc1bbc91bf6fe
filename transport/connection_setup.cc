#include "transport/connection_setup.h"

#include "absl/strings/str_cat.h"

#include "transport/rdma_cm/setup.h"

namespace sumac::transport {

absl::Status ExchangeSetup::BringUp(int peer, verbs::QueuePair& qp,
                                    const verbs::ConnectionOptions& agreed,
                                    const AddressRecord& remote, const Patience& /*patience*/) {
  if (remote.cm_port != 0) return PeerConnectsOtherwise(peer, ConnectBy::kExchange);
  if (auto status = qp.ToReadyToReceive(agreed); !status.ok()) return status;
  return qp.ToReadyToSend(agreed);
}

absl::StatusOr<std::unique_ptr<ConnectionSetup>> MakeConnectionSetup(ConnectBy way, int rank,
                                                                     int size,
                                                                     const LocalPath& path) {
  if (way == ConnectBy::kExchange) return std::make_unique<ExchangeSetup>();
  if (&path.device->provider() == &verbs::SoftProvider()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "connecting by rdma_cm: device ", path.device->name(),
        " is the soft NIC, which the kernel's connection manager does not know; connect by the "
        "exchange (SUMAC_CONNECT=exchange), or use a hardware or rxe device"));
  }
  return rdma_cm::Setup::Create(rdma_cm::Librdmacm(), rank, size, path);
}

absl::Status PeerConnectsOtherwise(int peer, ConnectBy own) {
  const bool exchange = own == ConnectBy::kExchange;
  return absl::FailedPreconditionError(
      absl::StrCat("rank ", peer, " connects by ", exchange ? "rdma_cm" : "the exchange",
                   ", this rank by ", exchange ? "the exchange" : "rdma_cm",
                   ": SUMAC_CONNECT or WorkerOptions::connect must be the same on all ranks"));
}

}  // namespace sumac::transport
