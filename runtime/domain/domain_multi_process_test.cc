// Domains in real processes over the soft NIC.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "runtime/domain.h"
#include "runtime/testing/domain_rank.h"
#include "tests/support/device.h"
#include "tests/support/job.h"

namespace sumac::runtime {
namespace {

using test_support::ForkedJob;
using testing::Deadline;
using testing::DomainRank;
using ::testing::HasSubstr;
using testing::kPatience;
using testing::Must;
using transport::BootstrapOptions;

constexpr std::chrono::seconds kJobTime{150};

class DomainJob : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, DomainJob, ::testing::Values(2, 3, 4));

// Everybody writes to everybody (also to itself), tells it, reads it back.
TEST_P(DomainJob, PutWithSignalAndGet) {
  ForkedJob job(GetParam(), [](const BootstrapOptions& options) {
    DomainRank self(options);
    Domain& domain = self.domain();
    EXPECT_EQ(domain.device_name(), test_support::TestDevice(self.rank()));
    constexpr size_t kBytes = 20000;  // several packets, not a multiple of any MTU
    const auto ranks = static_cast<size_t>(self.size());
    const Segment inbox = Must(domain.Allocate(ranks * kBytes));
    const Segment outbox = Must(domain.Allocate(2 * ranks * kBytes));
    const Grant grant = Must(domain.MakeGrant(inbox, 0, inbox.size(), kRightPut | kRightGet));
    const Signal signal = Must(domain.CreateSignal());
    const auto peers = self.Swap(grant.capability());
    const auto me = static_cast<size_t>(self.rank());
    for (size_t to = 0; to < ranks; ++to) {
      std::memset(outbox.data() + to * kBytes, static_cast<int>(16 * me + to + 1), kBytes);
      Must(domain.PutWithSignal(peers[to], me * kBytes, outbox.Slice(to * kBytes, kBytes),
                                {.rank = static_cast<int>(to), .id = signal.id}, 5));
    }
    for (size_t from = 0; from < ranks; ++from) {
      Must(domain.WaitSignal(signal, static_cast<int>(from), 5, Deadline()));
      const auto expected = static_cast<std::byte>(16 * from + me + 1);
      const std::byte* begin = inbox.data() + from * kBytes;
      EXPECT_EQ(std::count(begin, begin + kBytes, expected), kBytes) << "from rank " << from;
    }
    for (size_t to = 0; to < ranks; ++to) {
      Must(domain.Get(peers[to], me * kBytes, outbox.Slice((ranks + to) * kBytes, kBytes)));
    }
    Must(domain.Flush());
    EXPECT_EQ(std::memcmp(outbox.data(), outbox.data() + ranks * kBytes, ranks * kBytes), 0);
    self.Barrier();
  });
  job.ExpectAllOk(kJobTime);
}

// Rank 1 computes (as far as its network is concerned: it waits for a word of the bootstrap's) and
// is still connected to, written, read and counted in.
TEST(DomainJobTest, APassiveTarget) {
  ForkedJob job(2, [](const BootstrapOptions& options) {
    DomainRank self(options);
    Domain& domain = self.domain();
    constexpr size_t kBytes = 1 << 20;
    const Segment memory = Must(domain.Allocate(kBytes));
    const Grant grant = Must(domain.MakeGrant(memory, 0, kBytes, kAllRights));
    const auto peers = self.Swap(grant.capability());
    if (self.rank() == 1) {
      Must(self.bootstrap().Lookup("rank 0 is done", kPatience).status());
      EXPECT_EQ(memory.data()[kBytes - 1], std::byte{9});
      return;
    }
    const Segment back = Must(domain.Allocate(kBytes));
    for (int i = 0; i < 10; ++i) {
      std::memset(memory.data(), i, kBytes);
      Must(domain.Put(peers[1], 0, memory.Slice(0, kBytes)));
      Must(domain.Get(peers[1], 0, back.Slice(0, kBytes)));
      Must(domain.Flush(1));
      EXPECT_EQ(std::memcmp(memory.data(), back.data(), kBytes), 0);
    }
    EXPECT_EQ(Must(domain.FetchAdd(peers[1], 0, 1)), 0x0909090909090909u);
    EXPECT_EQ(Must(domain.CompareSwap(peers[1], 0, 0, 1)), 0x090909090909090au);
    Must(self.bootstrap().Publish("rank 0 is done", "", kPatience));
  });
  job.ExpectAllOk(kJobTime);
}

// Three ranks, 10,000 random operations each on their own part of everybody's memory, in flight
// together; the model is an array.
TEST(DomainJobTest, RandomOperationsMatchAModel) {
  ForkedJob job(3, [](const BootstrapOptions& options) {
    DomainRank self(options);
    Domain& domain = self.domain();
    constexpr size_t kPart = 8192;
    constexpr int kOperations = 10000;
    constexpr size_t kBatch = 16;
    const auto ranks = static_cast<size_t>(self.size());
    const Segment memory = Must(domain.Allocate(ranks * kPart));
    const Grant grant = Must(domain.MakeGrant(memory, 0, memory.size(), kAllRights));
    const auto peers = self.Swap(grant.capability());
    const Segment work = Must(domain.Allocate(kBatch * kPart));
    const size_t mine = static_cast<size_t>(self.rank()) * kPart;
    std::vector<std::vector<std::byte>> model(ranks, std::vector<std::byte>(kPart));
    std::mt19937 random(77u + static_cast<uint32_t>(self.rank()));
    for (int done = 0; done < kOperations;) {
      const size_t to = random() % ranks;
      std::vector<std::byte>& bytes = model[to];
      const bool puts = random() % 2 == 0;
      struct Range {
        size_t offset, length;
      };
      std::vector<Range> ranges;
      for (size_t i = 0; i < kBatch; ++i, ++done) {
        const size_t offset = random() % kPart;
        const size_t length = random() % (kPart - offset + 1);
        const LocalSlice slice = work.Slice(i * kPart, length);
        if (puts) {  // later ones over earlier ones: they must land in order
          std::byte* source = work.data() + i * kPart;
          for (size_t k = 0; k < length; ++k) source[k] = static_cast<std::byte>(random());
          std::copy(source, source + length, bytes.begin() + static_cast<ptrdiff_t>(offset));
          Must(domain.Put(peers[to], mine + offset, slice));
        } else {
          Must(domain.Get(peers[to], mine + offset, slice));
        }
        ranges.push_back({offset, length});
      }
      const size_t word = random() % (kPart / 8) * 8;
      uint64_t old = 0;
      std::memcpy(&old, bytes.data() + word, 8);
      ASSERT_EQ(Must(domain.FetchAdd(peers[to], mine + word, 3)), old);
      old += 3;
      std::memcpy(bytes.data() + word, &old, 8);
      Must(domain.Flush(static_cast<int>(to)));
      for (size_t i = 0; !puts && i < ranges.size(); ++i) {
        std::vector<std::byte> expected(
            bytes.begin() + static_cast<ptrdiff_t>(ranges[i].offset),
            bytes.begin() + static_cast<ptrdiff_t>(ranges[i].offset + ranges[i].length));
        // The fetch-add came after the gets were posted, but nothing orders it behind them.
        const size_t at = word - ranges[i].offset;
        for (size_t k = 0; k < 8; ++k) {
          if (at + k < expected.size()) expected[at + k] = work.data()[i * kPart + at + k];
        }
        ASSERT_TRUE(std::equal(expected.begin(), expected.end(), work.data() + i * kPart));
      }
    }
    self.Barrier();
    // What is in our memory is what the others' models say: let them compare.
    for (size_t to = 0; to < ranks; ++to) {
      Must(domain.Get(peers[to], mine, work.Slice(0, kPart)));
      Must(domain.Flush());
      EXPECT_EQ(std::memcmp(work.data(), model[to].data(), kPart), 0);
    }
    self.Barrier();
  });
  job.ExpectAllOk(kJobTime);
}

// The owner counts with the CPU, the others over the network, all at once.
TEST(DomainJobTest, ConcurrentFetchAddLosesNothing) {
  ForkedJob job(3, [](const BootstrapOptions& options) {
    DomainRank self(options);
    Domain& domain = self.domain();
    constexpr uint64_t kAdds = 2000;
    const Segment memory = Must(domain.Allocate(64));
    const Grant grant = Must(domain.MakeGrant(memory, 0, 64, kRightAtomic));
    const Capability counter = self.Swap(grant.capability())[0];
    std::string seen;
    for (uint64_t i = 0; i < kAdds; ++i) {
      const uint64_t old = Must(domain.FetchAdd(counter, 8, 1));
      seen.append(reinterpret_cast<const char*>(&old), sizeof(old));
    }
    const auto all = Must(self.bootstrap().Exchange("seen", seen, kPatience));
    std::vector<uint64_t> values;
    for (const std::string& part : all) {
      for (size_t at = 0; at < part.size(); at += 8) {
        uint64_t value = 0;
        std::memcpy(&value, part.data() + at, 8);
        values.push_back(value);
      }
    }
    std::sort(values.begin(), values.end());
    ASSERT_EQ(values.size(), 3 * kAdds);
    for (uint64_t i = 0; i < values.size(); ++i) ASSERT_EQ(values[i], i) << "each value once";
    EXPECT_EQ(Must(domain.FetchAdd(counter, 8, 0)), 3 * kAdds);
    self.Barrier();
  });
  job.ExpectAllOk(kJobTime);
}

TEST(DomainJobTest, CompareSwapMakesALock) {
  ForkedJob job(3, [](const BootstrapOptions& options) {
    DomainRank self(options);
    Domain& domain = self.domain();
    constexpr uint64_t kRounds = 100;
    const Segment memory = Must(domain.Allocate(64));
    const Grant grant = Must(domain.MakeGrant(memory, 0, 64, kAllRights));
    const Capability shared = self.Swap(grant.capability())[0];
    const Segment mine = Must(domain.Allocate(8));
    auto& value = *reinterpret_cast<uint64_t*>(mine.data());
    const auto id = static_cast<uint64_t>(self.rank()) + 1;
    for (uint64_t i = 0; i < kRounds; ++i) {
      while (Must(domain.CompareSwap(shared, 0, 0, id)) != 0) domain.Progress();
      // Under the lock: read, change, write, by ordinary gets and puts.
      Must(domain.Get(shared, 8, mine.Slice(0, 8)));
      Must(domain.Flush());
      value += id;
      Must(domain.Put(shared, 8, mine.Slice(0, 8)));
      Must(domain.Flush());
      ASSERT_EQ(Must(domain.CompareSwap(shared, 0, id, 0)), id);
    }
    self.Barrier();
    Must(domain.Get(shared, 8, mine.Slice(0, 8)));
    Must(domain.Flush());
    EXPECT_EQ(value, kRounds * (1 + 2 + 3));
    self.Barrier();
  });
  job.ExpectAllOk(kJobTime);
}

// A ball that two ranks throw: each time, the bytes must be there when the signal is.
TEST(DomainJobTest, BytesComeBeforeTheirSignal) {
  ForkedJob job(2, [](const BootstrapOptions& options) {
    DomainRank self(options);
    Domain& domain = self.domain();
    constexpr size_t kBytes = 9000;
    const Segment memory = Must(domain.Allocate(2 * kBytes));
    const Grant grant = Must(domain.MakeGrant(memory, 0, kBytes, kRightPut));
    const Signal signal = Must(domain.CreateSignal());
    const int other = 1 - self.rank();
    const Capability peer = self.Swap(grant.capability())[static_cast<size_t>(other)];
    for (uint64_t i = 1; i <= 1000; ++i) {
      const auto ball = static_cast<std::byte>(i % 251);
      if (self.rank() == 0) {
        std::fill_n(memory.data() + kBytes, kBytes, ball);
        Must(domain.PutWithSignal(peer, 0, memory.Slice(kBytes, kBytes), {other, signal.id}));
        Must(domain.WaitSignal(signal, other, i, Deadline()));
      } else {
        Must(domain.WaitSignal(signal, other, i, Deadline()));
        ASSERT_EQ(std::count(memory.data(), memory.data() + kBytes, ball), kBytes) << i;
        Must(domain.RaiseSignal({other, signal.id}));
      }
    }
    self.Barrier();
  });
  job.ExpectAllOk(kJobTime);
}

// More signals than there are credits, from three at once to one that is slow to take them.
TEST(DomainJobTest, ManySignals) {
  ForkedJob job(4, [](const BootstrapOptions& options) {
    DomainRank self(options);
    Domain& domain = self.domain();
    constexpr uint64_t kRaises = 3000;
    const Signal signal = Must(domain.CreateSignal());
    self.Barrier();
    if (self.rank() > 0) {
      for (uint64_t i = 0; i < kRaises; ++i) Must(domain.RaiseSignal({0, signal.id}, 2));
      Must(domain.RaiseSignal({0, 4711}));  // nobody made that one
      Must(domain.Flush());
    } else {
      for (int from = 3; from > 0; --from) {
        Must(domain.WaitSignal(signal, from, 2 * kRaises, Deadline()));
      }
      Must(domain.Wait([&] { return domain.dropped_signals() == 3; }, Deadline()));
      EXPECT_EQ(domain.SignalValue(signal, 0), 0u);
    }
    self.Barrier();
  });
  job.ExpectAllOk(kJobTime);
}

TEST(DomainJobTest, SixtyFourMebibytes) {
  ForkedJob job(2, [](const BootstrapOptions& options) {
    DomainRank self(options);
    Domain& domain = self.domain();
    constexpr size_t kBytes = 64 << 20;
    const Segment memory = Must(domain.Allocate(kBytes));
    auto* words = reinterpret_cast<uint32_t*>(memory.data());
    const Grant grant = Must(domain.MakeGrant(memory, 0, kBytes, kRightPut));
    const Signal signal = Must(domain.CreateSignal());
    const auto peers = self.Swap(grant.capability());
    if (self.rank() == 0) {
      for (size_t i = 0; i < kBytes / 4; ++i) words[i] = static_cast<uint32_t>(i * 2654435761u);
      Must(domain.PutWithSignal(peers[1], 0, memory.Slice(0, kBytes), {1, signal.id}));
      Must(domain.Flush());
    } else {
      Must(domain.WaitSignal(signal, 0, 1, Deadline()));
      size_t wrong = 0;
      for (size_t i = 0; i < kBytes / 4; ++i)
        wrong += words[i] == static_cast<uint32_t>(i * 2654435761u) ? 0 : 1;
      EXPECT_EQ(wrong, 0u);
    }
    self.Barrier();
  });
  job.ExpectAllOk(kJobTime);
}

// Kill -9 in mid-wait: the others' calls end and name the rank.
TEST(DomainJobTest, ADeadRankEndsWaitsAndPuts) {
  ForkedJob job(3, [](const BootstrapOptions& options) {
    DomainRank self(options);
    Domain& domain = self.domain();
    const Segment memory = Must(domain.Allocate(4096));
    const Grant grant = Must(domain.MakeGrant(memory, 0, 4096, kRightPut));
    const Signal signal = Must(domain.CreateSignal());
    const auto peers = self.Swap(grant.capability());
    Must(domain.Put(peers[2], 0, memory.Slice(0, 64)));
    Must(domain.Flush());
    self.Barrier();
    std::puts("ready");
    std::fflush(stdout);
    const absl::Status waited = domain.WaitSignal(signal, 2, 1, absl::Now() + absl::Hours(1));
    EXPECT_EQ(transport::FailedRankOf(waited), 2) << waited;
    EXPECT_THAT(waited.message(), HasSubstr("rank 2"));
    absl::Status put = domain.Put(peers[2], 0, memory.Slice(0, 64)).status();
    if (put.ok()) put = domain.Flush(2);
    EXPECT_TRUE(absl::IsUnavailable(put)) << put;
    EXPECT_THAT(put.message(), HasSubstr("rank 2"));
  });
  for (int rank = 0; rank < 3; ++rank) {
    ASSERT_TRUE(job.ranks().WaitForOutput(rank, "ready", std::chrono::seconds(60)));
  }
  job.ranks().Kill(2);
  for (int rank = 0; rank < 2; ++rank) {
    const auto outcome = job.ranks().WaitFor(rank, std::chrono::seconds(30));
    EXPECT_TRUE(outcome.ok()) << outcome.ToString();
  }
}

}  // namespace
}  // namespace sumac::runtime
