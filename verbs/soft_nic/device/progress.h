// Who drives the engine: application threads while they poll or post, a blocked thread while it
// waits, and a helper thread when nobody does
// (docs/decisions/0002-progress-without-burning-cores.md).
//
// One thread at a time owns the engine. The owner word says {owned, pending, packets}: who can't
// enter sets `pending`, and an owner does not leave before it has seen `pending` clear, so no
// doorbell is lost. `packets` asks it to look for some, too.
//
// The helper is in one of three modes:
//   watch   sleeps kNap at a time; as long as somebody polls between two naps it does nothing else
//   serve   nobody drives: waits for packets, timers and kicks, and drives
//   parked  a thread waits in Wait() and drives: minds the timers only, until that thread leaves
// It leaves serve when somebody polls kSustainedPolls times in kSustained (or less often, with more
// packets each time), parked as soon as somebody polls, and both when somebody waits (Kick, at most
// one system call a transition); it sleeps without a timeout while the device is idle. So a program
// that looks at its memory between its polls (ib_write_lat) is served all the while. Who stops
// polling is replaced within two naps. A post alone changes no mode, as its thread may not come
// back: it drives once, and wakes a sleeping helper only when it left a timer that is due before
// the helper would look.
//
// Programs cancel threads that wait for completions (rping does): the only cancellation point in
// here is the sleep in Wait, where nothing is owned.
//
// Owned by SoftContext, whose scheduler it drives. Threads: any, but for the constructor
// and destructor. Poll, Ring and Wait allocate nothing; the only lock is the engine's ownership,
// which a post does not wait for.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <limits>
#include <thread>

#include "absl/functional/function_ref.h"

#include "verbs/soft_nic/engine/ports.h"
#include "verbs/soft_nic/link/no_cancel.h"
#include "verbs/soft_nic/link/unique_fd.h"

namespace sumac::soft_nic {

// What a turn of the engine left, and did.
struct DriveResult {
  bool work_left = false;  // that needs no new packet or timer: the link was full, the turn long
  uint32_t packets = 0;    // received and sent
};

// What is driven. Called by the engine's owner only.
class Drivable {
 public:
  virtual ~Drivable() = default;
  // Does what is due now. `receive`: also take packets from the link.
  virtual DriveResult Drive(Time now, bool receive) = 0;
  // When the next timer is due.
  virtual Time NextTimeout() const = 0;
  // Link::AnnounceSleep, Link::WithdrawSleep. Any thread.
  virtual bool AnnounceSleep() { return false; }
  virtual void WithdrawSleep() {}
};

// What the helper thread did.
struct ProgressCounters {
  uint64_t helper_wakeups = 0;
  uint64_t helper_drives = 0;
  uint64_t takeovers = 0;  // from watching to serving
  uint64_t handbacks = 0;  // and back
};

class Progress {
 public:
  // Short enough to take over in a millisecond, long enough to cost next to nothing beside a thread
  // that polls (docs/decisions/0002-progress-without-burning-cores.md).
  static constexpr std::chrono::microseconds kNap{500};
  // A thread that polls so often in so long a time does nothing else, and is here to stay; one that
  // polls once a round trip is not. A count and no longest pause: on a busy processor the helper's
  // own turns are pauses. In the midst of bulk data each poll takes long: there, packets count as
  // well, but for those that a round trip brings and costs.
  static constexpr std::chrono::microseconds kSustained{200};
  static constexpr uint32_t kSustainedPolls = 64;
  static constexpr uint32_t kRoundTripPackets = 4;

