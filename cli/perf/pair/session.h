// Two ranks that have met: their domains (one a queue pair), memory, capabilities and signals.
//
// Rank 0 is the initiator and prints; rank 1 is the target. Each domain has a segment of two
// windows: outgoing bytes, and incoming ones that the peer may put to, get from and count in.
// One thread. Every wait has a deadline and ends when the peer dies.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/perf/machine.h"
#include "cli/perf/pair/options.h"

#include "runtime/domain.h"
#include "transport/bootstrap/bootstrap.h"

namespace sumac::cli {

// A domain, and what this rank and its peer have in it.
struct Lane {
  std::unique_ptr<runtime::Domain> domain;
  std::unique_ptr<runtime::Segment> segment;
  std::unique_ptr<runtime::Grant> grant;
  size_t window = 0;  // bytes of each half
  runtime::Capability peer;
  runtime::Signal end, data;            // ours, raised by the peer: a phase's end; data is there
  runtime::Signal peer_end, peer_data;  // the peer's, raised by us
  transport::Endpoint* endpoint = nullptr;

  std::span<std::byte> outgoing() const { return {segment->data(), window}; }
  std::span<std::byte> incoming() const { return {segment->data() + window, window}; }
  runtime::LocalSlice Out(size_t offset, size_t bytes) const {
    return segment->Slice(offset, bytes);
  }
  runtime::LocalSlice In(size_t offset, size_t bytes) const {
    return segment->Slice(window + offset, bytes);
  }
};

class Session {
 public:
  // Joins, pins, measures the machine (rank 0), makes the domains and connects them.
  static absl::StatusOr<std::unique_ptr<Session>> Open(const PairOptions& options,
                                                       const transport::BootstrapOptions& meeting);
  // Leaves together with the peer, whose operations may still need our memory.
  ~Session();

  int rank() const { return bootstrap_->rank(); }
  int peer_rank() const { return 1 - rank(); }
  bool initiator() const { return rank() == 0; }
  std::vector<Lane>& lanes() { return lanes_; }
  Lane& lane(size_t index) { return lanes_[index]; }
  const Machine& machine() const { return machine_; }
  const std::vector<std::string>& hosts() const { return hosts_; }
  const std::vector<int>& pids() const { return pids_; }
  const std::vector<std::string>& devices() const { return devices_; }

  // Both ranks have come here.
  absl::Status Together();
  // Gives `mine` to the peer; what it gave.
  absl::StatusOr<std::string> Swap(const std::string& mine);

  // Calls Progress of all domains until `done`, gives up the CPU now and then; an error when the
  // peer has failed, and after `patience` without an end.
  absl::Status PollUntil(absl::FunctionRef<bool()> done, absl::Duration patience);
  // The end of a phase: says so to the peer; whether the peer has said so; polls until it has.
  absl::Status SayEnd();
  bool PeerSaidEnd() const;
  absl::Status AwaitPeersEnd();
  // The peer's ends are counted by phase; after each one that had any.
  void NextPhase() { ++phase_; }
  absl::Time Deadline() const { return absl::Now() + options_.timeout; }

 private:
  explicit Session(const PairOptions& options) : options_(options) {}
  absl::Status MakeLane(int index, size_t window);
  absl::Status Introduce();  // hosts, devices, CPUs; what must agree
  absl::Status Broken() const;

  const PairOptions& options_;
  std::unique_ptr<transport::Bootstrap> bootstrap_;
  std::vector<Lane> lanes_;
  Machine machine_;
  std::vector<std::string> hosts_, devices_;
  std::vector<int> pids_;
  uint64_t exchanges_ = 0;
  uint64_t phase_ = 1;  // as many ends has the peer said when this phase is over
};

}  // namespace sumac::cli
