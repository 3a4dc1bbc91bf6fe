#include "verbs/soft_nic/local/host_peers.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include "tests/support/eventually.h"
#include "verbs/soft_nic/link/abstract_socket.h"
#include "verbs/soft_nic/link/address.h"
#include "verbs/soft_nic/local/direct_path.h"

namespace sumac::soft_nic {
namespace {

using test_support::Eventually;

constexpr uint32_t kRange = 1u << 18;

std::unique_ptr<HostPeers> Make(const char* address, uint32_t slot,
                                uint32_t version = kBoardLayoutVersion) {
  auto peers = HostPeers::Create({.address = *ParseGid(address),
                                  .first_qpn = slot * kRange,
                                  .qpn_count = kRange,
                                  .layout_version = version});
  EXPECT_TRUE(peers.ok()) << peers.status();
  const absl::Status listens = (*peers)->Listen();
  EXPECT_TRUE(listens.ok()) << listens;
  return *std::move(peers);
}

// Until `process` is up.
bool Meet(HostPeers& a, HostPeers& b, const RemoteProcess& process) {
  return Eventually([&] {
    a.OnReadable();
    b.OnReadable();
    return process.up();
  });
}

TEST(HostPeers, FindEachOtherAndTheirBoards) {
  auto a = Make("127.0.77.1", 1), b = Make("127.0.77.1", 2);
  const Gid address = *ParseGid("127.0.77.1");
  const auto of_b = a->Find(address, 2 * kRange + 17);
  ASSERT_NE(of_b, nullptr);
  EXPECT_FALSE(of_b->up()) << "nobody has answered yet";
  ASSERT_TRUE(Meet(*a, *b, *of_b));
  EXPECT_EQ(a->Find(address, 2 * kRange + 18), of_b) << "one process, one connection";
  EXPECT_EQ(a->Find(address, 3 * kRange), nullptr);
  EXPECT_EQ(a->Find(*ParseGid("127.0.77.2"), 2 * kRange), nullptr);
  EXPECT_EQ(b->guests(), 1u);
  b->board().PublishQueuePair(b->IndexOf(2 * kRange + 17), {.qpn = 2 * kRange + 17});
  QueuePairRecord record;
  uint64_t sequence = 0;
  ASSERT_TRUE(of_b->queue_pair(2 * kRange + 17).Read(&record, &sequence));
  EXPECT_EQ(record.qpn, 2 * kRange + 17);
  of_b->hazard().store(HazardOf(5, 6));
  EXPECT_TRUE(b->KeyInUse(6));
  EXPECT_TRUE(b->QueuePairInUse(5));
  EXPECT_FALSE(a->KeyInUse(6));
}

TEST(HostPeers, OneThatIsGoneIsGone) {
  auto a = Make("127.0.77.3", 1), b = Make("127.0.77.3", 2);
  const Gid address = *ParseGid("127.0.77.3");
  auto of_b = a->Find(address, 2 * kRange);
  ASSERT_TRUE(Meet(*a, *b, *of_b));
  b.reset();
  EXPECT_TRUE(Eventually([&] {
    a->OnReadable();
    return !of_b->up();
  }));
  EXPECT_EQ(a->hosts(), 0u);
  EXPECT_EQ(a->Find(address, 2 * kRange), nullptr);
  // Another one in its place is another one.
  b = Make("127.0.77.3", 2);
  const auto anew = a->Find(address, 2 * kRange);
  ASSERT_NE(anew, nullptr);
  EXPECT_TRUE(Meet(*a, *b, *anew));
  EXPECT_FALSE(of_b->up());
}

TEST(HostPeers, AGuestThatIsGoneUsesNothing) {
  auto a = Make("127.0.77.4", 1), b = Make("127.0.77.4", 2);
  const auto of_b = a->Find(*ParseGid("127.0.77.4"), 2 * kRange);
  ASSERT_TRUE(Meet(*a, *b, *of_b));
  of_b->hazard().store(HazardOf(5, 6));
  a.reset();
  EXPECT_TRUE(Eventually([&] {
    b->OnReadable();
    return b->guests() == 0;
  }));
  EXPECT_FALSE(b->KeyInUse(6));
}

TEST(HostPeers, AnotherLayoutMeansPackets) {
  auto a = Make("127.0.77.5", 1), b = Make("127.0.77.5", 2, kBoardLayoutVersion + 1);
  const auto of_b = a->Find(*ParseGid("127.0.77.5"), 2 * kRange);
  ASSERT_NE(of_b, nullptr);
  EXPECT_TRUE(Eventually([&] {
    a->OnReadable();
    b->OnReadable();
    return a->hosts() == 0;
  }));
  EXPECT_FALSE(of_b->up());
}

TEST(HostPeers, NonsenseEndsTheConnection) {
  auto b = Make("127.0.77.6", 2);
  const std::string name =
      "sumac/soft-nic-local/" + std::to_string(geteuid()) + "/127.0.77.6/524288+262144";
  UniqueFd connection = ConnectToName(name);
  ASSERT_TRUE(connection.valid());
  ASSERT_EQ(send(connection.get(), "nonsense", 8, 0), 8);
  b->OnReadable();
  b->OnReadable();
  EXPECT_EQ(b->guests(), 0u);
  char byte = 0;
  EXPECT_EQ(recv(connection.get(), &byte, 1, 0), 0) << "closed";
}

TEST(HostPeers, ASecondOneOfOneNameIsRefused) {
  auto a = Make("127.0.77.7", 1);
  auto peers = HostPeers::Create(
      {.address = *ParseGid("127.0.77.7"), .first_qpn = kRange, .qpn_count = kRange});
  ASSERT_TRUE(peers.ok());
  EXPECT_EQ((*peers)->Listen().code(), absl::StatusCode::kAlreadyExists);
}

TEST(HostPeers, ClosedItIsNotFoundAndFindsNobody) {
  auto a = Make("127.0.77.8", 1), b = Make("127.0.77.8", 2);
  b->Close();
  EXPECT_EQ(a->Find(*ParseGid("127.0.77.8"), 2 * kRange), nullptr);
  EXPECT_EQ(b->Find(*ParseGid("127.0.77.8"), kRange), nullptr);
}

}  // namespace
}  // namespace sumac::soft_nic
