// Who drives: the hand-over between pollers, posters, waiters and the helper thread, on a device
// made of counters. No result depends on how long something took; deadlines only end a hang.
#include "verbs/soft_nic/device/progress.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <barrier>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

#include "tests/support/eventually.h"

namespace sumac::soft_nic {
namespace {

using test_support::Eventually;

constexpr auto kHang = std::chrono::seconds(30);
Time Now() { return std::chrono::steady_clock::now(); }

uint64_t Drain(int fd) {
  uint64_t count = 0;
  return read(fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}
void Signal(int fd, uint64_t count = 1) {
  ASSERT_EQ(write(fd, &count, sizeof(count)), static_cast<ssize_t>(sizeof(count)));
}

// Doorbells, packets and a timer, all as counts. Plain fields belong to the owner: ThreadSanitizer
// sees it when there are two.
class CountingEngine : public Drivable {
 public:
  CountingEngine()
      : link(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
        channel(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}

  DriveResult Drive(Time now, bool receive) override {
    EXPECT_FALSE(inside_.exchange(true)) << "two threads in the engine";
    ++drives;
    done += posted.exchange(0);
    if (receive) {
      const uint64_t got = Drain(link.get());
      packets.fetch_add(got);
      if (got != 0 && announce) Signal(channel.get());
    }
    if (const auto delay = start_timer_ms.exchange(0); delay != 0) {
      timer_ = now + std::chrono::milliseconds(delay);
    }
    if (timer_ <= now) {
      timer_ = kNever;
      fired.fetch_add(1);
    }
    if (dawdle) std::this_thread::yield();  // others meet an owner, also on few processors
    inside_.store(false);
    return {.work_left = false, .packets = also_packets.load()};
  }
  Time NextTimeout() const override { return timer_; }

  void Post() { posted.fetch_add(1); }

  const UniqueFd link;
  const UniqueFd channel;
  std::atomic<uint64_t> posted{0};
  std::atomic<uint64_t> packets{0};
  std::atomic<int64_t> start_timer_ms{0};
  std::atomic<int> fired{0};
  std::atomic<bool> dawdle{false};
  std::atomic<uint32_t> also_packets{0};  // of a turn, for those who count them
  std::atomic<bool> announce{false};      // tell the channel about packets, as a completion does
  uint64_t done = 0;
  uint64_t drives = 0;

 private:
  Time timer_ = kNever;
  std::atomic<bool> inside_{false};
};

class ProgressTest : public testing::Test {
 protected:
  // The helper has gone to sleep: it does not wake up any more.
  void WaitUntilIdle() {
    const UniqueFd never(eventfd(0, EFD_CLOEXEC));
    pollfd nothing{.fd = never.get(), .events = POLLIN, .revents = 0};
    const Time deadline = Now() + kHang;
    uint64_t before = 0;
    do {
      ASSERT_LT(Now(), deadline) << "the helper of an idle device keeps waking up";
      before = progress.counters().helper_wakeups;
      poll(&nothing, 1, 50);
    } while (progress.counters().helper_wakeups != before);
  }

  CountingEngine engine;
  const UniqueFd control{eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
  std::atomic<uint64_t> controls{0};
  Progress progress{engine, engine.link.get(), control.get(),
                    [this] { controls.fetch_add(Drain(control.get())); }};
};

TEST_F(ProgressTest, NoDoorbellIsLost) {
  // Everybody posts once a round. Whoever's Ring came back, an owner has picked its post up when
  // the engine is next free: no helper, no later poll is needed.
  constexpr int kThreads = 3;
  constexpr uint64_t kRounds = 10'000;
  engine.dawdle = true;
  std::barrier barrier(kThreads + 1);
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (uint64_t round = 0; round < kRounds; ++round) {
        barrier.arrive_and_wait();
        engine.Post();
        progress.Ring();
        barrier.arrive_and_wait();
      }
    });
  }
  uint64_t lost = 0;
  for (uint64_t round = 0; round < kRounds; ++round) {
    barrier.arrive_and_wait();
    progress.Poll();
    barrier.arrive_and_wait();
    const uint64_t left = progress.Exclusive([&] {
      EXPECT_EQ(engine.done + engine.posted, (round + 1) * kThreads);
      return engine.posted.load();
    });
    lost += left;
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(lost, 0u);
}

// One that makes control calls without a pause must not starve a thread that polls.
TEST_F(ProgressTest, ControlCallDrivesForThoseItKeptOut) {
  for (uint64_t i = 1; i <= 20; ++i) {
    progress.Exclusive([&] {
      Signal(engine.link.get());
      std::thread([&] { progress.Poll(); }).join();
      EXPECT_EQ(engine.packets, i - 1);
    });
    EXPECT_EQ(engine.packets, i);
  }
}

TEST_F(ProgressTest, HelperServesWhenNobodyPolls) {
  for (uint64_t i = 1; i <= 20; ++i) {
    progress.Poll();  // it was busy just now
    Signal(engine.link.get());
    ASSERT_TRUE(Eventually([&] { return engine.packets == i; }));
  }
}

TEST_F(ProgressTest, IdleDeviceSleepsAndStillServes) {
  for (uint64_t i = 1; i <= 3; ++i) {
    WaitUntilIdle();
    Signal(engine.link.get());
    ASSERT_TRUE(Eventually([&] { return engine.packets == i; }));
  }
}

TEST_F(ProgressTest, TimerOfAPostFiresThoughNobodyPolls) {
  for (int i = 1; i <= 3; ++i) {
    WaitUntilIdle();
    engine.start_timer_ms = 2;
    progress.Ring();
    ASSERT_TRUE(Eventually([&] { return engine.fired == i; }));
  }
}

TEST_F(ProgressTest, WaiterDrivesAndWakesByItsOwnPacket) {
  engine.announce = true;
  for (uint64_t i = 1; i <= 50; ++i) {
    std::thread network([&] { Signal(engine.link.get()); });
    const bool woken =
        progress.Wait(engine.channel.get(), 30'000, [&] { return engine.packets == i; });
    network.join();
    ASSERT_TRUE(woken);
    EXPECT_EQ(Drain(engine.channel.get()), 1u);
  }
}

TEST_F(ProgressTest, WaiterIsWokenByWhatAnotherThreadDid) {
  for (int i = 0; i < 50; ++i) {
    std::atomic<bool> done{false};
    std::thread other([&] {
      progress.Poll();
      done = true;
      Signal(engine.channel.get());
    });
    const bool woken = progress.Wait(engine.channel.get(), 30'000, [&] { return done.load(); });
    other.join();
    ASSERT_TRUE(woken);
    Drain(engine.channel.get());
  }
}

TEST_F(ProgressTest, CancelledWaiterLeavesTheDeviceServed) {
  for (uint64_t i = 1; i <= 10; ++i) {
    std::atomic<bool> inside{false};
    pthread_t waiter{};
    auto wait = [&] {
      progress.Wait(engine.channel.get(), -1, [&] {
        inside = true;
        return false;
      });
    };
    using Body = decltype(wait);
    ASSERT_EQ(pthread_create(
                  &waiter, nullptr,
                  [](void* body) -> void* {
                    (*static_cast<Body*>(body))();
                    return nullptr;
                  },
                  &wait),
              0);
    ASSERT_TRUE(Eventually([&] { return inside.load(); }));
    ASSERT_EQ(pthread_cancel(waiter), 0);
    void* result = nullptr;
    ASSERT_EQ(pthread_join(waiter, &result), 0);
    EXPECT_EQ(result, PTHREAD_CANCELED);
    Signal(engine.link.get());
    ASSERT_TRUE(Eventually([&] { return engine.packets == i; })) << "the helper still stands back";
  }
}

TEST_F(ProgressTest, WaitEndsAtItsDeadline) {
  EXPECT_FALSE(progress.Wait(engine.channel.get(), 0, [] { return false; }));
  EXPECT_FALSE(progress.Wait(engine.channel.get(), 5, [] { return false; }));
  EXPECT_TRUE(progress.Wait(engine.channel.get(), 0, [] { return true; }));
}

TEST_F(ProgressTest, TimerOfAPostFiresBesideASleepingWaiter) {
  // The waiter went to sleep before there was a timer.
  std::atomic<bool> leave{false};
  std::thread waiter([&] {
    EXPECT_TRUE(progress.Wait(engine.channel.get(), 30'000, [&] { return leave.load(); }));
  });
  for (int i = 1; i <= 5; ++i) {
    WaitUntilIdle();
    engine.start_timer_ms = 2;
    progress.Ring();
    EXPECT_TRUE(Eventually([&] { return engine.fired == i; }));
  }
  leave = true;
  Signal(engine.channel.get());
  waiter.join();
  // And who comes after the waiter is served.
  Signal(engine.link.get());
  EXPECT_TRUE(Eventually([&] { return engine.packets == 1; }));
}

TEST_F(ProgressTest, PosterThatNeverPollsLeavesTheHelperServing) {
  // As a program that posts and then looks at its memory only: a post must not send the helper back
  // to watching, or each answer would come a nap late.
  progress.Poll();
  WaitUntilIdle();
  const uint64_t takeovers = progress.counters().takeovers;
  for (uint64_t i = 1; i <= 100; ++i) {
    engine.Post();
    progress.Ring();
    Signal(engine.link.get());
    ASSERT_TRUE(Eventually([&] { return engine.packets == i; }));
  }
  EXPECT_EQ(progress.counters().takeovers, takeovers);
  // Nor must a poll now and then; one that goes on does.
  progress.Poll();
  engine.Post();
  Signal(engine.link.get());
  ASSERT_TRUE(Eventually([&] { return engine.packets == 101; }));
  EXPECT_EQ(progress.counters().takeovers, takeovers);
  const uint64_t handbacks = progress.counters().handbacks;
  EXPECT_TRUE(Eventually([&] {
    for (int n = 0; n < 10'000; ++n) progress.Poll();
    return progress.counters().handbacks > handbacks;
  }));
  EXPECT_TRUE(Eventually([&] { return progress.counters().takeovers > takeovers; }));
}

// Each poll takes long there, so few must do: fewer than would be a sign by themselves.
TEST_F(ProgressTest, HelperLeavesBulkDataToWhoPolls) {
  WaitUntilIdle();
  const uint64_t handbacks = progress.counters().handbacks;
  engine.also_packets = 1'000'000;
  for (uint32_t polls = 1; polls < Progress::kSustainedPolls; ++polls) {
    progress.Poll();
    std::this_thread::sleep_for(Progress::kSustained / 2);
  }
  EXPECT_TRUE(Eventually([&] { return progress.counters().handbacks > handbacks; }));
}

// It would keep looking at a link that stays readable, and perhaps keep the processor from the
// owner.
TEST_F(ProgressTest, OwnerTakesThePacketsThatTheHelperCannot) {
  for (uint64_t i = 1; i <= 20; ++i) {
    WaitUntilIdle();
    progress.Exclusive([&] {
      const uint64_t wakeups = progress.counters().helper_wakeups;
      Signal(engine.link.get());
      // The second time it has found the engine owned, and said so, at least once.
      EXPECT_TRUE(Eventually([&] { return progress.counters().helper_wakeups >= wakeups + 2; }));
      EXPECT_EQ(engine.packets, i - 1);
    });
    EXPECT_EQ(engine.packets, i);
  }
}

TEST_F(ProgressTest, TimersOfPostsFireWhateverTheHelperSleepsFor) {
  // Each timer is due before the one that the helper sleeps for, and set by somebody who leaves.
  for (int i = 1; i <= 200; ++i) {
    engine.start_timer_ms = i % 2 == 0 ? 1 : 20'000;
    progress.Ring();
    if (i % 2 == 0) {
      ASSERT_TRUE(Eventually([&] { return engine.fired == i / 2; }));
    }
  }
}

TEST_F(ProgressTest, ControlDescriptorIsServedInEveryMode) {
  WaitUntilIdle();
  Signal(control.get());
  ASSERT_TRUE(Eventually([&] { return controls == 1; })) << "while idle";

  Signal(control.get());
  ASSERT_TRUE(Eventually([&] {
    progress.Poll();
    return controls == 2;
  })) << "while somebody polls";

  std::thread asker([&] {
    Signal(control.get());
    EXPECT_TRUE(Eventually([&] { return controls == 3; })) << "while somebody waits";
    Signal(engine.channel.get());
  });
  EXPECT_TRUE(progress.Wait(engine.channel.get(), 30'000, [&] { return controls == 3; }));
  asker.join();
}

TEST_F(ProgressTest, ManyThreadsOfEveryKindLoseNothing) {
  constexpr uint64_t kEvents = 20'000;
  engine.dawdle = true;
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> rung{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&] {
      while (!stop) {
        for (int n = 0; n < 1000; ++n) progress.Poll();
        // Computes for a while: several naps of the helper.
        pollfd nothing{.fd = -1, .events = 0, .revents = 0};
        poll(&nothing, 1, 2);
      }
    });
  }
  threads.emplace_back([&] {
    while (!stop) progress.Wait(engine.channel.get(), 1, [&] { return stop.load(); });
  });
  threads.emplace_back([&] {
    for (; rung < kEvents; ++rung) {
      engine.Post();
      progress.Ring();
    }
  });
  threads.emplace_back([&] {
    for (int i = 0; !stop; ++i) progress.Exclusive([&] { return engine.drives; });
  });
  for (uint64_t i = 0; i < kEvents; ++i) Signal(engine.link.get());
  EXPECT_TRUE(Eventually([&] { return engine.packets == kEvents && rung == kEvents; }));
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(progress.Exclusive([&] { return engine.done; }), kEvents);
}

}  // namespace
}  // namespace sumac::soft_nic
