#include "verbs/soft_nic/device/timer_heap.h"

#include <algorithm>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace sumac::soft_nic {
namespace {

TEST(TimerHeap, AgreesWithALinearSearch) {
  constexpr unsigned kSeed = 1;
  std::mt19937 random(kSeed);
  std::vector<TimerItem> items(50);
  TimerHeap heap;
  heap.Reserve(items.size());
  for (int step = 0; step < 20'000; ++step) {
    TimerItem& item = items[random() % items.size()];
    switch (random() % 4) {
      case 0:
        heap.Remove(item);
        break;
      case 1:
        heap.Set(item, kNever);
        break;
      default:
        heap.Set(item, Time(Duration(random() % 1000)));
    }
    Time least = kNever;
    for (const TimerItem& each : items) least = std::min(least, each.deadline);
    ASSERT_EQ(heap.next(), least) << "seed " << kSeed << " step " << step;
    if (least != kNever) {
      ASSERT_EQ(heap.first()->deadline, least);
    }
  }
}

}  // namespace
}  // namespace sumac::soft_nic
