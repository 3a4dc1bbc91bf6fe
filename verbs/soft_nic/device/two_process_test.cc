// Two processes under one address, each with its own soft NIC: every operation, blocking waits, a
// target that makes no verbs call, and a peer that is killed.
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <numeric>

#include "gtest/gtest.h"

#include "tests/support/multi_process.h"
#include "verbs/soft_nic/device/device_test_support.h"
#include "verbs/status.h"

namespace sumac::verbs {
namespace {

using test_support::ForkedRanks;
using test_support::RankOutcome;
constexpr size_t kBytes = 1 << 20;

// What the two exchange out of band: the ends of a socket pair made before the fork.
class Wire {
 public:
  Wire() { EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds_.data()), 0); }
  void Use(int rank) {
    fd_ = fds_[static_cast<size_t>(rank)];
    close(fds_[static_cast<size_t>(1 - rank)]);
    const timeval limit{.tv_sec = 60, .tv_usec = 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  }
  template <typename Record>
  Record Exchange(const Record& mine) {
    Record theirs{};
    EXPECT_EQ(send(fd_, &mine, sizeof(mine), 0), static_cast<ssize_t>(sizeof(mine)));
    EXPECT_EQ(recv(fd_, &theirs, sizeof(theirs), 0), static_cast<ssize_t>(sizeof(theirs)));
    return theirs;
  }
  void Barrier() { EXPECT_EQ(Exchange(1), 1); }

 private:
  std::array<int, 2> fds_{};
  int fd_ = -1;
};

struct Record {
  uint32_t qpn;
  uint32_t rkey;
  uint64_t addr;
  ibv_gid gid;
};

// Posts a receive of `receive_bytes` first, if any: the peer finds it.
Record Connect(End& end, Wire& wire, size_t receive_bytes = 0, uint8_t timeout = 14) {
  const Record peer =
      wire.Exchange(Record{end.qp->qpn(), end.region->rkey(), end.Address(), end.gid()});
  ConnectionOptions options;
  options.path_mtu = IBV_MTU_4096;
  options.access = kAllAccess;
  options.remote_qpn = peer.qpn;
  options.remote_gid = peer.gid;
  options.timeout = timeout;
  options.retry_count = 5;
  EXPECT_TRUE(end.qp->ToInit(options).ok());
  if (receive_bytes != 0) end.PostReceive(0, receive_bytes, 70);
  EXPECT_TRUE(end.qp->ToReadyToReceive(options).ok());
  EXPECT_TRUE(end.qp->ToReadyToSend(options).ok());
  wire.Barrier();
  return peer;
}

void ExpectAllOk(ForkedRanks& ranks) {
  for (const RankOutcome& outcome : ranks.Wait(std::chrono::seconds(90))) {
    EXPECT_TRUE(outcome.ok()) << outcome.ToString();
  }
}

TEST(TwoProcesses, EveryOperation) {
  Wire wire;
  ForkedRanks ranks(2, [&wire](int rank) {
    wire.Use(rank);
    End end(kBytes);
    if (rank == 1) std::iota(end.memory.begin(), end.memory.end(), 5);
    const Record peer = Connect(end, wire, /*receive_bytes=*/1000);
    EXPECT_NE(peer.qpn >> 18, end.qp->qpn() >> 18) << "both in one slot of the shared port";
    if (rank == 0) {
      // READ everything, WRITE it back changed, add to the first word, then say so.
      ASSERT_EQ(end.Post(IBV_WR_RDMA_READ, end.Sge(0, kBytes), peer.addr, peer.rkey), 0);
      ASSERT_EQ(end.Next().status, IBV_WC_SUCCESS);
      for (size_t i = 0; i < kBytes; ++i) ASSERT_EQ(end.memory[i], static_cast<uint8_t>(i + 5));
      for (uint8_t& byte : end.memory) byte = static_cast<uint8_t>(byte ^ 0xff);
      ASSERT_EQ(end.Post(IBV_WR_RDMA_WRITE, end.Sge(0, kBytes), peer.addr, peer.rkey), 0);
      ASSERT_EQ(end.Post(IBV_WR_ATOMIC_FETCH_AND_ADD, end.Sge(8, 8), peer.addr, peer.rkey), 0);
      ASSERT_EQ(end.Post(IBV_WR_SEND_WITH_IMM, end.Sge(16, 4)), 0);
      for (int i = 0; i < 3; ++i) ASSERT_EQ(end.Next().status, IBV_WC_SUCCESS);
      EXPECT_EQ(std::memcmp(&end.memory[0], &end.memory[8], 8), 0) << "the old value";
    } else {
      const ibv_wc wc = end.Next();
      ASSERT_EQ(wc.status, IBV_WC_SUCCESS);
      EXPECT_EQ(wc.wr_id, 70u);
      EXPECT_EQ(wc.byte_len, 4u);
      EXPECT_EQ(wc.imm_data, htobe32(0x11223344));
      uint64_t expected = 0;
      for (size_t i = 0; i < 8; ++i) {
        expected |= uint64_t{static_cast<uint8_t>((i + 5) ^ 0xff)} << (8 * i);
      }
      expected += 5;
      uint64_t first = 0;
      std::memcpy(&first, &end.memory[0], sizeof(first));
      // The SEND landed on the first four bytes; the other four are the sum's.
      EXPECT_EQ(first >> 32, expected >> 32);
      for (size_t i = 8; i < kBytes; ++i) {
        ASSERT_EQ(end.memory[i], static_cast<uint8_t>((i + 5) ^ 0xff)) << i;
      }
    }
    wire.Barrier();
  });
  ExpectAllOk(ranks);
}

TEST(TwoProcesses, PingPongWithBothAsleepInBetween) {
  Wire wire;
  constexpr int kRounds = 200;
  ForkedRanks ranks(2, [&wire](int rank) {
    wire.Use(rank);
    End end(64);
    Connect(end, wire, /*receive_bytes=*/8);
    // Rank 0 begins; each answers what it received, and sleeps until there is something.
    int received = 0;
    if (rank == 0) {
      ASSERT_EQ(end.Post(IBV_WR_SEND, end.Sge(16, 8)), 0);
    }
    while (received < kRounds) {
      ASSERT_TRUE(end.cq->Arm().ok());
      ibv_wc wc{};
      int polled = 0;
      for (; (polled = end.cq->Poll({&wc, 1})) == 1;) {
        ASSERT_EQ(wc.status, IBV_WC_SUCCESS);
        if (wc.opcode != IBV_WC_RECV) continue;
        ++received;
        if (received < kRounds) end.PostReceive(0, 8);
        if (rank == 1 || received < kRounds) {
          ASSERT_EQ(end.Post(IBV_WR_SEND, end.Sge(16, 8)), 0);
        }
      }
      ASSERT_EQ(polled, 0);
      if (received == kRounds) break;
      const auto woken = end.channel->Wait(absl::Seconds(30));
      ASSERT_TRUE(woken.ok()) << woken.status();
      ASSERT_TRUE(*woken) << "slept through message " << received;
    }
    wire.Barrier();
  });
  ExpectAllOk(ranks);
}

TEST(TwoProcesses, TargetThatMakesNoVerbsCallAndAnswers) {
  // As ib_write_lat does: both look at the last byte of their memory only, and post.
  Wire wire;
  constexpr int kRounds = 200;
  ForkedRanks ranks(2, [&wire](int rank) {
    wire.Use(rank);
    End end(64);
    const Record peer = Connect(end, wire);
    const auto* const incoming = reinterpret_cast<volatile uint8_t*>(&end.memory[7]);
    for (int i = 1; i <= kRounds; ++i) {
      const auto mark = static_cast<uint8_t>(i);
      const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
      const auto wait = [&] {
        while (*incoming != mark) {
          ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "round " << i;
          sched_yield();  // also with fewer processors than threads
        }
      };
      if (rank == 1) wait();
      ibv_sge sge = end.Sge(8, 8);
      end.memory[15] = mark;
      ibv_send_wr wr{};
      wr.sg_list = &sge;
      wr.num_sge = 1;
      wr.opcode = IBV_WR_RDMA_WRITE;
      wr.send_flags = i == kRounds ? IBV_SEND_SIGNALED : 0;
      wr.wr.rdma.remote_addr = peer.addr;
      wr.wr.rdma.rkey = peer.rkey;
      // Nobody polls: requests that were acknowledged free their place by themselves.
      const auto post_deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
      int error = 0;
      while ((error = end.qp->PostSend(wr)) == ENOMEM) {
        ASSERT_LT(std::chrono::steady_clock::now(), post_deadline);
      }
      ASSERT_EQ(error, 0);
      if (rank == 0) wait();
    }
    EXPECT_EQ(end.Next().status, IBV_WC_SUCCESS);
    wire.Barrier();
  });
  ExpectAllOk(ranks);
}

TEST(TwoProcesses, KilledPeerIsRetryExceeded) {
  Wire wire;
  ForkedRanks ranks(2, [&wire](int rank) {
    wire.Use(rank);
    End end(kBytes);
    const Record peer = Connect(end, wire, /*receive_bytes=*/0, /*timeout=*/10);  // 4.2 ms
    if (rank == 1) {
      for (;;) pause();  // until it is killed
    }
    write(STDOUT_FILENO, "connected\n", 10);
    ibv_wc wc{};
    do {
      ASSERT_EQ(end.Post(IBV_WR_RDMA_WRITE, end.Sge(0, kBytes), peer.addr, peer.rkey), 0);
      wc = end.Next();
    } while (wc.status == IBV_WC_SUCCESS);
    EXPECT_STREQ(NameOf(wc.status), "IBV_WC_RETRY_EXC_ERR");
  });
  EXPECT_TRUE(ranks.WaitForOutput(0, "connected", std::chrono::seconds(30)));
  ranks.Kill(1);
  const RankOutcome survivor = ranks.WaitFor(0, std::chrono::seconds(60));
  EXPECT_TRUE(survivor.ok()) << survivor.ToString();
}

}  // namespace
}  // namespace sumac::verbs
