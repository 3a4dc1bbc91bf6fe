// A communicator: a fixed group of ranks and the collective operations among them.
//
// Every rank calls the same operations in the same order with the same count, type, operation and
// root (as NCCL and MPI ask). Calls block until the result is in the caller's buffer. Buffers are
// host memory; counts are in elements. In place: the same pointer for allreduce and broadcast;
// `send == recv + rank * count` for all-gather; `recv == send + rank * count` for reduce-scatter.
//
// Ownership: made from the environment it owns its bootstrap and domain; made over a domain it
// borrows it. Threads: one thread at a time. Failure: InvalidArgument for bad arguments (nothing
// was sent); Unavailable naming the dead rank (transport::FailedRankOf) at every survivor;
// DeadlineExceeded naming the rank, step and operation waited for. After a failure the communicator
// stays failed.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "collectives/data_type.h"
#include "runtime/domain.h"

namespace sumac::collectives {

struct CommunicatorOptions {
  std::string name =
      "world";         // tells communicators over one bootstrap apart; the same on all ranks
  std::string device;  // or a list for local ranks; empty: SUMAC_DEVICE, else chosen
  std::string
      algorithm;  // empty: chosen by size; "ring", "recursive_doubling", ...; also SUMAC_ALGO
  absl::Duration timeout = absl::Seconds(30);  // of each operation; also SUMAC_TIMEOUT (seconds)
  size_t slot_bytes = 256 * 1024;              // one piece in flight
  uint32_t slots_per_peer = 4;                 // pieces in flight from one peer
};

class Communicator {
 public:
  // Rank, size and bootstrap from the launcher's variables
  // (transport/bootstrap/launch_environment.h).
  static absl::StatusOr<std::unique_ptr<Communicator>> FromEnvironment(
      const CommunicatorOptions& options = {});
  // Over a domain that exists; collective.
  static absl::StatusOr<std::unique_ptr<Communicator>> Create(
      runtime::Domain& domain, const CommunicatorOptions& options = {});
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual runtime::Domain& domain() = 0;

  virtual absl::Status AllReduce(const void* send, void* recv, size_t count, DataType type,
                                 ReduceOp op) = 0;
  virtual absl::Status Broadcast(const void* send, void* recv, size_t count, DataType type,
                                 int root) = 0;
  // Each rank gives `send_count` elements; `recv` takes size() * send_count, in rank order.
  virtual absl::Status AllGather(const void* send, void* recv, size_t send_count,
                                 DataType type) = 0;
  // `send` holds size() * recv_count elements; rank r receives the reduction of block r.
  virtual absl::Status ReduceScatter(const void* send, void* recv, size_t recv_count, DataType type,
                                     ReduceOp op) = 0;
  virtual absl::Status Barrier() = 0;
};

}  // namespace sumac::collectives
