#include "verbs/soft_nic/link/local_link.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include <algorithm>
#include <memory>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

#include "verbs/soft_nic/link/address.h"
#include "verbs/soft_nic/link/link_test_support.h"

namespace sumac::soft_nic {
namespace {

constexpr uint32_t kQpns = 1000;

// The network: counts what is sent, and delivers what it is told to.
class FakeNetwork : public Link {
 public:
  explicit FakeNetwork(uint32_t first_qpn)
      : first_qpn_(first_qpn), event_(::eventfd(0, EFD_NONBLOCK)) {}
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
  uint32_t qpn_count() const override { return kQpns; }
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

SharedPages Again(const SharedPages& pages) {
  auto mapped = SharedPages::Map(UniqueFd(::dup(pages.fd())));
  EXPECT_TRUE(mapped.ok()) << mapped.status();
  return *std::move(mapped);
}

// Two links that are each other's neighbour, as two processes would be: every page mapped twice.
class LocalLinkTest : public ::testing::Test {
 protected:
  LocalLinkTest() {
    for (uint32_t i = 0; i < 2; ++i) {
      auto network = std::make_unique<FakeNetwork>(1000 + i * kQpns);
      networks_[i] = network.get();
      links_[i] = std::make_unique<LocalLink>(std::move(network));
    }
    Join();
  }

  void Join() {
    auto there = SharedPages::Create("test-there", LocalLink::kRingBytes);
    auto back = SharedPages::Create("test-back", LocalLink::kRingBytes);
    ASSERT_TRUE(there.ok() && back.ok());
    raw_there_ = there->bytes();
    ASSERT_TRUE(links_[0]->AddNeighbour(Make(1, Again(*there), Again(*back))).ok());
    ASSERT_TRUE(links_[1]->AddNeighbour(Make(0, *std::move(back), *std::move(there))).ok());
  }

  Neighbour Make(uint32_t who, SharedPages outgoing, SharedPages incoming) {
    Neighbour neighbour;
    neighbour.gid = links_[who]->local_gid();
    neighbour.first_qpn = links_[who]->first_qpn();
    neighbour.qpn_count = links_[who]->qpn_count();
    neighbour.outgoing = std::move(outgoing);
    neighbour.incoming = std::move(incoming);
    auto sleep = SharedPages::Map(UniqueFd(::dup(links_[who]->sleep_memory())));
    EXPECT_TRUE(sleep.ok()) << sleep.status();
    neighbour.sleep = *std::move(sleep);
    neighbour.event = UniqueFd(::dup(links_[who]->sleep_event()));
    return neighbour;
  }

  static bool Send(LocalLink& from, uint32_t qpn, uint32_t psn, size_t bytes = 8) {
    static const Path path = [] {
      Path made;
      made.destination = GidOfIpv4(127, 0, 0, 1);
      return made;
    }();
    std::vector<std::byte> payload(bytes, static_cast<std::byte>(psn));
    const iovec piece{payload.data(), bytes};
    OutgoingPacket packet;
    packet.path = &path;
    packet.header.dest_qpn = qpn;
    packet.header.psn = psn;
    packet.payload = {&piece, 1};
    return from.Transmit(packet);
  }

  static bool Readable(const LocalLink& link, int timeout_ms = 0) {
    pollfd polled{link.poll_fd(), POLLIN, 0};
    return ::poll(&polled, 1, timeout_ms) == 1;
  }

