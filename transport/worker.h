// A worker owns one opened device, one protection domain, one completion queue and the endpoints to
// other ranks.
//
// Used by runtime::Domain (one worker a domain: no queue pair is shared by two domains). It
// progresses everything it owns from Progress(), called by its one owning thread; connection set-up
// by a peer arrives on the bootstrap's watch thread and is the only thing that does.
//
// Connections are lazy: Connect(peer) creates a queue pair, publishes its address, pokes the peer,
// whose worker does the same by itself, and returns when both sides are ready. So a peer that
// computes can still be connected to.
//
// Failure: an endpoint's first error is kept as its status: typed, naming the rank, the device, the
// QP and the verbs status. While waiting, a failure that the bootstrap learns of ends the wait at
// once. Hot path: Progress and the endpoints' posts allocate nothing and take no shared lock.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "transport/bootstrap/bootstrap.h"
#include "transport/endpoint.h"
#include "verbs/address_family.h"

namespace sumac::transport {

// How two queue pairs learn of each other: the bootstrap alone, or librdmacm after it (hardware and
// rxe only). The same on all ranks.
enum class ConnectBy : uint8_t { kExchange, kRdmaCm };

struct WorkerOptions {
  std::string name =
      "0";  // tells workers of one rank apart; equal on all ranks that talk to each other
  // "rxe0", or "rxe0,rxe1": local rank i takes number i modulo their count, or "mlx5_0:2": port 2.
  // Empty: verbs::ChooseDevice.
  std::string device;

  // The path. What is not set comes from the environment (path_options.h), else from the default.
  std::optional<int> gid_index;                        // -1, the default: chosen by family
  std::optional<verbs::AddressFamily> address_family;  // of a chosen GID; default: any
  std::optional<uint32_t> path_mtu_bytes;  // 0, the default: the largest that both ports allow
  std::optional<uint8_t> traffic_class;    // the whole byte: DSCP << 2 | ECN; default 0
  std::optional<uint8_t> service_level;    // 0 to 7, on Ethernet the priority; default 0
  std::optional<uint8_t> timeout;          // local ACK timeout, 4.096 us * 2^timeout; default 16
  // Default 7: with timeout 16 a silent peer is an error after about two seconds. A soft NIC is
  // only as lively as its process: with much less, ranks of an overloaded host take each other for
  // dead.
  std::optional<uint8_t> retry_count;
  // Default 7: without end (credits make RNR rare; deadlines bound the wait).
  std::optional<uint8_t> rnr_retry;
  std::optional<ConnectBy> connect;  // default: kExchange

  uint32_t send_depth = 256;        // work requests a queue pair
  uint32_t receive_depth = 128;     // pre-posted receives a queue pair = credits a peer holds
  uint32_t eager_bytes_max = 4096;  // larger messages go by rendezvous
  absl::Duration connect_timeout = absl::Seconds(10);
  absl::Duration spin = absl::Microseconds(50);  // how long a wait polls before it blocks
};

class Worker {
 public:
  // `bootstrap` must outlive the worker.
  static absl::StatusOr<std::unique_ptr<Worker>> Create(Bootstrap& bootstrap,
                                                        const WorkerOptions& options);
  virtual ~Worker() = default;

  virtual Bootstrap& bootstrap() = 0;
  virtual const WorkerOptions& options() const = 0;  // with the values that were chosen filled in
  virtual const std::string& device_name() const = 0;

  // The endpoint to `peer`, connecting if need be. The pointer lives as long as the worker.
  virtual absl::StatusOr<Endpoint*> Connect(int peer, absl::Time deadline) = 0;
  // The endpoint if it exists and is connected, else null. No blocking.
  virtual Endpoint* Find(int peer) = 0;

  // Registers memory. `access` is a set of RemoteAccess bits; none: local use only. Unregisters
  // when dropped.
  virtual absl::StatusOr<std::unique_ptr<RegisteredMemory>> Register(void* addr, size_t length,
                                                                     uint32_t remote_access) = 0;

  // What a peer's write-with-immediate calls, from Progress.
  using ImmediateHandler = std::function<void(int peer, uint32_t immediate)>;
  virtual void SetImmediateHandler(ImmediateHandler handler) = 0;

  // Handles what has completed. Returns the number of completions handled.
  virtual int Progress() = 0;
  // Progresses until `done` says true: polls for options().spin, then blocks on the completion
  // channel in between. DeadlineExceeded when it does not come true (the caller adds whom it waited
  // for); the bootstrap's failure if some rank of the job failed meanwhile.
  virtual absl::Status Wait(absl::FunctionRef<bool()> done, absl::Time deadline) = 0;
};

}  // namespace sumac::transport
