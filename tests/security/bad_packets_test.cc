// Bad datagrams at a running soft NIC while a transfer runs: nothing crashes, each is counted, and
// the transfer ends right.
//
// The NIC listens at an address of 127.0.0.0/8 of its own, so that these packets meet nobody else.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

#include "verbs/soft_nic/device/device_test_support.h"
#include "verbs/soft_nic/device/soft_context.h"
#include "verbs/soft_nic/wire/icrc.h"
#include "verbs/soft_nic/wire/packet.h"

namespace sumac::verbs {
namespace {

using namespace soft_nic;  // NOLINT: both floors meet here

// The address of this process's NIC, and a stranger's.
in_addr AddressOf(uint32_t host) {
  const auto pid = static_cast<uint32_t>(getpid());
  return {htonl(127u << 24 | 1 << 23 | (pid & 0x7fff) << 8 | host)};
}
std::string TextOf(in_addr address) {
  char text[INET_ADDRSTRLEN];
  return inet_ntop(AF_INET, &address, text, sizeof text);
}
Gid GidOf(in_addr address) {
  Gid gid{};
  gid[10] = gid[11] = 0xff;
  std::memcpy(gid.data() + 12, &address, 4);
  return gid;
}

// An unconnected socket whose packets have the IPv4 identification 0, so that it can make an ICRC.
class Attacker {
 public:
  Attacker(in_addr from, in_addr to) {
    fd_ = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const int discover = IP_PMTUDISC_DO;
    EXPECT_EQ(setsockopt(fd_, IPPROTO_IP, IP_MTU_DISCOVER, &discover, sizeof discover), 0);
    sockaddr_in here{};
    here.sin_family = AF_INET;
    here.sin_addr = from;
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&here), sizeof here), 0);
    socklen_t length = sizeof here;
    getsockname(fd_, reinterpret_cast<sockaddr*>(&here), &length);
    target_.sin_family = AF_INET;
    target_.sin_addr = to;
    target_.sin_port = htons(kRoceUdpPort);
    ip_.source = GidOf(from);
    ip_.destination = GidOf(to);
    ip_.source_port = ntohs(here.sin_port);
  }
  ~Attacker() { close(fd_); }
  Attacker(const Attacker&) = delete;
  Attacker& operator=(const Attacker&) = delete;

  void Send(std::span<const std::byte> bytes) {
    (void)sendto(fd_, bytes.data(), bytes.size(), 0, reinterpret_cast<const sockaddr*>(&target_),
                 sizeof target_);
  }

  // `bytes` is a packet without ICRC.
  void SendIntact(std::vector<std::byte> bytes) {
    const uint32_t icrc = ComputeIcrc(ip_, bytes, {});
    const auto* p = reinterpret_cast<const std::byte*>(&icrc);
    bytes.insert(bytes.end(), p, p + sizeof icrc);
    Send(bytes);
  }

 private:
  int fd_;
  sockaddr_in target_{};
  IcrcHeaders ip_;
};

std::vector<std::byte> Packet(const PacketHeader& header, size_t payload_bytes) {
  std::vector<std::byte> bytes(HeaderBytes(header.opcode) + payload_bytes, std::byte{0x66});
  EncodeHeader(header, bytes);
  return bytes;
}

// A pair of ends, and what was counted at the second one.
class BadPackets : public ::testing::Test {
 protected:
  static constexpr size_t kBytes = 64 << 10;
  static constexpr int kBad = 3000;

  static void SetUpTestSuite() { setenv("SUMAC_SOFT_ADDRESS", TextOf(AddressOf(1)).c_str(), 1); }
  static void TearDownTestSuite() { unsetenv("SUMAC_SOFT_ADDRESS"); }

  void SetUp() override {
    a_ = std::make_unique<End>(2 * kBytes);
    b_ = std::make_unique<End>(2 * kBytes);
    ASSERT_EQ(std::memcmp(a_->gid().raw, GidOf(AddressOf(1)).data(), 16), 0);
    Connect(*a_, *b_);
  }

  SoftContext& Nic(End& end) { return SoftContext::Of(end.device->context()); }
  LinkCounters LinkCountersOf(End& end) {
    SoftContext& nic = Nic(end);
    return nic.progress().Exclusive([&] { return nic.link().counters(); });
  }
  SchedulerCounters SchedulerCountersOf(End& end) {
    SoftContext& nic = Nic(end);
    return nic.progress().Exclusive([&] { return nic.scheduler().counters(); });
  }

