#include "verbs/soft_nic/device/progress.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>
#include <utility>

namespace sumac::soft_nic {
namespace {

Time Now() { return std::chrono::steady_clock::now(); }

// For ppoll: what is left until `until`, null for kNever.
timespec* Remaining(Time until, timespec* storage) {
  if (until == kNever) return nullptr;
  const auto left = std::max(Duration(until - Now()), Duration(0));
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(left);
  storage->tv_sec = seconds.count();
  storage->tv_nsec = (left - seconds).count();
  return storage;
}

// While the link was full, or another thread was in the engine, there is no event to wait for: look
// again soon.
constexpr Duration kRetryWhenFull = std::chrono::microseconds(100);

// Blocks all signals of the calling thread for the length of a scope: a thread started in it takes
// none, so that the application's handlers run on its own threads.
class ScopedNoSignals {
 public:
  ScopedNoSignals() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~ScopedNoSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  ScopedNoSignals(const ScopedNoSignals&) = delete;
  ScopedNoSignals& operator=(const ScopedNoSignals&) = delete;

 private:
  sigset_t before_{};
};

// Shares of the processor in smaller pieces than usual, so that the helper soon gets its turn
// beside threads that spin on memory. Linux takes it for ordinary threads since 6.12 (EEVDF, the
// runtime field of sched_setattr(2)); older kernels ignore it.
void AskForShortSlices() {
  struct {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
  } attributes{};
  attributes.size = sizeof(attributes);
  if (syscall(SYS_sched_getattr, 0, &attributes, sizeof(attributes), 0) != 0) return;
  if (attributes.policy != SCHED_OTHER) return;
  attributes.runtime = 100'000;  // ns, the smallest
  syscall(SYS_sched_setattr, 0, &attributes, 0);
}

}  // namespace

Progress::Progress(Drivable& engine, int link_fd, int control_fd, std::function<void()> on_control)
    : engine_(engine),
      link_fd_(link_fd),
      control_fd_(control_fd),
      on_control_(std::move(on_control)),
      kick_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  if (kick_.get() < 0) throw std::runtime_error("soft NIC: eventfd");
  const ScopedNoSignals no_signals;
  helper_ = std::thread([this] { RunHelper(); });
  pthread_setname_np(helper_.native_handle(), "sumac-soft-nic");
}

void Progress::Stop() {
  if (!helper_.joinable()) return;
  stop_.store(true);
  WakeHelper();
  helper_.join();
}

bool Progress::TryEnter() {
  uint32_t seen = owner_.load(std::memory_order_relaxed);
  while ((seen & kOwned) == 0) {
    // Whatever is pending, this owner will now see.
    if (owner_.compare_exchange_weak(seen, kOwned, std::memory_order_acquire)) return true;
  }
  return false;
}

bool Progress::TryEnterToDrive() {
  if (TryEnter()) return true;
  if (!kept_out_.load(std::memory_order_relaxed)) kept_out_.store(true, std::memory_order_relaxed);
  return false;
}

bool Progress::EnterOrDelegate() {
  for (;;) {
    if (TryEnter()) return true;
    if (owner_.fetch_or(kPending | kPackets, std::memory_order_acq_rel) & kOwned) return false;
  }
}

void Progress::EnterBlocking() {
  while (!TryEnter()) sched_yield();
}

void Progress::Leave() {
  bool received = false;
  uint32_t seen = kOwned;
  while (!owner_.compare_exchange_strong(seen, 0, std::memory_order_release)) {
    const ScopedNoCancel no_cancel;
    // Clears what is pending: it is done now. Packets once: they may come faster than they are
    // taken, and this thread has completions to look at; the helper asks again.
    const uint32_t pending = owner_.exchange(kOwned, std::memory_order_acq_rel);
    const bool receive = (pending & kPackets) != 0 && !std::exchange(received, true);
    DriveOwned(receive);
    seen = kOwned;
  }
  // Pairs with ServeUntilKicked: the timer was published before this look, and the helper
  // publishes until when it sleeps before it looks at the timer once more.
  if (mode_.load(std::memory_order_seq_cst) == kWatch) return;
  if (NextWake().time_since_epoch().count() < sleeps_until_.load(std::memory_order_seq_cst)) {
    WakeHelper();
  }
}

