// One-sided requests between two processes of one host: without packets where that can be, with all
// that verbs promise, and with packets where it can't.
#include "verbs/soft_nic/device/same_host.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <numeric>
#include <thread>

#include "gtest/gtest.h"

#include "tests/support/eventually.h"
#include "tests/support/multi_process.h"
#include "verbs/soft_nic/device/counters.h"
#include "verbs/soft_nic/device/device_test_support.h"
#include "verbs/soft_nic/device/same_host_test_support.h"
#include "verbs/soft_nic/link/address.h"

namespace sumac::verbs {
namespace {

using soft_nic::HostPeers;
using test_support::Eventually;
using test_support::ForkedRanks;
using test_support::RankOutcome;

constexpr size_t kBytes = 1 << 20;

// What two ranks exchange out of band.
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
    ssize_t got = 0;
    do {
      got = recv(fd_, &theirs, sizeof(theirs), 0);
    } while (got < 0 && errno == EINTR);  // stopped and continued
    EXPECT_EQ(got, static_cast<ssize_t>(sizeof(theirs)));
    return theirs;
  }
  void Barrier() { EXPECT_EQ(Exchange(1), 1); }

 private:
  std::array<int, 2> fds_{};
  int fd_ = -1;
};

// Memory in a file that peers may map: sealed, and its descriptor closed after registration.
class SharedMemory {
 public:
  explicit SharedMemory(const End& end) {
    const int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    EXPECT_EQ(ftruncate(fd, kBytes), 0);
    EXPECT_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    data_ = static_cast<uint8_t*>(mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    region = *MemoryRegion::Register(end.pd, data_, kBytes, kAllAccess);
    close(fd);
  }
  ~SharedMemory() {
    region.reset();
    munmap(data_, kBytes);
  }
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;
  uint8_t* data() const { return data_; }
  std::unique_ptr<MemoryRegion> region;

 private:
  uint8_t* data_;
};

struct Record {
  uint32_t qpn = 0;
  uint32_t rkey = 0;
  uint64_t addr = 0;
  ibv_gid gid{};
};

Record MeetPeer(End& end, Wire& wire, const MemoryRegion& region, uint8_t timeout = 14) {
  const Record peer = wire.Exchange(
      Record{end.qp->qpn(), region.rkey(), reinterpret_cast<uint64_t>(region.addr()), end.gid()});
  ConnectionOptions options;
  options.path_mtu = IBV_MTU_4096;
  options.access = kAllAccess;
  options.remote_qpn = peer.qpn;
  options.remote_gid = peer.gid;
  options.timeout = timeout;
  options.retry_count = 5;
  EXPECT_TRUE(end.qp->ToInit(options).ok());
  EXPECT_TRUE(end.qp->ToReadyToReceive(options).ok());
  EXPECT_TRUE(end.qp->ToReadyToSend(options).ok());
  EXPECT_TRUE(Eventually([&] { return DirectIsUp(end); }));
  wire.Barrier();
  return peer;
}

void ExpectAllOk(ForkedRanks& ranks) {
  for (const RankOutcome& outcome : ranks.Wait(std::chrono::seconds(90))) {
    EXPECT_TRUE(outcome.ok()) << outcome.ToString();
  }
}

void DoEveryOperation(End& end, const Record& peer) {
  ASSERT_EQ(end.Post(IBV_WR_RDMA_READ, end.Sge(0, kBytes), peer.addr, peer.rkey), 0);
  ASSERT_EQ(end.Next().status, IBV_WC_SUCCESS);
  for (size_t i = 0; i < kBytes; ++i) ASSERT_EQ(end.memory[i], static_cast<uint8_t>(i + 5));
  for (uint8_t& byte : end.memory) byte = static_cast<uint8_t>(byte ^ 0xff);
  ASSERT_EQ(end.Post(IBV_WR_RDMA_WRITE, end.Sge(0, kBytes), peer.addr, peer.rkey), 0);
  ASSERT_EQ(end.Post(IBV_WR_ATOMIC_FETCH_AND_ADD, end.Sge(8, 8), peer.addr, peer.rkey), 0);
  for (int i = 0; i < 2; ++i) ASSERT_EQ(end.Next().status, IBV_WC_SUCCESS);
  EXPECT_EQ(std::memcmp(&end.memory[0], &end.memory[8], 8), 0) << "the old value";
}

void ExpectEveryOperation(const uint8_t* memory) {
  uint64_t word = 0;
  for (size_t i = 0; i < 8; ++i) word |= uint64_t{static_cast<uint8_t>((i + 5) ^ 0xff)} << (8 * i);
  uint64_t first = 0;
  std::memcpy(&first, memory, sizeof(first));
  EXPECT_EQ(first, word + 5);
  for (size_t i = 8; i < kBytes; ++i) {
    ASSERT_EQ(memory[i], static_cast<uint8_t>((i + 5) ^ 0xff)) << i;
  }
}

TEST(SameHost, NoPacketForMemoryThatCanBeMapped) {
  Wire wire;
  ForkedRanks ranks(2, [&wire](int rank) {
    wire.Use(rank);
    End end(kBytes);
    SharedMemory shared(end);
    std::iota(shared.data(), shared.data() + kBytes, 5);
    const Record peer = MeetPeer(end, wire, *shared.region);
    if (rank == 0) {
      DoEveryOperation(end, peer);
      const auto counters = soft_nic::ReadCounters(end.device->context());
      EXPECT_EQ(counters.queue_pairs.direct_requests, 3u);
      EXPECT_EQ(counters.queue_pairs.direct_bytes, 2 * kBytes + 8);
      EXPECT_EQ(counters.link.packets_sent, 0u);
    }
    wire.Barrier();  // the target makes no verbs call until then
    if (rank == 1) ExpectEveryOperation(shared.data());
    wire.Barrier();
  });
  ExpectAllOk(ranks);
}

TEST(SameHost, PrivateMemoryTakesPacketsForAtomicsOnly) {
  Wire wire;
  ForkedRanks ranks(2, [&wire](int rank) {
    wire.Use(rank);
    End end(kBytes);
    std::iota(end.memory.begin(), end.memory.end(), 5);
    const Record peer = MeetPeer(end, wire, *end.region);
    if (rank == 0) {
      DoEveryOperation(end, peer);
      EXPECT_EQ(DirectRequests(end), 2u);
    }
    wire.Barrier();
    if (rank == 1) ExpectEveryOperation(end.memory.data());
    wire.Barrier();
  });
  ExpectAllOk(ranks);
}

TEST(SameHost, SendsAndWritesKeepTheirOrder) {
  Wire wire;
  constexpr int kRounds = 300;
  ForkedRanks ranks(2, [&wire](int rank) {
    wire.Use(rank);
    End end(4096);
    SharedMemory shared(end);
    const Record peer = MeetPeer(end, wire, *shared.region);
    auto* const words = reinterpret_cast<std::atomic<uint64_t>*>(shared.data());
    if (rank == 1) {
      for (int i = 0; i < 16; ++i) end.PostReceive(64, 8);
    }
    wire.Barrier();
    for (uint64_t round = 1; round <= kRounds; ++round) {
      if (rank == 0) {
        // Now and then both go the same way, now and then not.
        std::memcpy(end.memory.data(), &round, sizeof(round));
        ASSERT_EQ(end.Post(IBV_WR_RDMA_WRITE, end.Sge(0, 8), peer.addr, peer.rkey), 0);
        ASSERT_EQ(end.Post(IBV_WR_SEND, end.Sge(0, 8)), 0);
        ASSERT_EQ(end.Post(IBV_WR_RDMA_WRITE, end.Sge(0, 8), peer.addr + 8, peer.rkey), 0);
        for (int i = 0; i < 3; ++i) ASSERT_EQ(end.Next().status, IBV_WC_SUCCESS);
      } else {
        ASSERT_EQ(end.Next().status, IBV_WC_SUCCESS);
        ASSERT_EQ(words[0].load(), round) << "written before the SEND";
        end.PostReceive(64, 8);
      }
      wire.Barrier();
      if (rank == 1) {
        ASSERT_EQ(words[1].load(), round);
      }
      wire.Barrier();
    }
    wire.Barrier();
  });
  ExpectAllOk(ranks);
}

TEST(SameHost, ABadKeyIsRefusedByThePeerItself) {
  Wire wire;
  ForkedRanks ranks(2, [&wire](int rank) {
    wire.Use(rank);
    End end(4096);
    SharedMemory shared(end);
    const Record peer = MeetPeer(end, wire, *shared.region);
    if (rank == 0) {
      std::memset(end.memory.data(), 0x77, end.memory.size());
      ASSERT_EQ(end.Post(IBV_WR_RDMA_WRITE, end.Sge(0, 8), peer.addr + kBytes - 7, peer.rkey), 0);
      EXPECT_EQ(end.Next().status, IBV_WC_REM_ACCESS_ERR);
      EXPECT_EQ(end.qp->Query(IBV_QP_STATE)->qp_state, IBV_QPS_ERR);
    }
    wire.Barrier();
    if (rank == 1) {
      EXPECT_EQ(std::count(shared.data(), shared.data() + kBytes, 0), static_cast<long>(kBytes));
      ibv_async_event event{};
      ASSERT_EQ(end.device->provider().get_async_event(end.device->context(), &event), 0);
      EXPECT_EQ(event.event_type, IBV_EVENT_QP_ACCESS_ERR);
      end.device->provider().ack_async_event(&event);
    }
    wire.Barrier();
  });
  ExpectAllOk(ranks);
}

TEST(SameHost, AtomicsOfTwoProcessesAndTheOwnerAddUp) {
  Wire wire;
  static constexpr uint64_t kAdds = 20'000;
  ForkedRanks ranks(2, [&wire](int rank) {
    wire.Use(rank);
    End end(4096);
    SharedMemory shared(end);
    const Record peer = MeetPeer(end, wire, *shared.region);
    auto* const word = reinterpret_cast<std::atomic<uint64_t>*>(shared.data());
    std::thread local([word] {
      for (uint64_t i = 0; i < kAdds; ++i) word->fetch_add(1);
    });
    for (uint64_t i = 0; i < kAdds; ++i) {
      ASSERT_EQ(end.Post(IBV_WR_ATOMIC_FETCH_AND_ADD, end.Sge(8, 8), peer.addr, peer.rkey), 0);
      ASSERT_EQ(end.Next().status, IBV_WC_SUCCESS);
    }
    local.join();
    wire.Barrier();
    EXPECT_EQ(word->load(), kAdds + 5 * kAdds);  // Post adds 5
    EXPECT_EQ(DirectRequests(end), kAdds);
    wire.Barrier();
  });
  ExpectAllOk(ranks);
}

TEST(SameHost, AStoppedTargetIsWrittenToAllTheSame) {
  Wire wire;
  ForkedRanks ranks(2, [&wire](int rank) {
    wire.Use(rank);
    End end(4096);
    SharedMemory shared(end);
    const Record peer = MeetPeer(end, wire, *shared.region);
    const pid_t target = wire.Exchange(getpid());
    if (rank == 0) {
      ASSERT_EQ(kill(target, SIGSTOP), 0);
      for (int i = 0; i < 1000; ++i) {
        ASSERT_EQ(end.Post(IBV_WR_RDMA_WRITE, end.Sge(0, 4096), peer.addr, peer.rkey), 0);
        ASSERT_EQ(end.Next().status, IBV_WC_SUCCESS);
      }
      ASSERT_EQ(kill(target, SIGCONT), 0);
    }
    wire.Barrier();
  });
  ExpectAllOk(ranks);
}

TEST(SameHost, AKilledTargetIsAnError) {
  Wire wire;
  ForkedRanks ranks(2, [&wire](int rank) {
    wire.Use(rank);
    End end(4096);
    SharedMemory shared(end);
    const Record peer = MeetPeer(end, wire, *shared.region, /*timeout=*/10);
    if (rank == 1) {
      for (;;) pause();  // until it is killed
    }
    ASSERT_TRUE(Eventually([&end] { return DirectIsUp(end); }));
    ibv_wc wc{};
    do {
      ASSERT_EQ(end.Post(IBV_WR_RDMA_WRITE, end.Sge(0, 4096), peer.addr, peer.rkey), 0);
      wc = end.Next();
      if (DirectRequests(end) == 1) write(STDOUT_FILENO, "connected\n", 10);
    } while (wc.status == IBV_WC_SUCCESS);
    EXPECT_EQ(wc.status, IBV_WC_RETRY_EXC_ERR);
    EXPECT_GT(DirectRequests(end), 0u);
  });
  EXPECT_TRUE(ranks.WaitForOutput(0, "connected", std::chrono::seconds(30)));
  ranks.Kill(1);
  const RankOutcome survivor = ranks.WaitFor(0, std::chrono::seconds(60));
  EXPECT_TRUE(survivor.ok()) << survivor.ToString();
}

TEST(SameHost, NothingIsWrittenAfterDeregistrationUnderLoad) {
  Wire wire;
  constexpr int kRounds = 30;
  ForkedRanks ranks(2, [&wire](int rank) {
    wire.Use(rank);
    for (int round = 0; round < kRounds; ++round) {
      End end(64 << 10);
      SharedMemory shared(end);
      const Record peer = MeetPeer(end, wire, *shared.region);
      if (rank == 0) {
        std::memset(end.memory.data(), 0x55, end.memory.size());
        ibv_wc_status status = IBV_WC_SUCCESS;
        while (status == IBV_WC_SUCCESS) {
          ASSERT_EQ(end.Post(IBV_WR_RDMA_WRITE, end.Sge(0, 64 << 10), peer.addr, peer.rkey), 0);
          status = end.Next().status;
        }
        EXPECT_EQ(status, IBV_WC_REM_ACCESS_ERR);
        EXPECT_GT(DirectRequests(end), 0u);
      } else {
        const auto* const byte = reinterpret_cast<volatile uint8_t*>(shared.data());
        ASSERT_TRUE(Eventually([byte] { return *byte == 0x55; }));
        shared.region.reset();
        std::memset(shared.data(), 0, kBytes);
      }
      wire.Barrier();
      if (rank == 1) {
        ASSERT_EQ(std::count(shared.data(), shared.data() + kBytes, 0), static_cast<long>(kBytes))
            << "round " << round;
      }
      wire.Barrier();
    }
  });
  ExpectAllOk(ranks);
}

// A peer that dies while it uses a key does not keep its owner from deregistering; one that is
// stopped does, and the owner is told.
TEST(SameHost, ADeadUserIsNotWaitedFor) {
  Wire wire;
  ForkedRanks ranks(2, [&wire](int rank) {
    wire.Use(rank);
    End end(4096);
    const Record peer =
        wire.Exchange(Record{end.qp->qpn(), end.region->rkey(), end.Address(), end.gid()});
    if (rank == 1) {
      auto peers = *HostPeers::Create(
          {.address = *soft_nic::ParseGid("127.0.78.1"), .first_qpn = 0, .qpn_count = 1u << 18});
      ASSERT_TRUE(peers->Listen().ok());
      soft_nic::Gid gid{};
      std::memcpy(gid.data(), peer.gid.raw, gid.size());
      const auto host = peers->Find(gid, peer.qpn);
      ASSERT_NE(host, nullptr);
      ASSERT_TRUE(Eventually([&] {
        peers->OnReadable();
        return host->up();
      }));
      host->hazard().store(soft_nic::HazardOf(peer.qpn, peer.rkey));
      wire.Barrier();
      for (;;) pause();
    }
    wire.Barrier();
    write(STDOUT_FILENO, "in use\n", 7);
    // By now, or soon, it is dead.
    end.region.reset();
    EXPECT_EQ(end.Post(IBV_WR_SEND, {}), EINVAL) << "still whole";
  });
  EXPECT_TRUE(ranks.WaitForOutput(0, "in use", std::chrono::seconds(30)));
  ranks.Kill(1);
  const RankOutcome owner = ranks.WaitFor(0, std::chrono::seconds(60));
  EXPECT_TRUE(owner.ok()) << owner.ToString();
}

}  // namespace
}  // namespace sumac::verbs