  // Writes, reads back and compares while `send_one(i)` runs kBad times on a thread of its own.
  template <typename SendOne>
  void TransferDuring(SendOne send_one) {
    std::atomic<bool> sending{true};
    std::thread attacker([&] {
      for (int i = 0; i < kBad; ++i) send_one(i);
      sending = false;
    });
    for (int round = 0; round < 20 || sending; ++round) {
      std::iota(a_->memory.begin(), a_->memory.begin() + kBytes, static_cast<uint8_t>(round));
      EXPECT_EQ(a_->Post(IBV_WR_RDMA_WRITE, a_->Sge(0, kBytes), b_->Address(), b_->region->rkey()),
                0);
      EXPECT_EQ(a_->Next().status, IBV_WC_SUCCESS);
      EXPECT_EQ(
          a_->Post(IBV_WR_RDMA_READ, a_->Sge(kBytes, kBytes), b_->Address(), b_->region->rkey()),
          0);
      EXPECT_EQ(a_->Next().status, IBV_WC_SUCCESS);
      const bool same = std::memcmp(a_->memory.data(), b_->memory.data(), kBytes) == 0 &&
                        std::memcmp(a_->memory.data(), &a_->memory[kBytes], kBytes) == 0;
      EXPECT_TRUE(same) << "round " << round;
      if (HasFailure()) break;
    }
    attacker.join();
    // What nobody may write to is as it was.
    for (size_t i = kBytes; i < 2 * kBytes; ++i) ASSERT_EQ(b_->memory[i], 0) << i;
  }

  // A write over the second half of b's memory that is right in everything that `change` leaves.
  template <typename Change>
  std::vector<std::byte> ForgedWrite(Change change) {
    PacketHeader header;
    header.opcode = Opcode::kRcWriteOnly;
    header.dest_qpn = b_->qp->qpn();
    header.psn = 0x400000;  // far from where the transfer is
    header.remote_addr = b_->Address(kBytes);
    header.rkey = b_->region->rkey();
    header.dma_length = 64;
    header.ack_request = true;
    change(header);
    return Packet(header, 64);
  }

  std::unique_ptr<End> a_;
  std::unique_ptr<End> b_;
};

TEST_F(BadPackets, TruncatedOnes) {
  Attacker attacker(AddressOf(2), AddressOf(1));
  const auto whole = ForgedWrite([](PacketHeader&) {});
  TransferDuring(
      [&](int i) { attacker.Send(std::span(whole).first(static_cast<size_t>(i) % whole.size())); });
  const LinkCounters counters = LinkCountersOf(*b_);
  EXPECT_GT(counters.dropped_malformed + counters.dropped_bad_icrc, 0u);
}

TEST_F(BadPackets, GarbageOfEverySize) {
  Attacker attacker(AddressOf(2), AddressOf(1));
  std::mt19937 random(1);
  const uint32_t qpn = htonl(b_->qp->qpn());
  TransferDuring([&](int i) {
    std::vector<std::byte> bytes(random() % (i % 10 == 0 ? 20000 : 200));
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
    // Half of them find their way to a queue pair.
    if (i % 2 == 0 && bytes.size() >= 8) std::memcpy(bytes.data() + 4, &qpn, 4);
    attacker.Send(bytes);
  });
  const LinkCounters counters = LinkCountersOf(*b_);
  EXPECT_GT(counters.dropped_bad_icrc + counters.dropped_malformed, 0u);
  EXPECT_GT(counters.dropped_truncated, 0u);
}

TEST_F(BadPackets, OneBitWrong) {
  Attacker attacker(AddressOf(2), AddressOf(1));
  const auto whole = ForgedWrite([](PacketHeader&) {});
  TransferDuring([&](int i) {
    std::vector<std::byte> bytes = whole;
    bytes.insert(bytes.end(), 4, std::byte{static_cast<uint8_t>(i)});  // no ICRC of anything
    attacker.Send(bytes);
  });
  EXPECT_GT(LinkCountersOf(*b_).dropped_bad_icrc, 0u);
}

// Everything right but where it comes from.
TEST_F(BadPackets, FromAStranger) {
  Attacker attacker(AddressOf(2), AddressOf(1));
  TransferDuring([&](int i) {
    attacker.SendIntact(ForgedWrite(
        [&](PacketHeader& header) { header.psn = static_cast<uint32_t>(i * 5000) & 0xffffff; }));
  });
  EXPECT_GT(SchedulerCountersOf(*b_).dropped_wrong_source, 0u);
}

