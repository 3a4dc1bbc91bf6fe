#include "cli/perf/pair/latency.h"

#include <algorithm>
#include <chrono>

#include "absl/strings/str_cat.h"

namespace sumac::cli {
namespace {

using Clock = std::chrono::steady_clock;

// Messages of no bytes end a phase of sends.
constexpr size_t kEndBytes = 0;

// How often to look at memory between two polls: as long as a poll that finds nothing takes, about,
// where polls bring the data (in packets); much longer where they come without.
constexpr int kLooksPerPollMin = 64;
constexpr int kLooksPerPollMax = 4096;

// Both sides of one phase. A step is one operation, or one way of a ping-pong; the number says
// which. The target's steps return false at the end.
class Latency {
 public:
  Latency(Session& session, const PairOptions& options, Work& work)
      : session_(session), options_(options), work_(work), lane_(session.lane(0)) {}

  absl::Status Initiate(uint64_t number) {
    switch (options_.operation) {
      case PairOperation::kPut:
        return options_.ping_pong() ? PingPut(number) : PostAndFlush(number);
      case PairOperation::kGet:
        return PostAndFlush(number);
      case PairOperation::kSend:
        if (auto sent = SendOne(); !sent.ok()) return sent;
        return ReceiveOne().status();
      case PairOperation::kAtomic:
        return CountOne(number);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<bool> Answer(uint64_t number) {
    if (options_.operation == PairOperation::kSend) {
      const auto received = ReceiveOne();
      if (!received.ok()) return received.status();
      if (*received == kEndBytes) return false;
      auto sent = SendOne();
      return sent.ok() ? absl::StatusOr<bool>(true) : sent;
    }
    int turns = 0;
    auto come = session_.PollUntil(
        [&] { return ArrivesNow(number, turns) || session_.PeerSaidEnd(); }, options_.timeout);
    if (!come.ok()) return come;
    if (!Arrived(number)) return false;
    auto put = PutOne(number);
    return put.ok() ? absl::StatusOr<bool>(true) : put;
  }

  // Deadlines are made here, not in every operation, so that they are not measured.
  void NewDeadline() { deadline_ = session_.Deadline(); }
  absl::Status End() {
    if (options_.operation != PairOperation::kSend) return session_.SayEnd();
    return lane_.endpoint->Send({}, session_.Deadline());
  }
  // Data signals count over all phases.
  void BeginPhase() { signal_base_ = lane_.domain->SignalValue(lane_.data, session_.peer_rank()); }

 private:
  absl::Status PostAndFlush(uint64_t number) {
    if (auto posted = work_.Post(lane_, number); !posted.ok()) return posted.status();
    return lane_.domain->Flush(session_.peer_rank());
  }

  absl::Status CountOne(uint64_t number) {
    const auto before = options_.compare_swap
                            ? lane_.domain->CompareSwap(lane_.peer, 0, number, number + 1)
                            : lane_.domain->FetchAdd(lane_.peer, 0, 1);
    if (!before.ok()) return before.status();
    if (*before == number) return absl::OkStatus();
    return absl::DataLossError(
        absl::StrCat("atomic ", number, " found ", *before, " instead of ", number));
  }

  // The put may still be on its way when its bytes change for the next: that one is posted only
  // after the peer has answered, so what is sent again then is thrown away.
  absl::Status PutOne(uint64_t number) {
    if (options_.put_latency == PutLatency::kSignal) {
      return lane_.domain
          ->PutWithSignal(lane_.peer, 0, lane_.Out(0, work_.bytes()), lane_.peer_data)
          .status();
    }
    lane_.outgoing()[work_.bytes() - 1] = Work::FlagOf(number);
    return work_.Post(lane_, number).status();
  }

  absl::Status PingPut(uint64_t number) {
    if (auto put = PutOne(number); !put.ok()) return put;
    if (options_.put_latency == PutLatency::kSignal) {
      return lane_.domain->WaitSignal(lane_.data, session_.peer_rank(), signal_base_ + number + 1,
                                      deadline_);
    }
    int turns = 0;
    return session_.PollUntil([&] { return ArrivesNow(number, turns); }, options_.timeout);
  }

  // Looks for a while: a put on one host needs no help of its target, and a look costs less than a
  // poll. `turns`: how many polls there were since it began to wait.
  bool ArrivesNow(uint64_t number, int& turns) {
    for (int looks = 0; looks < looks_per_poll_; ++looks) {
      if (!Arrived(number)) continue;
      looks_per_poll_ = turns == 0 ? std::min(looks_per_poll_ * 2, kLooksPerPollMax)
                                   : std::max(looks_per_poll_ / 2, kLooksPerPollMin);
      return true;
    }
    ++turns;
    return false;
  }

  bool Arrived(uint64_t number) const {
    if (options_.put_latency == PutLatency::kSignal) {
      return lane_.domain->SignalValue(lane_.data, session_.peer_rank()) > signal_base_ + number;
    }
    // The peer's NIC, or the peer itself, writes it.
    const auto* flag = reinterpret_cast<const uint8_t*>(&lane_.incoming()[work_.bytes() - 1]);
    return __atomic_load_n(flag, __ATOMIC_ACQUIRE) == static_cast<uint8_t>(Work::FlagOf(number));
  }

  absl::Status SendOne() {
    return lane_.endpoint->Send(lane_.outgoing().first(work_.bytes()), deadline_);
  }
  absl::StatusOr<size_t> ReceiveOne() {
    return lane_.endpoint->Receive(lane_.incoming().first(work_.bytes()), deadline_);
  }

  Session& session_;
  const PairOptions& options_;
  Work& work_;
  Lane& lane_;
  uint64_t signal_base_ = 0;
  int looks_per_poll_ = kLooksPerPollMax / 4;
  absl::Time deadline_ = session_.Deadline();
};

constexpr uint64_t kDeadlineEvery = 256;

absl::StatusOr<uint64_t> TimeAll(Latency& latency, const PairOptions& options, const Phase& phase,
                                 LatencySamples* samples) {
  const double share = options.ping_pong() ? 0.5 : 1;
  const Clock::time_point end =
      Clock::now() + std::chrono::nanoseconds(static_cast<int64_t>(phase.duration_s * 1e9));
  uint64_t number = 0;
  Clock::time_point before = Clock::now();
  while (phase.by_time() ? before < end : number < phase.iterations) {
    if (number % kDeadlineEvery == 0) {
      latency.NewDeadline();
      before = Clock::now();
    }
    if (auto done = latency.Initiate(number); !done.ok()) return done;
    const Clock::time_point after = Clock::now();
    if (samples != nullptr) {
      samples->Add(std::chrono::duration<double, std::nano>(after - before).count() * share);
    }
    before = after;
    ++number;
  }
  return number;
}

}  // namespace

absl::StatusOr<uint64_t> RunLatency(Session& session, const PairOptions& options, Work& work,
                                    const Phase& phase, LatencySamples* samples) {
  Latency latency(session, options, work);
  latency.BeginPhase();
  if (auto together = session.Together(); !together.ok()) return together;
  uint64_t number = 0;
  if (session.initiator()) {
    const auto timed = TimeAll(latency, options, phase, samples);
    if (!timed.ok()) return timed;
    number = *timed;
    if (auto ended = latency.End(); !ended.ok()) return ended;
  } else if (options.ping_pong()) {
    for (;; ++number) {
      if (number % kDeadlineEvery == 0) latency.NewDeadline();
      const auto answered = latency.Answer(number);
      if (!answered.ok()) return answered.status();
      if (!*answered) break;
    }
  } else if (!options.passive_target) {
    if (auto ended = session.AwaitPeersEnd(); !ended.ok()) return ended;
  }
  // The last answer has arrived, so nothing of this phase is under way at either side; but its
  // completion may be.
  if (auto flushed = session.lane(0).domain->Flush(session.peer_rank()); !flushed.ok())
    return flushed;
  if (auto together = session.Together(); !together.ok()) return together;
  if (options.operation == PairOperation::kSend) return number;
  // A target that slept takes note of it now.
  if (!session.initiator()) {
    if (auto ended = session.AwaitPeersEnd(); !ended.ok()) return ended;
  }
  session.NextPhase();
  return number;
}

}  // namespace sumac::cli
