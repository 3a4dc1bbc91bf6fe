// What a Domain is made of; shared by the files of this folder.
//
// domain.cc: life, progress. memory.cc: segments, registrations, grants. one_sided.cc: operations
// on peers. own_rank.cc: the same on itself. signals.cc. Owned by the Domain, and by every Segment,
// Registration and Grant (they hold a reference), so the worker outlives all registrations.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

#include "runtime/domain.h"
#include "runtime/domain/access_check.h"
#include "runtime/domain/grant_table.h"
#include "runtime/domain/signal_table.h"
#include "runtime/memory/mapping.h"

namespace sumac::runtime {

struct Domain::Impl : std::enable_shared_from_this<Domain::Impl> {
  struct Peer {
    transport::Endpoint* endpoint = nullptr;  // null until the first use
    DomainIdentity identity;                  // valid with it
  };

  Impl(std::unique_ptr<transport::Worker> the_worker, const DomainOptions& the_options);
  absl::Status Start();

  int rank() const { return rank_; }
  int size() const { return static_cast<int>(peers.size()); }
  absl::Time Deadline() const { return absl::Now() + options.timeout; }

  // The peer, connected. The capability form also checks that it means the domain found there.
  absl::StatusOr<Peer*> Reach(int peer_rank) {
    if (peer_rank >= 0 && peer_rank < size()) {
      Peer& peer = peers[static_cast<size_t>(peer_rank)];
      if (peer.endpoint != nullptr) return &peer;
    }
    return Connect(peer_rank);
  }
  absl::StatusOr<transport::Endpoint*> Reach(const Capability& target);
  absl::StatusOr<Peer*> Connect(int peer_rank);

  // Waits until one operation (`with_immediate`: and a credit) fits, or says what is wrong.
  absl::Status WaitForRoom(transport::Endpoint& endpoint, bool with_immediate);

  // own_rank.cc: `length` bytes at `offset`, as the capability says, and as our grants allow.
  absl::StatusOr<std::byte*> OwnBytes(const Capability& target, uint32_t right, uint64_t offset,
                                      uint64_t length);
  absl::StatusOr<transport::Ticket> PutToSelf(const Capability& target, uint64_t offset,
                                              const LocalSlice& source);
  absl::StatusOr<transport::Ticket> GetFromSelf(const Capability& target, uint64_t offset,
                                                const LocalSlice& into);
  absl::StatusOr<uint64_t> FetchAddOnSelf(const Capability& target, uint64_t offset, uint64_t add);
  absl::StatusOr<uint64_t> CompareSwapOnSelf(const Capability& target, uint64_t offset,
                                             uint64_t expected, uint64_t desired);

  // signals.cc
  absl::Status CheckRaise(const Signal& signal, uint16_t increment) const;

  // Destroyed from the bottom up: what may be written to before the worker that lets it be written.
  DomainOptions options;
  int rank_;
  DomainIdentity identity;
  uint32_t regions = 0;  // grants ever made
  transport::Ticket own_ticket = 0;
  GrantTable grants;
  SignalTable signals;
  std::vector<Peer> peers;
  std::vector<uint64_t> atomic_results;  // one word a rank: a late answer harms nobody else's
  std::unique_ptr<transport::Worker> worker;
  std::unique_ptr<transport::RegisteredMemory> atomic_results_registration;
};

// The message with `what` in front; code and payloads (the failed rank) stay.
absl::Status Annotate(const absl::Status& status, absl::string_view what);

}  // namespace sumac::runtime