TEST_F(BadPackets, ForNobody) {
  Attacker attacker(AddressOf(1), AddressOf(1));
  TransferDuring([&](int i) {
    attacker.SendIntact(
        ForgedWrite([&](PacketHeader& header) { header.dest_qpn ^= 1u << (3 + i % 12); }));
  });
  EXPECT_GT(SchedulerCountersOf(*b_).dropped_unknown_qpn, 0u);
}

// From the peer's own address, with a PSN outside of both windows: every opcode, also those that
// answer and those that don't exist.
TEST_F(BadPackets, FromThePeersAddress) {
  Attacker attacker(AddressOf(1), AddressOf(1));
  TransferDuring([&](int i) {
    auto packet = ForgedWrite([&](PacketHeader& header) {
      header.psn = 0x300000 + static_cast<uint32_t>(i);
      header.dest_qpn = i % 2 == 0 ? a_->qp->qpn() : b_->qp->qpn();
      header.syndrome = kSyndromeAckNoCredits;
    });
    packet[0] = static_cast<std::byte>(i);  // the opcode
    attacker.SendIntact(packet);
  });
  SoftContext& nic = Nic(*b_);
  uint64_t dropped = LinkCountersOf(*b_).dropped_malformed;
  nic.progress().Exclusive([&] {
    nic.scheduler().ForEach([&](SoftQueuePair& qp) {
      const QueuePairCounters& counters = qp.engine.counters();
      dropped += counters.dropped_malformed + counters.dropped_out_of_order +
                 counters.dropped_wrong_state + counters.duplicates_received;
    });
  });
  EXPECT_GT(dropped, 0u);
}

// A flood is cut off; one that bears the peer's own address does not take the peer with it.
TEST_F(BadPackets, AFloodIsDroppedUnexamined) {
  for (const uint32_t host : {2u, 1u}) {
    SCOPED_TRACE(host);
    Attacker attacker(AddressOf(host), AddressOf(1));
    const uint64_t before = LinkCountersOf(*b_).dropped_flood;
    const auto packet = ForgedWrite([](PacketHeader& header) { header.dest_qpn ^= 0x1000; });
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (LinkCountersOf(*b_).dropped_flood == before) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline);
      TransferDuring([&](int) { attacker.SendIntact(packet); });
    }
  }
}

// 2^20 forged WRITEs to the right QPN that reach the NIC: from a third address with any PSN and
// key, or from the peer's address with a PSN outside the window. Half of them carry the true key.
TEST_F(BadPackets, AMillionForgedWrites) {
  constexpr uint64_t kForged = 1 << 20;
  constexpr uint64_t kBatch = 64;  // what the socket holds
  Attacker stranger(AddressOf(2), AddressOf(1));
  Attacker peer(AddressOf(1), AddressOf(1));
  std::mt19937 random(5);
  const auto seen = [&] {
    uint64_t count =
        SchedulerCountersOf(*b_).dropped_wrong_source + LinkCountersOf(*b_).dropped_flood;
    SoftContext& nic = Nic(*b_);
    nic.progress().Exclusive([&] {
      const QueuePairCounters& counters = nic.scheduler().QueuePairTotals();
      count += counters.dropped_out_of_order + counters.duplicates_received;
    });
    return count;
  };
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(3);
  uint64_t sent = 0;
  for (; seen() < kForged; sent += kBatch) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline) << seen() << " of " << sent << " seen";
    for (uint64_t i = 0; i < kBatch; ++i) {
      const bool from_peer = i % 2 == 0;
      const auto packet = ForgedWrite([&](PacketHeader& header) {
        // The window begins where the transfer would: far from the upper half.
        header.psn = from_peer ? 0x400000 + random() % 0x400000 : random() & 0xffffff;
        if (i % 4 < 2) header.rkey = static_cast<uint32_t>(random());
      });
      (from_peer ? peer : stranger).SendIntact(packet);
    }
    ibv_wc wc;
    while (b_->cq->Poll({&wc, 1}) != 0) FAIL() << "a forged WRITE completed something";
  }
  for (size_t i = 0; i < b_->memory.size(); ++i) ASSERT_EQ(b_->memory[i], 0) << i;
  // And the connection works.
  std::fill_n(a_->memory.begin(), kBytes, uint8_t{0x77});
  EXPECT_EQ(a_->Post(IBV_WR_RDMA_WRITE, a_->Sge(0, kBytes), b_->Address(), b_->region->rkey()), 0);
  EXPECT_EQ(a_->Next().status, IBV_WC_SUCCESS);
  EXPECT_EQ(std::memcmp(a_->memory.data(), b_->memory.data(), kBytes), 0);
}

}  // namespace
}  // namespace sumac::verbs