  FakeNetwork* networks_[2];
  std::unique_ptr<LocalLink> links_[2];
  std::span<std::byte> raw_there_;
};

TEST_F(LocalLinkTest, NeighboursAreReachedWithoutTheNetwork) {
  RecordingHandler handler;
  for (uint32_t i = 0; i < 100; ++i) ASSERT_TRUE(Send(*links_[0], 2005, i, i));
  links_[0]->Flush();
  while (links_[1]->Receive(handler, 7) != 0) {
  }
  ASSERT_EQ(handler.packets.size(), 100u);
  for (uint32_t i = 0; i < 100; ++i) {
    EXPECT_EQ(handler.packets[i].header.psn, i);
    EXPECT_EQ(handler.packets[i].header.dest_qpn, 2005u);
    EXPECT_EQ(handler.packets[i].source, links_[0]->local_gid());
    EXPECT_EQ(handler.packets[i].payload.size(), i);
  }
  EXPECT_EQ(networks_[0]->counters().packets_sent, 0u);
  EXPECT_EQ(links_[0]->counters().packets_sent, 100u);
  EXPECT_EQ(links_[1]->counters().packets_received, 100u);
  EXPECT_EQ(links_[1]->counters().bytes_received, links_[0]->counters().bytes_sent);
}

TEST_F(LocalLinkTest, EverybodyElseIsReachedThroughTheNetwork) {
  ASSERT_TRUE(Send(*links_[0], 5000, 1));
  EXPECT_EQ(networks_[0]->counters().packets_sent, 1u);
  links_[0]->Flush();
  EXPECT_EQ(networks_[0]->flushes, 1);
}

TEST_F(LocalLinkTest, BothWaysAtOnce) {
  RecordingHandler handlers[2];
  for (uint32_t i = 0; i < 50; ++i) {
    ASSERT_TRUE(Send(*links_[0], 2000, i));
    ASSERT_TRUE(Send(*links_[1], 1000, i));
  }
  links_[0]->Receive(handlers[0], 100);
  links_[1]->Receive(handlers[1], 100);
  EXPECT_EQ(handlers[0].packets.size(), 50u);
  EXPECT_EQ(handlers[1].packets.size(), 50u);
}

TEST_F(LocalLinkTest, AFullRingLosesPacketsAndHoldsUpNobody) {
  uint32_t sent = 0;
  while (links_[0]->counters().send_errors == 0 && sent < 10000) {
    ASSERT_TRUE(Send(*links_[0], 2005, sent++, 4096));
  }
  ASSERT_LT(sent, 10000u);
  ASSERT_TRUE(Send(*links_[0], 5000, 1));
  EXPECT_EQ(networks_[0]->counters().packets_sent, 1u);
  RecordingHandler handler;
  while (links_[1]->Receive(handler, 64) != 0) {
  }
  EXPECT_EQ(handler.packets.size(), sent - 1);
  ASSERT_TRUE(Send(*links_[0], 2005, sent));
  EXPECT_EQ(links_[1]->Receive(handler, 64), 1u);
}

TEST_F(LocalLinkTest, OnlyASleeperIsWoken) {
  ASSERT_TRUE(Send(*links_[0], 2005, 1));
  links_[0]->Flush();
  EXPECT_FALSE(Readable(*links_[1]));
  EXPECT_TRUE(links_[1]->AnnounceSleep());
  ASSERT_TRUE(Send(*links_[0], 2005, 2));
  links_[0]->Flush();
  EXPECT_TRUE(Readable(*links_[1]));
  links_[1]->WithdrawSleep();
  RecordingHandler handler;
  EXPECT_EQ(links_[1]->Receive(handler, 64), 2u);
  EXPECT_FALSE(Readable(*links_[1]));
}

TEST_F(LocalLinkTest, WhatABudgetLeavesBehindKeepsAwake) {
  links_[1]->AnnounceSleep();
  for (uint32_t i = 0; i < 10; ++i) ASSERT_TRUE(Send(*links_[0], 2005, i));
  links_[0]->Flush();
  RecordingHandler handler;
  EXPECT_EQ(links_[1]->Receive(handler, 4), 4u);
  EXPECT_TRUE(Readable(*links_[1]));
  EXPECT_EQ(links_[1]->Receive(handler, 64), 6u);
  EXPECT_FALSE(Readable(*links_[1]));
  links_[1]->WithdrawSleep();
}

TEST_F(LocalLinkTest, NoWakeUpIsLost) {
  constexpr uint32_t kPackets = 3000;
  std::thread reader([this] {
    RecordingHandler handler;
    while (handler.packets.size() < kPackets) {
      links_[1]->AnnounceSleep();
      const size_t taken = links_[1]->Receive(handler, 64);
      // Without a wake-up this takes ten seconds a time, and the test its time limit.
      if (taken == 0) Readable(*links_[1], 10000);
      links_[1]->WithdrawSleep();
    }
  });
  for (uint32_t i = 0; i < kPackets; ++i) {
    while (links_[0]->counters().send_errors != 0) FAIL() << "the ring is large enough";
    ASSERT_TRUE(Send(*links_[0], 2005, i));
    links_[0]->Flush();
    if (i % 3 == 0) std::this_thread::yield();
  }
  reader.join();
}

TEST_F(LocalLinkTest, ANeighbourThatGoesIsHeardOutAndThenReachedThroughTheNetwork) {
  ASSERT_TRUE(Send(*links_[0], 2005, 1));
  links_[1]->RemoveNeighbour(links_[0]->local_gid(), 1000);
  RecordingHandler handler;
  EXPECT_EQ(links_[1]->Receive(handler, 64), 1u);
  ASSERT_TRUE(Send(*links_[1], 1005, 1));
  EXPECT_EQ(networks_[1]->counters().packets_sent, 1u);
}

TEST_F(LocalLinkTest, ANewNeighbourTakesThePlaceOfOneThatWent) {
  for (int round = 0; round < 200; ++round) {
    Join();
    RecordingHandler handler;
    ASSERT_TRUE(Send(*links_[0], 2005, 1));
    links_[1]->Receive(handler, 64);
    links_[0]->Receive(handler, 64);
    ASSERT_EQ(handler.packets.size(), 1u) << round;
  }
}

TEST_F(LocalLinkTest, ARingOfNonsenseIsGivenUp) {
  std::fill(raw_there_.begin(), raw_there_.end(), std::byte{0x77});
  RecordingHandler handler;
  EXPECT_EQ(links_[1]->Receive(handler, 64), 0u);
  EXPECT_TRUE(handler.packets.empty());
  ASSERT_TRUE(Send(*links_[1], 1005, 1));
  EXPECT_EQ(networks_[1]->counters().packets_sent, 1u);
}

TEST_F(LocalLinkTest, PacketsForNobodyHereAreCounted) {
  std::vector<std::byte> zeroes(64);
  RecordingHandler handler;
  // A neighbour that thinks it has more numbers than it has.
  auto there = SharedPages::Create("test-there", LocalLink::kRingBytes);
  auto back = SharedPages::Create("test-back", LocalLink::kRingBytes);
  Neighbour greedy = Make(1, Again(*there), Again(*back));
  greedy.qpn_count = 1 << 20;
  ASSERT_TRUE(links_[0]->AddNeighbour(std::move(greedy)).ok());
  ASSERT_TRUE(links_[1]->AddNeighbour(Make(0, *std::move(back), *std::move(there))).ok());
  links_[0]->Receive(handler, 1);
  links_[1]->Receive(handler, 1);
  ASSERT_TRUE(Send(*links_[0], 500000, 1));
  links_[1]->Receive(handler, 64);
  EXPECT_TRUE(handler.packets.empty());
  EXPECT_EQ(links_[1]->counters().dropped_wrong_qpn, 1u);
}

TEST_F(LocalLinkTest, MemoryOfAnotherShapeIsRefused) {
  auto ring = SharedPages::Create("test", LocalLink::kRingBytes);
  auto wrong = SharedPages::Create("test", 4096);
  ASSERT_TRUE(ring.ok() && wrong.ok());
  EXPECT_FALSE(links_[0]->AddNeighbour(Make(1, Again(*ring), Again(*wrong))).ok());
  EXPECT_FALSE(links_[0]->AddNeighbour(Make(1, Again(*wrong), Again(*ring))).ok());
  Neighbour dumb = Make(1, Again(*ring), Again(*ring));
  dumb.event.Reset();
  EXPECT_FALSE(links_[0]->AddNeighbour(std::move(dumb)).ok());
}

TEST_F(LocalLinkTest, TheNetworkIsStillLookedAt) {
  RecordingHandler handler;
  const int before = networks_[0]->looks;
  while (networks_[0]->looks < before + 3) links_[0]->Receive(handler, 64);
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
