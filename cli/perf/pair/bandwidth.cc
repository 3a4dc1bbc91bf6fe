#include "cli/perf/pair/bandwidth.h"

#include <algorithm>
#include <chrono>

#include "absl/strings/str_cat.h"

namespace sumac::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kParts = 10;
constexpr uint64_t kEndsAnswer = 1;  // bytes of the message that answers the end of sends

double SecondsOf(Clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

// Cuts a run into parts as its operations complete: by their number, or by time.
class Parts {
 public:
  Parts(const Phase& phase, size_t lanes)
      : by_time_(phase.by_time()),
        operations_a_part_(std::max<uint64_t>(phase.iterations * lanes / kParts, 1)),
        duration_(std::chrono::duration_cast<Clock::duration>(
            std::chrono::duration<double>(phase.duration_s / kParts))) {
    parts_.reserve(kParts + 2);
    end_ = start_ + duration_ * kParts;
  }
  // `completed` of all so far. Cheap: the clock is read a few times a part at most.
  void Note(uint64_t completed) {
    if (!by_time_ && completed < last_completed_ + operations_a_part_) return;
    const Clock::time_point now = Clock::now();
    now_ = now;
    if (by_time_ && now < last_ + duration_) return;
    Cut(completed, now);
  }
  // The rest.
  std::vector<RatePart> End(uint64_t completed) {
    if (completed > last_completed_) Cut(completed, Clock::now());
    return parts_;
  }
  bool over() const { return by_time_ && now_ >= end_; }

 private:
  void Cut(uint64_t completed, Clock::time_point now) {
    parts_.push_back({completed - last_completed_, SecondsOf(now - last_)});
    last_completed_ = completed;
    last_ = now;
  }

  const bool by_time_;
  const uint64_t operations_a_part_;
  const Clock::duration duration_;
  const Clock::time_point start_ = Clock::now();
  Clock::time_point last_ = start_, now_ = start_, end_;
  uint64_t last_completed_ = 0;
  std::vector<RatePart> parts_;
};

// What one lane has posted, and the tickets of what is in flight.
struct Flight {
  explicit Flight(uint32_t depth) : tickets(depth) {}
  bool full() const { return posted - completed == tickets.size(); }
  std::vector<transport::Ticket> tickets;  // a ring
  uint64_t posted = 0, completed = 0;
};

class OneSided {
 public:
  OneSided(Session& session, const PairOptions& options, Work& work, const Phase& phase)
      : session_(session),
        work_(work),
        phase_(phase),
        parts_(phase, session.lanes().size()),
        flights_(session.lanes().size(), Flight(options.tx_depth)) {}

  absl::StatusOr<BandwidthRun> Run(absl::Duration timeout) {
    for (bool more = true; more;) {
      more = false;
      for (size_t i = 0; i < flights_.size(); ++i) {
        if (auto posted = Fill(session_.lane(i), flights_[i]); !posted.ok()) return posted;
        more = more || MayPost(flights_[i]);
      }
      if (!more) break;
      const uint64_t before = completed_;
      auto moved = session_.PollUntil([&] { return Retire() > before; }, timeout);
      if (!moved.ok()) return moved;
      parts_.Note(completed_);
    }
    auto flushed = session_.PollUntil([&] { return Retire() == posted_; }, timeout);
    if (!flushed.ok()) return flushed;
    BandwidthRun run;
    run.parts = parts_.End(completed_);
    for (const Flight& flight : flights_) run.done.push_back(flight.posted);
    return run;
  }

 private:
  bool MayPost(const Flight& flight) const {
    return phase_.by_time() ? !parts_.over() : flight.posted < phase_.iterations;
  }
  absl::Status Fill(Lane& lane, Flight& flight) {
    while (!flight.full() && MayPost(flight)) {
      const auto ticket = work_.Post(lane, flight.posted);
      if (!ticket.ok()) return ticket.status();
      flight.tickets[flight.posted % flight.tickets.size()] = *ticket;
      ++flight.posted;
      ++posted_;
    }
    return absl::OkStatus();
  }
  // Operations completed so far.
  uint64_t Retire() {
    for (size_t i = 0; i < flights_.size(); ++i) {
      Flight& flight = flights_[i];
      const runtime::Domain& domain = *session_.lane(i).domain;
      while (flight.completed < flight.posted &&
             domain.Done(session_.peer_rank(),
                         flight.tickets[flight.completed % flight.tickets.size()])) {
        ++flight.completed;
        ++completed_;
      }
    }
    return completed_;
  }

  Session& session_;
  Work& work_;
  const Phase& phase_;
  Parts parts_;
  std::vector<Flight> flights_;
  uint64_t posted_ = 0, completed_ = 0;
};

// Sends to lanes in turn; the time ends when the peer has taken everything and says so.
absl::StatusOr<BandwidthRun> SendAll(Session& session, Work& work, const Phase& phase) {
  Parts parts(phase, session.lanes().size());
  BandwidthRun run;
  run.done.assign(session.lanes().size(), 0);
  uint64_t sent = 0;
  for (uint64_t number = 0; phase.by_time() ? !parts.over() : number < phase.iterations; ++number) {
    const absl::Time deadline = session.Deadline();
    for (size_t i = 0; i < session.lanes().size(); ++i, ++sent) {
      Lane& lane = session.lane(i);
      const auto message = lane.outgoing().subspan(work.OffsetOf(number), work.bytes());
      if (auto done = lane.endpoint->Send(message, deadline); !done.ok()) return done;
      ++run.done[i];
    }
    parts.Note(sent);
  }
  for (Lane& lane : session.lanes()) {
    if (auto ended = lane.endpoint->Send({}, session.Deadline()); !ended.ok()) return ended;
  }
  for (Lane& lane : session.lanes()) {
    const auto answer =
        lane.endpoint->Receive(lane.incoming().first(kEndsAnswer), session.Deadline());
    if (!answer.ok()) return answer.status();
  }
  run.parts = parts.End(sent);
  return run;
}

absl::StatusOr<BandwidthRun> ReceiveAll(Session& session, Work& work) {
  BandwidthRun run;
  run.done.assign(session.lanes().size(), 0);
  size_t open = session.lanes().size();
  std::vector<bool> ended(open, false);
  for (uint64_t number = 0; open > 0; ++number) {
    const absl::Time deadline = session.Deadline();
    for (size_t i = 0; i < ended.size(); ++i) {
      if (ended[i]) continue;
      Lane& lane = session.lane(i);
      const auto into = lane.incoming().subspan(work.OffsetOf(number), work.bytes());
      const auto received = lane.endpoint->Receive(into, deadline);
      if (!received.ok()) return received.status();
      ended[i] = *received == 0;
      open -= ended[i] ? 1 : 0;
      run.done[i] += ended[i] ? 0 : 1;
    }
  }
  for (Lane& lane : session.lanes()) {
    auto answered = lane.endpoint->Send(lane.outgoing().first(kEndsAnswer), session.Deadline());
    if (!answered.ok()) return answered;
  }
  return run;
}

}  // namespace

