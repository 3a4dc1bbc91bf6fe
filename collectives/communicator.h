// A communicator: a fixed group of ranks and the collective operations among them.
//
// Every rank calls the same operations in the same order with the same count, type, operation and
// root (as NCCL and MPI ask). Calls block until the result is in the caller's buffer. Buffers are
// host memory; counts are in elements. In place: the same pointer for allreduce and broadcast;
// `send == recv + rank * count` for all-gather; `recv == send + rank * count` for reduce-scatter.
//
// When all ranks are on one host and can map each other's memory, calls run in shared memory
// (collectives/host) and no packet is sent; buffers from Allocate are then reached where they are,
// other memory through a copy. Else, and with an algorithm forced, schedules run over the domain.
//
// Ownership: made from the environment it owns its bootstrap and domain; made over a domain it
// borrows it. Buffers go before their communicator. Threads: one thread at a time. Failure:
// InvalidArgument for bad arguments (nothing was sent); Unavailable naming the dead rank
// (transport::FailedRankOf) at every survivor; DeadlineExceeded naming the rank, step and operation
// waited for. After a failure the communicator stays failed.
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

// How private buffers get from process to process on one host: by the kernel's copies
// (process_vm_readv) or through a stage in shared memory.
enum class HostCopies {
  kMeasured,  // whichever is faster
  kAlways,    // by copies, where the kernel allows them (an allreduce; from the second one on)
  kNever,
};

struct CommunicatorOptions {
  std::string name =
      "world";         // tells communicators over one bootstrap apart; the same on all ranks
  std::string device;  // or a list for local ranks; empty: SUMAC_DEVICE, else chosen
  // Empty: chosen. "host": shared memory or nothing; "ring", "recursive_doubling", ...: over the
  // domain. Also SUMAC_ALGO.
  std::string algorithm;
  bool host_memory = true;  // among ranks of one host; also SUMAC_HOST_MEMORY (0: never)
  HostCopies host_copies = HostCopies::kMeasured;  // rank 0's counts; also SUMAC_HOST_COPIES
  absl::Duration timeout = absl::Seconds(30);  // of each operation; also SUMAC_TIMEOUT (seconds)
  size_t slot_bytes = 256 * 1024;              // one piece in flight
  uint32_t slots_per_peer = 4;                 // pieces in flight from one peer
};

// Memory that the fast ways of collectives know: page-aligned, zeroed, shared with the ranks of
// this host, registered with the device. Passed to any collective of its communicator, whole or in
// part, on some ranks or on all. Movable; freed when dropped. Threads: the communicator's.
class RegisteredBuffer {
 public:
  RegisteredBuffer(RegisteredBuffer&&) noexcept;
  RegisteredBuffer& operator=(RegisteredBuffer&&) noexcept;
  ~RegisteredBuffer();
  std::byte* data() const;
  size_t size() const;

 private:
  friend class BufferTable;
  struct Impl;
  explicit RegisteredBuffer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
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
  // Do collectives run in memory that all ranks share?
  virtual bool uses_host_memory() const = 0;

  // Memory to pass to collectives. Not collective: each rank allocates what it wants, when it
  // wants. InvalidArgument for 0 bytes; ResourceExhausted says which limit was met.
  virtual absl::StatusOr<RegisteredBuffer> Allocate(size_t bytes) = 0;

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