// Without this, a thread that makes control calls all the time could keep everybody out: on one
// processor it loses its turn nearly always inside of one.
void Progress::LeaveControl() {
  if (kept_out_.load(std::memory_order_relaxed)) {
    kept_out_.store(false, std::memory_order_relaxed);
    DriveOwned(/*receive=*/true);
  }
  Leave();
}

uint32_t Progress::DriveOwned(bool receive) {
  const auto [work_left, packets] = engine_.Drive(Now(), receive);
  const Time::rep next_timeout = engine_.NextTimeout().time_since_epoch().count();
  // Only the owner writes these: the common case, nothing new, writes nothing.
  if (work_left != work_left_.load(std::memory_order_relaxed)) work_left_.store(work_left);
  if (next_timeout != next_timeout_.load(std::memory_order_relaxed)) {
    next_timeout_.store(next_timeout);
  }
  return packets;
}

void Progress::NoteActivity(bool poll) {
  // Pairs with the helper, which sets its mode before it looks at the activity once more.
  activity_.fetch_add(1, std::memory_order_seq_cst);
  const int mode = mode_.load(std::memory_order_seq_cst);
  if (mode == kWatch) return;
  if (poll && mode == kServe && !PollingIsSustained()) return;
  Kick();
}

// Threads that poll at once may lose each other's counts: a guess that is off by a few polls.
bool Progress::PollingIsSustained() {
  const uint32_t polls = polls_.load(std::memory_order_relaxed) + 1;
  polls_.store(polls, std::memory_order_relaxed);
  const Time::rep now = Now().time_since_epoch().count();
  const Duration passed(now - polling_since_.load(std::memory_order_relaxed));
  if (passed <= kSustained) return false;
  polling_since_.store(now, std::memory_order_relaxed);
  polls_.store(0, std::memory_order_relaxed);
  return polls * kSustained >= kSustainedPolls * passed;
}

void Progress::Kick() {
  if (mode_.exchange(kWatch) != kWatch) WakeHelper();
}

void Progress::WakeHelper() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(kick_.get(), &one, sizeof(one));
}

void Progress::Poll() {
  const ScopedNoCancel no_cancel;
  NoteActivity(/*poll=*/true);
  if (!TryEnterToDrive()) return;
  const uint32_t packets = DriveOwned(/*receive=*/true);
  Leave();
  if (packets <= kRoundTripPackets) return;
  polls_.store(polls_.load(std::memory_order_relaxed) + packets - kRoundTripPackets,
               std::memory_order_relaxed);
}

void Progress::Ring() {
  const ScopedNoCancel no_cancel;
  for (;;) {
    if (TryEnter()) {
      DriveOwned(/*receive=*/false);
      Leave();
      return;
    }
    // If the owner left just before this, nobody would see the flag: then try to enter again.
    if (owner_.fetch_or(kPending, std::memory_order_acq_rel) & kOwned) return;
  }
}

// A thread in Wait, also when it leaves by cancellation.
class Progress::WaiterScope {
 public:
  explicit WaiterScope(Progress& progress) : progress_(progress) {
    progress_.waiters_.fetch_add(1);
    progress_.NoteActivity(/*poll=*/false);
  }
  ~WaiterScope() {
    progress_.waiters_.fetch_sub(1);
    progress_.NoteActivity(/*poll=*/false);  // the helper watches again
  }
  WaiterScope(const WaiterScope&) = delete;
  WaiterScope& operator=(const WaiterScope&) = delete;

 private:
  Progress& progress_;
};

// A thread that will sleep on the link unless its next look finds something.
class Progress::SleeperScope {
 public:
  explicit SleeperScope(Progress& progress, bool link)
      : progress_(progress), link_(link), must_look_(link && progress.engine_.AnnounceSleep()) {}
  ~SleeperScope() {
    if (link_) progress_.engine_.WithdrawSleep();
  }
  SleeperScope(const SleeperScope&) = delete;
  SleeperScope& operator=(const SleeperScope&) = delete;