absl::StatusOr<BandwidthRun> RunBandwidth(Session& session, const PairOptions& options, Work& work,
                                          const Phase& phase) {
  if (auto together = session.Together(); !together.ok()) return together;
  absl::StatusOr<BandwidthRun> run = BandwidthRun{};
  run->done.assign(session.lanes().size(), 0);
  const bool active = session.initiator() || options.bidirectional;
  if (options.operation == PairOperation::kSend) {
    run = active ? SendAll(session, work, phase) : ReceiveAll(session, work);
    if (!run.ok()) return run;
  } else {
    if (active) {
      run = OneSided(session, options, work, phase).Run(options.timeout);
      if (!run.ok()) return run;
      if (auto ended = session.SayEnd(); !ended.ok()) return ended;
    }
    const bool awaits = !session.initiator() || options.bidirectional;
    if (awaits && !options.passive_target) {
      if (auto ended = session.AwaitPeersEnd(); !ended.ok()) return ended;
    }
  }
  if (auto together = session.Together(); !together.ok()) return together;
  if (options.operation == PairOperation::kSend) return run;
  if (options.passive_target && !session.initiator()) {
    if (auto ended = session.AwaitPeersEnd(); !ended.ok()) return ended;
  }
  session.NextPhase();
  return run;
}

}  // namespace sumac::cli
