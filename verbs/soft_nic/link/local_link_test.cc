#include "verbs/soft_nic/link/local_link.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <memory>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

#include "tests/support/eventually.h"
#include "verbs/soft_nic/link/address.h"
#include "verbs/soft_nic/link/link_test_support.h"

namespace sumac::soft_nic {
namespace {

constexpr uint32_t kSlots = 64;
constexpr uint32_t kQpnsPerSlot = (1u << 24) / kSlots;

// The network: counts what is sent, and how often it is looked at.
class FakeNetwork : public Link {
 public:
  explicit FakeNetwork(uint32_t slot)
      : first_qpn_(slot * kQpnsPerSlot), event_(::eventfd(0, EFD_NONBLOCK)) {}
  bool Transmit(const OutgoingPacket&) override {
    ++counters_.packets_sent;
    return true;
  }
  void Flush() override { ++flushes; }
  size_t Receive(PacketHandler&, size_t) override {
    ++looks;
    return 0;
  }
  int poll_fd() const override { return event_.get(); }
  const std::string& interface() const override { return interface_; }
  const Gid& local_gid() const override { return gid_; }
  uint32_t mtu_bytes() const override { return 4096; }
  uint32_t first_qpn() const override { return first_qpn_; }
  uint32_t qpn_count() const override { return kQpnsPerSlot; }
  LinkCounters counters() const override { return counters_; }

  int flushes = 0;
  int looks = 0;

 private:
  const uint32_t first_qpn_;
  const Gid gid_ = GidOfIpv4(127, 0, 0, 1);
  const std::string interface_ = "lo";
  UniqueFd event_;
  LinkCounters counters_;
};

// Some processes' links, which meet as soon as one sends to another.
class LocalLinkTest : public ::testing::Test {
 protected:
  static constexpr uint32_t kLinks = 3;

  LocalLinkTest() {
    static int count = 0;
    names_ = absl::StrCat("sumac/test/", ::getpid(), "/", ++count, "/");
    for (uint32_t i = 0; i < kLinks; ++i) Open(i);
  }

  void Open(uint32_t i) {
    auto network = std::make_unique<FakeNetwork>(SlotOf(i));
    networks_[i] = network.get();
    auto link = LocalLink::Create(std::move(network), kSlots, names_);
    ASSERT_TRUE(link.ok()) << link.status();
    links_[i] = *std::move(link);
  }

  static uint32_t SlotOf(uint32_t i) { return 5 + 20 * i; }
  static uint32_t QpnOf(uint32_t i) { return SlotOf(i) * kQpnsPerSlot + 77; }

  // Until each of the two has the other; the first packet of each is in the network.
  void Meet(uint32_t a, uint32_t b) {
    const size_t before_a = links_[a]->neighbour_count();
    const size_t before_b = links_[b]->neighbour_count();
    Send(a, b, 0);
    Send(b, a, 0);
    EXPECT_TRUE(test_support::Eventually([&] {
      Serve();
      return links_[a]->neighbour_count() > before_a && links_[b]->neighbour_count() > before_b;
    }));
  }

  void Serve() {
    for (auto& link : links_) {
      if (link != nullptr) link->OnControlReadable();
    }
  }

  bool Send(uint32_t from, uint32_t to, uint32_t psn, size_t bytes = 8) {
    static const Path path = [] {
      Path made;
      made.destination = GidOfIpv4(127, 0, 0, 1);
      return made;
    }();
    std::vector<std::byte> payload(bytes, static_cast<std::byte>(psn));
    const iovec piece{payload.data(), bytes};
    OutgoingPacket packet;
    packet.path = &path;
    packet.header.dest_qpn = QpnOf(to);
    packet.header.psn = psn;
    packet.payload = {&piece, 1};
    return links_[from]->Transmit(packet);
  }

  bool Readable(uint32_t i, int timeout_ms = 0) const {
    pollfd polled{links_[i]->poll_fd(), POLLIN, 0};
    return ::poll(&polled, 1, timeout_ms) == 1;
  }