  // `link_fd` is readable when packets wait; `control_fd` (or -1) is served by the helper through
  // `on_control`.
  Progress(Drivable& engine, int link_fd, int control_fd, std::function<void()> on_control);
  ~Progress() { Stop(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Ends the helper, and with it all progress that no call drives. Once, or by the destructor.
  void Stop();

  // A polling thread found nothing: drive once, if nobody else does.
  void Poll();
  // Something was posted: make sure that somebody picks it up, at best this thread, now.
  void Ring();
  // What a post may be able to do at once, if nobody owns the engine: true when it was done, and
  // nothing is left that Ring would be for. `attempt` says so, and does not wait.
  // `attempt` must not meet a cancellation point unguarded.
  template <typename Attempt>
  bool TryAlone(Attempt attempt) {
    if (!TryEnter()) return false;
    const bool done = attempt();
    Leave();
    return done;
  }
  // Drives until `done` says true or `timeout_ms` has passed (negative: no limit). `event_fd` turns
  // readable when `done` may have become true by another thread. The last value of `done`.
  bool Wait(int event_fd, int timeout_ms, absl::FunctionRef<bool()> done);

  ProgressCounters counters() const {
    return {helper_wakeups_.load(std::memory_order_relaxed),
            helper_drives_.load(std::memory_order_relaxed),
            takeovers_.load(std::memory_order_relaxed), handbacks_.load(std::memory_order_relaxed)};
  }

  // Runs `change` with the engine owned: for control calls, which must not meet a running engine.
  // It does not drive, but for others that wanted to meanwhile: Ring, when the change left
  // something to do.
  template <typename Change>
  auto Exclusive(Change change) {
    const OwnerScope owner(*this);
    return change();
  }

 private:
  enum Owner : uint32_t { kOwned = 1, kPending = 2, kPackets = 4 };
  enum Mode : int { kWatch, kServe, kParked };
  static constexpr Time::rep kAwake = std::numeric_limits<Time::rep>::min();

  class OwnerScope {
   public:
    explicit OwnerScope(Progress& progress) : progress_(progress) { progress_.EnterBlocking(); }
    // no_cancel_ goes last: the owner word is free before a cancellation can act.
    ~OwnerScope() { progress_.LeaveControl(); }
    OwnerScope(const OwnerScope&) = delete;
    OwnerScope& operator=(const OwnerScope&) = delete;

   private:
    const ScopedNoCancel no_cancel_;
    Progress& progress_;
  };

  class WaiterScope;
  class SleeperScope;

  bool TryEnter();
  // For those who drive: when it says no, a control call that is in the way drives in their place.
  bool TryEnterToDrive();
  // For the helper: when it says no, the owner takes the packets that are there before it leaves.
  bool EnterOrDelegate();
  void EnterBlocking();
  void Leave();
  void LeaveControl();
  uint32_t DriveOwned(bool receive);  // packets
  // When sleeping must end at the latest: the next timer, or soon while work is left.
  Time NextWake() const;
  // `poll`: by a thread that may not come back soon.
  void NoteActivity(bool poll);
  bool PollingIsSustained();
  void Kick();
  void WakeHelper();
  void RunHelper();
  void Nap();
  void ServeUntilKicked();
  // Waits for kicks, control requests, and packets if `link`. `until` kNever: without limit.
  void Sleep(bool link, Time until);

  Drivable& engine_;
  const int link_fd_;
  const int control_fd_;
  const std::function<void()> on_control_;
  UniqueFd kick_;

  alignas(64) std::atomic<uint32_t> owner_{0};
  std::atomic<Time::rep> next_timeout_{kNever.time_since_epoch().count()};
  std::atomic<bool> work_left_{false};
  std::atomic<bool> kept_out_{false};  // somebody wanted to drive and could not
  alignas(64) std::atomic<uint64_t> activity_{0};
  // While the helper serves: when it began to count polls, and how many there were, with packets.
  std::atomic<Time::rep> polling_since_{0};
  std::atomic<uint32_t> polls_{0};
  std::atomic<int> waiters_{0};
  alignas(64) std::atomic<int> mode_{kWatch};
  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> helper_wakeups_{0};  // written by the helper
  std::atomic<uint64_t> helper_drives_{0};
  std::atomic<uint64_t> takeovers_{0};
  std::atomic<uint64_t> handbacks_{0};
  std::atomic<Time::rep> sleeps_until_{kAwake};  // the helper, in serve and parked
  std::thread helper_;
};

}  // namespace sumac::soft_nic
