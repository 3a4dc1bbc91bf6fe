// Collectives in shared memory, ranks on threads of one process over a job without network: what
// ThreadSanitizer can see. Processes: host_processes_test.cc.
#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "collectives/communicator.h"
#include "collectives/host/random_calls.h"
#include "runtime/host/region_record.h"
#include "runtime/testing/fake_job.h"

namespace sumac::collectives {
namespace {

using ::testing::HasSubstr;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kCalls = 150;
#else
constexpr int kCalls = 1200;
#endif

// Runs `body` on a thread for each rank, over a communicator in shared memory.
class HostJob {
 public:
  using Body = std::function<void(Communicator& communicator)>;

  explicit HostJob(int ranks) : job_(ranks) {}
  void Run(const Body& body, CommunicatorOptions options = {}) {
    options.name = "run" + std::to_string(++runs_);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < static_cast<int>(job_.domains.size()); ++rank) {
      threads.emplace_back([&, rank] {
        auto communicator = Communicator::Create(job_[rank], options);
        ASSERT_TRUE(communicator.ok()) << communicator.status();
        ASSERT_TRUE((*communicator)->uses_host_memory());
        body(**communicator);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  runtime::testing::FakeFabric& fabric() { return job_.fabric; }

 private:
  runtime::testing::FakeJob job_;
  int runs_ = 0;
};

CommunicatorOptions WithTimeout(absl::Duration timeout) {
  CommunicatorOptions options;
  options.timeout = timeout;
  return options;
}

absl::Status SumOne(Communicator& communicator) {
  int32_t one = 1;
  return communicator.AllReduce(&one, &one, 1, DataType::kInt32, ReduceOp::kSum);
}

class Ranks : public ::testing::TestWithParam<int> {};

TEST_P(Ranks, EveryTypeAndOperationIsRight) {
  HostJob job(GetParam());
  job.Run([](Communicator& communicator) {
    RandomMemory memory(communicator, 1 << 20, static_cast<uint64_t>(communicator.rank()));
    uint32_t salt = 0;
    for (int type = 0; type < 6; ++type) {
      for (int op = 0; op < 5; ++op) {
        for (const Collective collective : {Collective::kAllReduce, Collective::kReduceScatter}) {
          for (const size_t count : {1, 5, 777, 9001}) {
            RandomCall call{collective, communicator.size(),         0,
                            count,      static_cast<DataType>(type), static_cast<ReduceOp>(op)};
            call.salt = ++salt;
            call.in_place = salt % 2 == 0;
            ASSERT_EQ(MakeCall(communicator, call, memory), "");
          }
        }
      }
    }
  });
}

TEST_P(Ranks, RandomCallsAreRight) {
  HostJob job(GetParam());
  job.Run([](Communicator& communicator) {
    EXPECT_EQ(MakeRandomCalls(communicator, 42, kCalls / communicator.size(), 1 << 20), "");
  });
}

TEST_P(Ranks, RandomCallsAreRightByCopies) {
  CommunicatorOptions options;
  options.host_copies = HostCopies::kAlways;
  HostJob job(GetParam());
  job.Run(
      [](Communicator& communicator) {
        EXPECT_EQ(MakeRandomCalls(communicator, 43, kCalls / communicator.size(), 1 << 20), "");
      },
      options);
}

INSTANTIATE_TEST_SUITE_P(Numbers, Ranks, ::testing::Values(1, 2, 3, 4, 5, 8));

// Slots and stages are used again all the time; a stale word would show.
TEST(HostCollectives, BackToBackCalls) {
  HostJob job(3);
  job.Run([](Communicator& communicator) {
    const int rank = communicator.rank();
    std::vector<int32_t> mine(6000), sum(6000);
    for (int i = 0; i < kCalls * 4; ++i) {
      const size_t count = i % 16 == 0 ? mine.size() : static_cast<size_t>(1 + i % 40);
      std::fill_n(mine.begin(), count, i * (rank + 1));
      ASSERT_TRUE(
          communicator.AllReduce(mine.data(), sum.data(), count, DataType::kInt32, ReduceOp::kSum)
              .ok());
      ASSERT_EQ(std::count(sum.begin(), sum.begin() + static_cast<ptrdiff_t>(count), i * 6),
                static_cast<ptrdiff_t>(count))
          << i;
      if (i % 3 != 0) continue;
      int32_t root_says = rank == i % 3 ? i : -1;
      ASSERT_TRUE(communicator.Broadcast(&root_says, &root_says, 1, DataType::kInt32, i % 3).ok());
      ASSERT_EQ(root_says, i);
    }
  });
}

// A broadcast's root does not wait for the others: it may be ahead, but not by more than the slots.
TEST(HostCollectives, ARootAheadOfTheOthers) {
  HostJob job(2);
  job.Run([](Communicator& communicator) {
    std::vector<int32_t> data(30'000);
    for (int i = 0; i < 200; ++i) {
      const size_t count = i % 2 == 0 ? 3 : data.size();
      if (communicator.rank() == 0) std::fill(data.begin(), data.end(), i);
      if (communicator.rank() == 1 && i % 20 == 0) std::this_thread::yield();
      ASSERT_TRUE(
          communicator.Broadcast(data.data(), data.data(), count, DataType::kInt32, 0).ok());
      ASSERT_EQ(data[0], i);
      ASSERT_EQ(data[count - 1], i);
    }
  });
}

TEST(HostCollectives, ABufferFreedAndAnotherAtItsAddress) {
  HostJob job(2);
  job.Run([](Communicator& communicator) {
    constexpr size_t kCount = 50'000;
    std::byte* last = nullptr;
    int same = 0;
    for (int32_t i = 1; i <= 300; ++i) {  // more often than there are entries to announce
      auto buffer = communicator.Allocate(kCount * sizeof(int32_t));
      ASSERT_TRUE(buffer.ok()) << buffer.status();
      same += buffer->data() == last ? 1 : 0;
      last = buffer->data();
      auto* const data = reinterpret_cast<int32_t*>(buffer->data());
      std::fill_n(data, kCount, i);
      ASSERT_TRUE(
          communicator.AllReduce(data, data, kCount, DataType::kInt32, ReduceOp::kSum).ok());
      ASSERT_EQ(data[0], 2 * i);
      ASSERT_EQ(data[kCount - 1], 2 * i);
    }
#if !defined(__SANITIZE_THREAD__)  // ranks share mappings there: addresses come back late
    EXPECT_GT(same, 0);            // else this test says nothing
#endif
  });
}

// More buffers than entries: those beyond are as good as any other memory.
TEST(HostCollectives, MoreBuffersThanCanBeAnnounced) {
  HostJob job(2);
  job.Run([](Communicator& communicator) {
    std::vector<RegisteredBuffer> buffers;
    for (uint32_t i = 0; i < runtime::kRegionsMax + 3; ++i) {
      auto buffer = communicator.Allocate(40'000);
      ASSERT_TRUE(buffer.ok()) << buffer.status();
      buffers.push_back(*std::move(buffer));
    }
    for (RegisteredBuffer& buffer : buffers) {
      auto* const data = reinterpret_cast<int32_t*>(buffer.data());
      std::fill_n(data, 10'000, 3);
      ASSERT_TRUE(
          communicator.AllReduce(data, data, 10'000, DataType::kInt32, ReduceOp::kProd).ok());
      ASSERT_EQ(data[9'999], 9);
    }
  });
}

TEST(HostCollectives, BadArgumentsAreToldAndForgiven) {
  HostJob job(2);
  job.Run([](Communicator& communicator) {
    float data[4] = {};
    EXPECT_EQ(communicator.AllReduce(nullptr, data, 4, DataType::kFloat32, ReduceOp::kSum).code(),
              absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(communicator.AllReduce(data, data + 1, 2, DataType::kFloat32, ReduceOp::kSum).code(),
              absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(communicator.Broadcast(data, data, 1, DataType::kFloat32, 2).code(),
              absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(communicator.Allocate(0).status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_TRUE(
        communicator.AllReduce(nullptr, nullptr, 0, DataType::kFloat32, ReduceOp::kSum).ok());
    EXPECT_TRUE(SumOne(communicator).ok());
  });
}

TEST(HostCollectives, DifferentCallsAreRefused) {
  HostJob job(2);
  job.Run(
      [](Communicator& communicator) {
        std::vector<float> data(64);
        const size_t count = communicator.rank() == 0 ? 3 : 4;
        const absl::Status status = communicator.AllReduce(data.data(), data.data(), count,
                                                           DataType::kFloat32, ReduceOp::kSum);
        EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
        EXPECT_THAT(std::string(status.message()), HasSubstr("makes another call at this point"));
        EXPECT_EQ(SumOne(communicator), status);  // it stays failed
      },
      WithTimeout(absl::Seconds(5)));
}

TEST(HostCollectives, ALateRankIsNamedAtTheDeadline) {
  HostJob job(3);
  std::atomic<int> done{0};
  job.Run(
      [&](Communicator& communicator) {
        ASSERT_TRUE(SumOne(communicator).ok());
        if (communicator.rank() != 1) {
          const absl::Status status = SumOne(communicator);
          EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
          EXPECT_THAT(std::string(status.message()),
                      HasSubstr("allreduce (host, 1 x int32 sum): waits for rank 1"));
          ++done;
          done.notify_all();
        }
        for (int seen = done; seen < 2; seen = done) done.wait(seen);
      },
      WithTimeout(absl::Milliseconds(300)));
}

TEST(HostCollectives, ADeadRankEndsTheWaits) {
  HostJob job(3);
  std::atomic<int> in_call{0}, done{0};
  job.Run([&](Communicator& communicator) {
    ASSERT_TRUE(communicator.Barrier().ok());
    if (communicator.rank() == 2) {
      for (int seen = in_call; seen < 2; seen = in_call) in_call.wait(seen);
      job.fabric().FailRank(2, "killed");
      for (int seen = done; seen < 2; seen = done) done.wait(seen);
      return;
    }
    ++in_call;
    in_call.notify_all();
    const absl::Time began = absl::Now();
    const absl::Status status = SumOne(communicator);
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_EQ(transport::FailedRankOf(status), 2) << status;
    EXPECT_LT(absl::Now() - began, absl::Seconds(5));
    ++done;
    done.notify_all();
  });
}

TEST(HostCollectives, ARankThatLeftIsNamed) {
  HostJob job(2);
  job.Run([&](Communicator& communicator) {
    ASSERT_TRUE(communicator.Barrier().ok());
    if (communicator.rank() == 1) return;  // its communicator goes
    const absl::Status status = SumOne(communicator);
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("rank 1 has left"));
  });
}

// Long waits sleep; who comes late wakes them.
TEST(HostCollectives, SleepersAreWoken) {
  HostJob job(2);
  job.Run([&](Communicator& communicator) {
    for (int i = 0; i < 60; ++i) {
      if (i % 2 == communicator.rank()) {
        const absl::Time until = absl::Now() + absl::Milliseconds(1);
        while (absl::Now() < until) std::this_thread::yield();
      }
      ASSERT_TRUE(SumOne(communicator).ok());
    }
  });
}

TEST(HostCollectives, OffOnOneRankIsOffOnAll) {
  runtime::testing::FakeJob job(2);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 2; ++rank) {
    threads.emplace_back([&, rank] {
      CommunicatorOptions options;
      options.host_memory = rank != 1;
      auto communicator = Communicator::Create(job[rank], options);
      ASSERT_TRUE(communicator.ok()) << communicator.status();
      EXPECT_FALSE((*communicator)->uses_host_memory());
      options.name = "forced";
      options.algorithm = rank == 0 ? "host" : "";
      communicator = Communicator::Create(job[rank], options);
      EXPECT_EQ(communicator.ok(), rank != 0);
      if (rank == 0) {
        EXPECT_THAT(communicator.status().ToString(),
                    HasSubstr("rank 1: host memory is turned off"));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace sumac::collectives