  std::string names_;
  FakeNetwork* networks_[kLinks];
  std::unique_ptr<LocalLink> links_[kLinks];
};

TEST_F(LocalLinkTest, NeighboursAreReachedWithoutTheNetwork) {
  Meet(0, 1);
  RecordingHandler handler;
  for (uint32_t i = 0; i < 100; ++i) ASSERT_TRUE(Send(0, 1, i, i));
  links_[0]->Flush();
  while (links_[1]->Receive(handler, 7) != 0) {
  }
  ASSERT_EQ(handler.packets.size(), 100u);
  for (uint32_t i = 0; i < 100; ++i) {
    EXPECT_EQ(handler.packets[i].header.psn, i);
    EXPECT_EQ(handler.packets[i].header.dest_qpn, QpnOf(1));
    EXPECT_EQ(handler.packets[i].source, links_[0]->local_gid());
    EXPECT_EQ(handler.packets[i].payload.size(), i);
  }
  EXPECT_EQ(networks_[0]->counters().packets_sent, 1u);  // the one by which they met
  EXPECT_EQ(links_[0]->counters().packets_sent, 101u);
  EXPECT_EQ(links_[1]->counters().packets_received, 100u);
}

TEST_F(LocalLinkTest, EverybodyElseIsReachedThroughTheNetwork) {
  Meet(0, 1);
  ASSERT_TRUE(Send(0, 2, 1));  // not met yet
  EXPECT_EQ(networks_[0]->counters().packets_sent, 2u);
  Path elsewhere;
  elsewhere.destination = GidOfIpv4(127, 0, 0, 2);
  OutgoingPacket packet;
  packet.path = &elsewhere;
  packet.header.dest_qpn = QpnOf(1);
  ASSERT_TRUE(links_[0]->Transmit(packet));
  EXPECT_EQ(networks_[0]->counters().packets_sent, 3u);
  links_[0]->Flush();
  EXPECT_EQ(networks_[0]->flushes, 1);
}

TEST_F(LocalLinkTest, ThreeInARound) {
  Meet(0, 1);
  Meet(1, 2);
  Meet(2, 0);
  RecordingHandler handlers[kLinks];
  for (uint32_t i = 0; i < 50; ++i) {
    for (uint32_t from = 0; from < kLinks; ++from) {
      ASSERT_TRUE(Send(from, (from + 1) % kLinks, i));
      ASSERT_TRUE(Send(from, (from + 2) % kLinks, i));
    }
  }
  for (uint32_t i = 0; i < kLinks; ++i) {
    EXPECT_EQ(links_[i]->neighbour_count(), 2u);
    while (links_[i]->Receive(handlers[i], 9) != 0) {
    }
    EXPECT_EQ(handlers[i].packets.size(), 100u);
  }
}

TEST_F(LocalLinkTest, AFullRingLosesPacketsAndHoldsUpNobody) {
  Meet(0, 1);
  uint32_t sent = 0;
  while (links_[0]->counters().send_errors == 0 && sent < 10000) {
    ASSERT_TRUE(Send(0, 1, sent++, 4096));
  }
  ASSERT_LT(sent, 10000u);
  ASSERT_TRUE(Send(0, 2, 1));
  EXPECT_EQ(networks_[0]->counters().packets_sent, 2u);
  RecordingHandler handler;
  while (links_[1]->Receive(handler, 64) != 0) {
  }
  EXPECT_EQ(handler.packets.size(), sent - 1);
  ASSERT_TRUE(Send(0, 1, sent));
  EXPECT_EQ(links_[1]->Receive(handler, 64), 1u);
}

TEST_F(LocalLinkTest, OnlyASleeperIsWoken) {
  Meet(0, 1);
  ASSERT_TRUE(Send(0, 1, 1));
  links_[0]->Flush();
  EXPECT_FALSE(Readable(1));
  EXPECT_TRUE(links_[1]->AnnounceSleep());
  ASSERT_TRUE(Send(0, 1, 2));
  links_[0]->Flush();
  EXPECT_TRUE(Readable(1));
  links_[1]->WithdrawSleep();
  RecordingHandler handler;
  EXPECT_EQ(links_[1]->Receive(handler, 64), 2u);
  EXPECT_FALSE(Readable(1));
}

TEST_F(LocalLinkTest, WhatABudgetLeavesBehindKeepsAwake) {
  Meet(0, 1);
  links_[1]->AnnounceSleep();
  for (uint32_t i = 0; i < 10; ++i) ASSERT_TRUE(Send(0, 1, i));
  links_[0]->Flush();
  RecordingHandler handler;
  EXPECT_EQ(links_[1]->Receive(handler, 4), 4u);
  EXPECT_TRUE(Readable(1));
  EXPECT_EQ(links_[1]->Receive(handler, 64), 6u);
  EXPECT_FALSE(Readable(1));
  links_[1]->WithdrawSleep();
}

TEST_F(LocalLinkTest, NoWakeUpIsLost) {
  Meet(0, 1);
  constexpr uint32_t kPackets = 3000;
  std::thread reader([this] {
    RecordingHandler handler;
    while (handler.packets.size() < kPackets) {
      links_[1]->AnnounceSleep();
      const size_t taken = links_[1]->Receive(handler, 64);
      // Without a wake-up this takes ten seconds a time, and the test its time limit.
      if (taken == 0) Readable(1, 10000);
      links_[1]->WithdrawSleep();
    }
  });
  for (uint32_t i = 0; i < kPackets; ++i) {
    ASSERT_TRUE(Send(0, 1, i));
    links_[0]->Flush();
    if (i % 3 == 0) std::this_thread::yield();
  }
  reader.join();
  EXPECT_EQ(links_[0]->counters().send_errors, 0u);
}

TEST_F(LocalLinkTest, ANeighbourThatGoesIsHeardOutAndThenReachedThroughTheNetwork) {
  Meet(0, 1);
  ASSERT_TRUE(Send(0, 1, 1));
  links_[0].reset();
  EXPECT_TRUE(test_support::Eventually([&] {
    Serve();
    return links_[1]->neighbour_count() == 0;
  }));
  RecordingHandler handler;
  links_[1]->Receive(handler, 64);
  EXPECT_EQ(handler.packets.size(), 1u);
  ASSERT_TRUE(Send(1, 0, 1));
  EXPECT_EQ(networks_[1]->counters().packets_sent, 2u);
}

TEST_F(LocalLinkTest, ANewProcessInASlotIsANewNeighbour) {
  for (uint32_t round = 0; round < 50; ++round) {
    const uint32_t restarted = round % 2;
    Meet(0, 1);
    RecordingHandler handler;
    ASSERT_TRUE(Send(0, 1, 1));
    ASSERT_TRUE(Send(1, 0, 2));
    links_[0]->Receive(handler, 64);
    links_[1]->Receive(handler, 64);
    ASSERT_EQ(handler.packets.size(), 2u) << round;
    links_[restarted].reset();
    Open(restarted);
    EXPECT_TRUE(test_support::Eventually([&] {
      Serve();
      links_[1 - restarted]->Receive(handler, 64);  // lets go of the old one
      return links_[1 - restarted]->neighbour_count() == 0;
    }));
  }
}

TEST_F(LocalLinkTest, TheNetworkIsStillLookedAt) {
  Meet(0, 1);
  RecordingHandler handler;
  const int before = networks_[0]->looks;
  EXPECT_TRUE(test_support::Eventually([&] {
    links_[0]->Receive(handler, 64);
    return networks_[0]->looks >= before + 3;
  }));
  links_[0]->AnnounceSleep();
  links_[0]->WithdrawSleep();
  const int looks = networks_[0]->looks;
  links_[0]->Receive(handler, 64);  // the network's descriptor may be what woke us
  EXPECT_EQ(networks_[0]->looks, looks + 1);
}

TEST(SharedPages, MemoryThatCouldShrinkIsRefused) {
  const int fd = ::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  ASSERT_EQ(::ftruncate(fd, 4096), 0);
  EXPECT_FALSE(SharedPages::Map(UniqueFd(fd)).ok());
  EXPECT_FALSE(SharedPages::Map(UniqueFd(::eventfd(0, 0))).ok());
  EXPECT_FALSE(SharedPages::Map(UniqueFd()).ok());
}

}  // namespace
}  // namespace sumac::soft_nic
