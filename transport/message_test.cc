// Messages between workers in one process over the soft NIC: sizes, order, credits, back-pressure.

#include <algorithm>
#include <array>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "transport/testing/fake_bootstrap.h"
#include "transport/testing/ranks_on_threads.h"
#include "transport/worker.h"

namespace sumac::transport {
namespace {

using testing::HasSubstr;
using Bytes = std::vector<std::byte>;

Bytes Pattern(size_t length, uint64_t seed) {
  Bytes bytes(length);
  std::mt19937_64 random(seed * 1000003 + length);
  for (size_t i = 0; i < length; i += 8) {
    const uint64_t word = random();
    std::memcpy(&bytes[i], &word, std::min<size_t>(8, length - i));
  }
  return bytes;
}

void ExpectMessage(Endpoint& from, const Bytes& expected) {
  Bytes buffer(expected.size() + 1);
  const auto length = from.Receive(buffer, Soon());
  ASSERT_TRUE(length.ok()) << length.status();
  ASSERT_EQ(*length, expected.size());
  buffer.resize(*length);
  EXPECT_TRUE(buffer == expected) << "a message of " << *length << " bytes came changed";
}

void ExpectSent(Endpoint& to, const Bytes& message) {
  const auto status = to.Send(message, Soon());
  ASSERT_TRUE(status.ok()) << status;
}

const std::vector<size_t>& Sizes() {
  static const std::vector<size_t> sizes = {0,    1,    7,    8,    47,   48,     49,
                                            1023, 4080, 4095, 4096, 4097, 65536,  1000003,
                                            1,    0,    8192, 3,    4096, 300000, 16 << 20};
  return sizes;
}

TEST(Messages, AllSizesBothWays) {
  FakeJob job(2);
  RunRanks(job, TestOptions(), [](Worker& worker, int rank) {
    Endpoint& peer = **worker.Connect(1 - rank, Soon());
    for (int sender : {0, 1}) {
      for (size_t i = 0; i < Sizes().size(); ++i) {
        const Bytes message = Pattern(Sizes()[i], i);
        if (rank == sender) {
          ExpectSent(peer, message);
        } else {
          ExpectMessage(peer, message);
        }
      }
    }
    ASSERT_TRUE(worker.bootstrap().Barrier("done", absl::Seconds(20)).ok());
  });
}

TEST(Messages, PingPongUsesPiggybackedCreditsWithDepthOne) {
  FakeJob job(2);
  WorkerOptions options = TestOptions();
  options.receive_depth = 1;
  options.send_depth = 1;
  RunRanks(job, options, [](Worker& worker, int rank) {
    Endpoint& peer = **worker.Connect(1 - rank, Soon());
    for (uint64_t i = 0; i < 300; ++i) {
      const Bytes ping = Pattern(i, i);
      const Bytes pong = Pattern(i * 30, i + 1);
      if (rank == 0) {
        ExpectSent(peer, ping);
        ExpectMessage(peer, pong);
      } else {
        ExpectMessage(peer, ping);
        ExpectSent(peer, pong);
      }
      if (HasFailure()) break;
    }
    ASSERT_TRUE(worker.bootstrap().Barrier("done", absl::Seconds(20)).ok());
  });
}

TEST(Messages, TwoStreamsAgainstEachOtherInSmallCredits) {
  constexpr uint64_t kMessages = 2000;
  FakeJob job(2);
  WorkerOptions options = TestOptions();
  options.receive_depth = 6;
  options.send_depth = 3;
  RunRanks(job, options, [&](Worker& worker, int rank) {
    Endpoint& peer = **worker.Connect(1 - rank, Soon());
    for (uint64_t i = 0; i < kMessages && !HasFailure(); ++i) {
      ExpectSent(peer, Pattern(i % 200, i));
      // Not in step: up to five messages wait at each side.
      if (i % 5 == 4) {
        for (uint64_t j = i - 4; j <= i; ++j) ExpectMessage(peer, Pattern(j % 200, j));
      }
    }
    ASSERT_TRUE(worker.bootstrap().Barrier("done", absl::Seconds(20)).ok());
  });
}

TEST(Messages, ASenderWaitsForAReceiverThatDoesNotTake) {
  FakeJob job(2);
  WorkerOptions options = TestOptions();
  options.receive_depth = 4;
  RunRanks(job, options, [](Worker& worker, int rank) {
    Endpoint& peer = **worker.Connect(1 - rank, Soon());
    if (rank == 0) {
      for (uint64_t i = 0; i < 4; ++i) ExpectSent(peer, Pattern(100, i));
      const auto full = peer.Send(Pattern(100, 4), absl::Now() + absl::Milliseconds(100));
      EXPECT_EQ(full.code(), absl::StatusCode::kDeadlineExceeded) << full;
      EXPECT_THAT(std::string(full.message()), HasSubstr("rank 1"));
      EXPECT_TRUE(peer.status().ok());  // nothing was sent, nothing is broken
    }
    ASSERT_TRUE(worker.bootstrap().Barrier("full", absl::Seconds(20)).ok());
    if (rank == 0) {
      ExpectSent(peer, Pattern(100, 4));
    } else {
      for (uint64_t i = 0; i < 5; ++i) ExpectMessage(peer, Pattern(100, i));
    }
    ASSERT_TRUE(worker.bootstrap().Barrier("done", absl::Seconds(20)).ok());
  });
}

TEST(Messages, ALongMessageGetsThroughWhileItsSenderHoldsAllOurCredits) {
  // Rank 1 has filled rank 0 with messages before rank 0 sends a long one and takes them: the
  // confirmation must not need a credit.
  FakeJob job(2);
  WorkerOptions options = TestOptions();
  options.receive_depth = 4;
  RunRanks(job, options, [](Worker& worker, int rank) {
    Endpoint& peer = **worker.Connect(1 - rank, Soon());
    const Bytes large = Pattern(100000, 77);
    if (rank == 0) {
      ExpectSent(peer, large);
      for (uint64_t i = 0; i < 4; ++i) ExpectMessage(peer, Pattern(9, i));
    } else {
      for (uint64_t i = 0; i < 4; ++i) ExpectSent(peer, Pattern(9, i));
      ExpectMessage(peer, large);
    }
    ASSERT_TRUE(worker.bootstrap().Barrier("done", absl::Seconds(20)).ok());
  });
}

TEST(Messages, OneThatIsTooLongStaysFirstInLine) {
  FakeJob job(2);
  RunRanks(job, TestOptions(), [](Worker& worker, int rank) {
    Endpoint& peer = **worker.Connect(1 - rank, Soon());
    if (rank == 0) {
      ExpectSent(peer, Pattern(100, 1));
      ExpectSent(peer, Pattern(100000, 2));
      ExpectSent(peer, Pattern(3, 3));
    } else {
      for (size_t length : {size_t{100}, size_t{100000}}) {
        Bytes small(99);
        const auto refused = peer.Receive(small, Soon());
        EXPECT_EQ(refused.status().code(), absl::StatusCode::kOutOfRange);
        EXPECT_THAT(std::string(refused.status().message()), HasSubstr(std::to_string(length)));
        ExpectMessage(peer, Pattern(length, length == 100 ? 1 : 2));
      }
      ExpectMessage(peer, Pattern(3, 3));
      const auto none = peer.Receive({}, absl::Now() + absl::Milliseconds(20));
      EXPECT_EQ(none.status().code(), absl::StatusCode::kDeadlineExceeded);
      EXPECT_THAT(std::string(none.status().message()), HasSubstr("rank 0"));
    }
    ASSERT_TRUE(worker.bootstrap().Barrier("done", absl::Seconds(20)).ok());
  });
}

TEST(Messages, ToItself) {
  FakeJob job(1);
  RunRanks(job, TestOptions(), [](Worker& worker, int) {
    const auto self = worker.Connect(0, Soon());
    ASSERT_TRUE(self.ok()) << self.status();
    const std::array<size_t, 6> lengths = {0, 5, 4096, 100000, 1 << 20, 9};
    for (size_t round = 0; round < 40; ++round) {
      for (size_t length : lengths) ExpectSent(**self, Pattern(length, round));
      for (size_t length : lengths) ExpectMessage(**self, Pattern(length, round));
    }
  });
}

TEST(Messages, ASenderThatGivesUpALongMessageBreaksTheConnectionAndSaysSo) {
  FakeJob job(2);
  RunRanks(job, TestOptions(), [](Worker& worker, int rank) {
    Endpoint& peer = **worker.Connect(1 - rank, Soon());
    if (rank == 0) {
      const auto status = peer.Send(Pattern(100000, 1), absl::Now() + absl::Milliseconds(50));
      EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
      EXPECT_EQ(peer.status(), status);
    }
    ASSERT_TRUE(worker.bootstrap().Barrier("given up", absl::Seconds(20)).ok());
    if (rank == 1) {
      // Told, not guessed from silence; not one byte of it, and nobody is taken for dead.
      std::vector<std::byte> buffer(100000, std::byte{7});
      const auto got = peer.Receive(buffer, Soon());
      EXPECT_EQ(got.status().code(), absl::StatusCode::kUnavailable) << got.status();
      EXPECT_EQ(FailedRankOf(got.status()), -1) << got.status();
      EXPECT_EQ(buffer, std::vector<std::byte>(100000, std::byte{7}));
    }
    ASSERT_TRUE(worker.bootstrap().Barrier("done", absl::Seconds(20)).ok());
    EXPECT_FALSE(worker.bootstrap().failed());
  });
}

TEST(Messages, APeerThatWentAwayInOrderIsNoFailureAndWhatItSentCanBeTaken) {
  FakeJob job(2);
  RunRanks(job, TestOptions(), [](Worker& worker, int rank) {
    Endpoint& peer = **worker.Connect(1 - rank, Soon());
    if (rank == 0) {
      for (uint64_t i = 0; i < 100; ++i) ExpectSent(peer, Pattern(100, i));
      return;
    }
    // Until rank 0 is gone: its worker ends by itself once its last message is acknowledged.
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    for (uint64_t i = 0; i < 100; ++i) ExpectMessage(peer, Pattern(100, i));
    const auto closed = peer.Receive({}, Soon());
    EXPECT_EQ(closed.status().code(), absl::StatusCode::kUnavailable) << closed.status();
    EXPECT_THAT(std::string(closed.status().message()), HasSubstr("closed"));
    EXPECT_EQ(peer.Send({}, Soon()).code(), absl::StatusCode::kUnavailable);
    EXPECT_FALSE(worker.bootstrap().failed()) << worker.bootstrap().failure();
  });
}

}  // namespace
}  // namespace sumac::transport
