#include "verbs/soft_nic/device/completion_queue.h"

#include <poll.h>

#include <memory>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace sumac::soft_nic {
namespace {

struct Fixture {
  explicit Fixture(int entries) : queue(&context, entries, nullptr, channel.get(), &overrun) {}
  ibv_context context{};
  std::unique_ptr<SoftChannel> channel{SoftChannel::Create(&context)};
  bool overrun = false;
  SoftCompletionQueue queue;

  void Push(uint64_t wr_id, bool solicited = false, uint32_t qpn = 0) {
    ibv_wc wc{};
    wc.wr_id = wr_id;
    wc.qp_num = qpn;
    queue.Push(wc, solicited);
  }
  std::vector<uint64_t> TakeAll() {
    std::vector<uint64_t> ids;
    ibv_wc wc[3];
    for (int n; (n = queue.Take(3, wc)) > 0;) {
      for (int i = 0; i < n; ++i) ids.push_back(wc[i].wr_id);
    }
    return ids;
  }
  bool Readable() const {
    pollfd event{.fd = channel->fd, .events = POLLIN, .revents = 0};
    return poll(&event, 1, 0) == 1;
  }
};

TEST(SoftCompletionQueue, KeepsOrderAroundTheRing) {
  Fixture f(4);
  uint64_t next = 0;
  for (int round = 0; round < 10; ++round) {
    std::vector<uint64_t> pushed;
    for (int i = 0; i < 3; ++i) {
      pushed.push_back(next);
      f.Push(next++);
    }
    EXPECT_EQ(f.TakeAll(), pushed);
  }
}

TEST(SoftCompletionQueue, IsResizedWithWhatItHolds) {
  Fixture f(4);
  f.queue.KeepTimes();
  for (uint64_t i = 0; i < 3; ++i) f.Push(i);
  EXPECT_EQ(f.TakeAll().size(), 3u);  // so that the next ones wrap
  for (uint64_t i = 0; i < 4; ++i) f.Push(i);
  ASSERT_TRUE(f.queue.Resize(9));
  EXPECT_EQ(f.queue.cqe, 16);
  for (uint64_t i = 4; i < 16; ++i) f.Push(i);
  EXPECT_FALSE(f.overrun);
  EXPECT_FALSE(f.queue.Resize(8)) << "it holds more";
  EXPECT_EQ(f.queue.cqe, 16);
  CompletionTime last;
  for (uint64_t i = 0; i < 14; ++i) {
    ibv_wc wc{};
    CompletionTime time;
    ASSERT_TRUE(f.queue.TakeOne(&wc, &time));
    EXPECT_EQ(wc.wr_id, i);
    EXPECT_GE(time.raw_ns, last.raw_ns);
    last = time;
  }
  ASSERT_TRUE(f.queue.Resize(2));
  EXPECT_EQ(f.TakeAll(), (std::vector<uint64_t>{14, 15}));
  f.Push(16);
  f.Push(17);
  EXPECT_FALSE(f.overrun);
  f.Push(18);
  EXPECT_TRUE(f.overrun);
}

TEST(SoftCompletionQueue, HoldsWhatItPromisesAndThenOverrunsForGood) {
  Fixture f(4);
  ASSERT_EQ(f.queue.cqe, 4);
  for (uint64_t i = 0; i < 4; ++i) f.Push(i);
  EXPECT_FALSE(f.overrun);
  f.Push(4);
  EXPECT_TRUE(f.overrun);
  EXPECT_TRUE(f.queue.overrun());
  EXPECT_EQ(f.TakeAll(), (std::vector<uint64_t>{0, 1, 2, 3}));
  f.Push(5);
  EXPECT_TRUE(f.TakeAll().empty()) << "a completion after a lost one";
}

TEST(SoftCompletionQueue, DestroyedQueuePairsTakeTheirCompletionsAlong) {
  Fixture f(8);
  for (uint64_t i = 0; i < 8; ++i) f.Push(i, false, i % 2);
  f.queue.Forget(1);
  EXPECT_EQ(f.TakeAll(), (std::vector<uint64_t>{0, 2, 4, 6}));
}

TEST(SoftCompletionQueue, OneEventForEachRequestForOne) {
  Fixture f(16);
  f.Push(0);
  EXPECT_FALSE(f.Readable()) << "nobody asked";
  f.queue.Arm(false);
  EXPECT_FALSE(f.Readable()) << "what came before does not count";
  f.Push(1);
  f.Push(2);
  EXPECT_TRUE(f.Readable());
  f.queue.Arm(false);
  f.Push(3);
  // Two requests were answered: two events, whether or not somebody took the first in between.
  EXPECT_EQ(f.channel->Take(), &f.queue);
  EXPECT_TRUE(f.Readable());
  EXPECT_EQ(f.channel->Take(), &f.queue);
  EXPECT_FALSE(f.Readable());
  EXPECT_EQ(f.channel->Take(), nullptr);
  EXPECT_EQ(f.queue.comp_events_taken, 2u);
}

TEST(SoftCompletionQueue, SolicitedOnlyWaitsForASolicitedOne) {
  Fixture f(16);
  f.queue.Arm(true);
  f.Push(0);
  EXPECT_FALSE(f.Readable());
  f.Push(1, true);
  EXPECT_TRUE(f.Readable());
  f.channel->Take();
  // A request for any completion is not weakened by one for solicited ones.
  f.queue.Arm(false);
  f.queue.Arm(true);
  f.Push(2);
  EXPECT_TRUE(f.Readable());
}

TEST(SoftChannel, ForgettingAQueueLeavesTheOthersEvents) {
  Fixture f(4);
  SoftCompletionQueue second(&f.context, 4, nullptr, f.channel.get(), &f.overrun);
  SoftCompletionQueue third(&f.context, 4, nullptr, f.channel.get(), &f.overrun);
  for (SoftCompletionQueue* queue : {&f.queue, &second, &third, &second}) {
    queue->Arm(false);
    queue->Push({}, false);
  }
  f.channel->Forget(&second);
  EXPECT_EQ(f.channel->Take(), &f.queue);
  EXPECT_EQ(f.channel->Take(), &third);
  EXPECT_FALSE(f.Readable());
  f.channel->Forget(&third);  // nothing to forget
}

TEST(SoftCompletionQueue, ArmedQueueLosesNoWakeUpAgainstItsProducer) {
  // The consumer arms, takes once more, and sleeps without limit when there was nothing.
  constexpr uint64_t kCompletions = 100'000;
  Fixture f(1 << 17);
  std::thread producer([&] {
    for (uint64_t i = 0; i < kCompletions; ++i) f.Push(i);
  });
  uint64_t taken = 0;
  ibv_wc wc[16];
  const auto take = [&] {
    const int n = f.queue.Take(16, wc);
    for (int i = 0; i < n; ++i) EXPECT_EQ(wc[i].wr_id, taken++);
    return n;
  };
  while (taken < kCompletions) {
    f.queue.Arm(false);
    if (take() > 0) continue;
    pollfd event{.fd = f.channel->fd, .events = POLLIN, .revents = 0};
    ASSERT_EQ(poll(&event, 1, 30'000), 1) << "slept through completion " << taken;
    ASSERT_EQ(f.channel->Take(), &f.queue);
    while (take() > 0) {
    }
  }
  producer.join();
}

}  // namespace
}  // namespace sumac::soft_nic