  // Until when to sleep at most, having driven or not.
  Time Until(bool drove) const {
    const Time wake = progress_.NextWake();
    return drove || !must_look_ ? wake : std::min(wake, Now() + kRetryWhenFull);
  }

 private:
  Progress& progress_;
  const bool link_;
  const bool must_look_;
};

bool Progress::Wait(int event_fd, int timeout_ms, absl::FunctionRef<bool()> done) {
  const ScopedNoCancel no_cancel;
  const Time deadline = timeout_ms < 0 ? kNever : Now() + std::chrono::milliseconds(timeout_ms);
  const WaiterScope waiter(*this);
  while (!done()) {
    const SleeperScope sleeper(*this, /*link=*/true);
    const bool drove = TryEnterToDrive();
    if (drove) {
      DriveOwned(/*receive=*/true);
      Leave();
    }
    if (done()) return true;
    if (Now() >= deadline) return false;
    pollfd events[] = {{event_fd, POLLIN, 0}, {link_fd_, POLLIN, 0}};
    timespec left{};
    pthread_setcancelstate(no_cancel.before(), nullptr);
    ppoll(events, std::size(events), Remaining(std::min(deadline, sleeper.Until(drove)), &left),
          nullptr);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, nullptr);
  }
  return true;
}

Time Progress::NextWake() const {
  const Time timer = Time(Time::duration(next_timeout_.load()));
  if (!work_left_.load()) return timer;
  return std::min(timer, Now() + kRetryWhenFull);
}

void Progress::RunHelper() {
  AskForShortSlices();
  uint64_t seen = activity_.load();
  while (!stop_.load()) {
    Nap();
    const uint64_t now_seen = activity_.load(std::memory_order_seq_cst);
    const bool waited_for = waiters_.load() > 0;
    if (now_seen != seen && !waited_for) {
      seen = now_seen;
      continue;
    }
    mode_.store(waited_for ? kParked : kServe, std::memory_order_seq_cst);
    // Somebody may have come between the look and the store, and found no reason to kick.
    seen = activity_.load(std::memory_order_seq_cst);
    if (seen != now_seen || (waiters_.load() > 0) != waited_for) {
      mode_.store(kWatch);
      continue;
    }
    takeovers_.fetch_add(1, std::memory_order_relaxed);
    ServeUntilKicked();
    handbacks_.fetch_add(1, std::memory_order_relaxed);
    mode_.store(kWatch);
    seen = activity_.load();
  }
}

void Progress::Nap() { Sleep(/*link=*/false, Now() + kNap); }

void Progress::ServeUntilKicked() {
  while (!stop_.load() && mode_.load(std::memory_order_seq_cst) != kWatch) {
    // Beside a waiting thread only timers are our business: it may sleep past one that a third
    // thread's post started.
    const bool serve = mode_.load() != kParked;
    const SleeperScope sleeper(*this, serve);
    const bool drove = serve ? EnterOrDelegate() : NextWake() <= Now() && TryEnterToDrive();
    if (drove) {
      DriveOwned(serve);
      Leave();
      helper_drives_.fetch_add(1, std::memory_order_relaxed);
    }
    const Time until = sleeper.Until(drove);
    sleeps_until_.store(until.time_since_epoch().count());
    if (NextWake() >= until) Sleep(/*link=*/serve, until);
    sleeps_until_.store(kAwake);
  }
}

void Progress::Sleep(bool link, Time until) {
  pollfd events[] = {{kick_.get(), POLLIN, 0},
                     {control_fd_, POLLIN, 0},  // ppoll skips -1
                     {link ? link_fd_ : -1, POLLIN, 0}};
  timespec left{};
  const int ready = ppoll(events, std::size(events), Remaining(until, &left), nullptr);
  helper_wakeups_.fetch_add(1, std::memory_order_relaxed);
  if (ready <= 0) return;
  if (events[0].revents != 0) {
    uint64_t kicks = 0;
    [[maybe_unused]] const ssize_t got = read(kick_.get(), &kicks, sizeof(kicks));
  }
  if (events[1].revents != 0) on_control_();
}

}  // namespace sumac::soft_nic
