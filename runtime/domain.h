// A domain: memory, rights and connections of its own, from which it does one-sided put/get to
// other domains.
//
// A Domain owns one transport::Worker (its own protection domain and queue pairs: none is shared by
// two domains). Created collectively: every rank of the bootstrap creates its domains in the same
// order with the same name. Used by collectives (the executor runs schedules over PutWithSignal)
// and by applications directly.
//
// Threads: one thread at a time uses a domain; different domains may be used by different threads.
// Ownership: Segment, Registration and Grant must go before their domain (each holds a reference to
// it). Failure: absl::Status. PermissionDenied: a capability does not allow it (nothing was sent,
// or the target refused; no byte changed). OutOfRange: outside the granted range. Unavailable: a
// rank died (transport::FailedRankOf). DeadlineExceeded names who was waited for. After a target's
// NIC refused an operation the queue pair to that rank is in error and stays so. Hot path: Put,
// Get, PutWithSignal and Progress allocate nothing and take no shared lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "runtime/capability.h"
#include "transport/bootstrap/bootstrap.h"
#include "transport/worker.h"

namespace sumac::runtime {

using transport::LocalSlice;

struct DomainOptions {
  std::string name = "0";  // the same on all ranks; each name once a job
  transport::WorkerOptions worker;
  absl::Duration timeout = absl::Seconds(30);  // default deadline of blocking calls
};

// Registered memory that the domain allocated: page-aligned, zeroed, backed by a memfd.
class Segment;
// Registered memory of the caller, for local use as source or destination.
class Registration;
// A right given out; revoked when dropped.
class Grant;

// A counter at its owner that peers raise together with a put. Plain value; pass it to peers like a
// capability.
struct Signal {
  int32_t rank = -1;
  uint32_t id = 0;
};

class Domain {
 public:
  static absl::StatusOr<std::unique_ptr<Domain>> Create(transport::Bootstrap& bootstrap,
                                                        const DomainOptions& options);
  // Over a worker made elsewhere (tests, other transports); options.worker is not looked at.
  static absl::StatusOr<std::unique_ptr<Domain>> Adopt(std::unique_ptr<transport::Worker> worker,
                                                       const DomainOptions& options);
  ~Domain();
  Domain(const Domain&) = delete;
  Domain& operator=(const Domain&) = delete;

  int rank() const;
  int size() const;
  const std::string& device_name() const;
  transport::Worker& worker();

  // --- Memory and rights
  absl::StatusOr<Segment> Allocate(size_t bytes);
  absl::StatusOr<Registration> Register(void* addr, size_t bytes);
  absl::StatusOr<Grant> MakeGrant(const Segment& segment, size_t offset, size_t length,
                                  uint32_t rights);

  // --- One-sided. Asynchronous: `source` / `into` must stay as they are until Flush(rank) or
  // Done(ticket). `offset` is within the capability's range. When the queue is full these progress
  // until there is room.
  absl::StatusOr<transport::Ticket> Put(const Capability& target, uint64_t offset,
                                        const LocalSlice& source);
  absl::StatusOr<transport::Ticket> Get(const Capability& target, uint64_t offset,
                                        const LocalSlice& into);
  // Puts, then adds `increment` (1 ... 65535) to the signal, after the bytes are in place.
  // `source.length` may be 0.
  absl::StatusOr<transport::Ticket> PutWithSignal(const Capability& target, uint64_t offset,
                                                  const LocalSlice& source, const Signal& signal,
                                                  uint16_t increment = 1);
  // Only the signal.
  absl::StatusOr<transport::Ticket> RaiseSignal(const Signal& signal, uint16_t increment = 1);
  // Blocking; the old value. `offset` must be a multiple of 8.
  absl::StatusOr<uint64_t> FetchAdd(const Capability& target, uint64_t offset, uint64_t add);
  absl::StatusOr<uint64_t> CompareSwap(const Capability& target, uint64_t offset, uint64_t expected,
                                       uint64_t desired);
  bool Done(int rank, transport::Ticket ticket) const;
  // Everything posted to `rank` so far is complete at the target.
  absl::Status Flush(int rank);
  absl::Status Flush();  // to all ranks
  // How many PutWithSignal calls to `rank` would go through without waiting; connects when need be.
  absl::StatusOr<uint32_t> SignalRoom(int rank);

  // --- Signals
  absl::StatusOr<Signal> CreateSignal();
  // How much `from_rank` has added to our signal so far.
  uint64_t SignalValue(const Signal& signal, int from_rank) const;
  absl::Status WaitSignal(const Signal& signal, int from_rank, uint64_t at_least,
                          absl::Time deadline);
  // Raises that named no signal of ours: a peer's mistake, or worse. They change nothing.
  uint64_t dropped_signals() const;

  // --- Progress
  int Progress();
  // See transport::Worker::Wait.
  absl::Status Wait(absl::FunctionRef<bool()> done, absl::Time deadline);

  struct Impl;

 private:
  explicit Domain(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

class Segment {
 public:
  Segment(Segment&&) noexcept;
  Segment& operator=(Segment&&) noexcept;
  ~Segment();
  std::byte* data() const;
  size_t size() const;
  int fd() const;  // the memfd, for peers on this host (runtime/host)
  // `offset + length` within the segment (checked: an out-of-range slice is empty with a null
  // address, and every operation refuses it).
  LocalSlice Slice(size_t offset, size_t length) const;

 private:
  friend class Domain;
  struct Impl;
  explicit Segment(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

class Registration {
 public:
  Registration(Registration&&) noexcept;
  Registration& operator=(Registration&&) noexcept;
  ~Registration();
  LocalSlice Slice(size_t offset, size_t length) const;

 private:
  friend class Domain;
  struct Impl;
  explicit Registration(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

class Grant {
 public:
  Grant(Grant&&) noexcept;
  Grant& operator=(Grant&&) noexcept;
  ~Grant();
  const Capability& capability() const;

 private:
  friend class Domain;
  struct Impl;
  explicit Grant(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace sumac::runtime
