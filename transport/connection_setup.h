// How the queue pairs of two ranks are brought from INIT to RTS once each side has the other's
// address record: from the records alone (the exchange), or by the kernel's connection manager
// (rdma_cm/, chosen by WorkerOptions::connect).
//
// Owned by Connector, which calls it from its own thread and from the worker's owner, never for the
// same peer at once. Both ways end when this side's queue pair is in RTS; that the other side is,
// too, Connector learns from the bootstrap. Failure: a status that names the rank.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "transport/address_record.h"
#include "transport/local_path.h"
#include "verbs/queue_pair.h"

namespace sumac::transport {

// How long somebody waits: until the deadline, or until `interrupted` is an error, which then is
// the result. It is asked several times a second.
struct Patience {
  absl::Time deadline;
  absl::FunctionRef<absl::Status()> interrupted;
};

class ConnectionSetup {
 public:
  virtual ~ConnectionSetup() = default;
  // Adds to the record for `peer` what this way needs; the same whenever it is asked.
  virtual void Announce(int peer, AddressRecord& own) = 0;
  // Brings `qp` from INIT to RTS. `agreed` holds what both sides can. After a deadline the next
  // call for this peer goes on where this one stopped.
  virtual absl::Status BringUp(int peer, verbs::QueuePair& qp,
                               const verbs::ConnectionOptions& agreed, const AddressRecord& remote,
                               const Patience& patience) = 0;
};

class ExchangeSetup final : public ConnectionSetup {
 public:
  void Announce(int /*peer*/, AddressRecord& /*own*/) override {}
  absl::Status BringUp(int peer, verbs::QueuePair& qp, const verbs::ConnectionOptions& agreed,
                       const AddressRecord& remote, const Patience& patience) override;
};

// InvalidArgument: the device can't connect this way. Other errors of rdma_cm are those of
// rdma_cm::Setup::Create.
absl::StatusOr<std::unique_ptr<ConnectionSetup>> MakeConnectionSetup(ConnectBy way, int rank,
                                                                     int size,
                                                                     const LocalPath& path);

// FailedPrecondition for a peer that connects the other way.
absl::Status PeerConnectsOtherwise(int peer, ConnectBy own);

}  // namespace sumac::transport
