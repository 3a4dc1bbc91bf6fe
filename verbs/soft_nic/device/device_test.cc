// The soft NIC through the verbs API, as a program would use it: two devices in one process, real
// sockets on loopback.

#include "verbs/device.h"

#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

#include "verbs/completion_queue.h"
#include "verbs/memory_region.h"
#include "verbs/protection_domain.h"
#include "verbs/queue_pair.h"
#include "verbs/soft_nic/device/device_test_support.h"
#include "verbs/soft_nic/device/soft_context.h"
#include "verbs/status.h"

namespace sumac::verbs {
namespace {

TEST(SoftDevice, IsListedAndDescribesItself) {
  const auto devices = ListDevices();
  EXPECT_TRUE(std::any_of(devices.begin(), devices.end(), [](const DeviceInfo& info) {
    return info.name == "soft0" && info.provider == "soft";
  }));
  auto device = Device::Open("soft0");
  ASSERT_TRUE(device.ok()) << device.status();
  EXPECT_EQ((*device)->QueryPort(1)->state, IBV_PORT_ACTIVE);
  EXPECT_EQ((*device)->QueryPort(1)->active_mtu, IBV_MTU_4096);
  EXPECT_FALSE((*device)->QueryPort(2).ok());
  const auto gids = (*device)->QueryGids(1);
  ASSERT_TRUE(gids.ok());
  ASSERT_EQ(gids->size(), 1u);
  EXPECT_EQ(gids->front().type, GidType::kRoceV2);
  EXPECT_TRUE(gids->front().is_ipv4());
  EXPECT_EQ(gids->front().address().substr(0, 4), "127.");
}

TEST(SoftDevice, UnknownNameListsWhatThereIs) {
  const auto device = Device::Open("mlx5_99");
  ASSERT_EQ(device.status().code(), absl::StatusCode::kNotFound);
  EXPECT_NE(device.status().message().find("soft0"), absl::string_view::npos);
}

class MtuTest : public testing::TestWithParam<ibv_mtu> {};

TEST_P(MtuTest, MovesEverySizeWithEveryOperation) {
  constexpr size_t kBytes = 3 << 20;
  End a(kBytes), b(kBytes);
  Connect(a, b, GetParam());
  std::iota(a.memory.begin(), a.memory.end(), 1);
  for (const size_t size : {size_t{0}, size_t{1}, size_t{255}, size_t{256}, size_t{4097},
                            size_t{100'003}, size_t{2 << 20}}) {
    SCOPED_TRACE(size);
    std::fill(b.memory.begin(), b.memory.end(), 0);
    ASSERT_EQ(a.Post(IBV_WR_RDMA_WRITE, a.Sge(7, size), b.Address(3), b.region->rkey()), 0);
    EXPECT_EQ(a.Next().status, IBV_WC_SUCCESS);
    EXPECT_EQ(std::memcmp(&a.memory[7], &b.memory[3], size), 0);
    EXPECT_EQ(b.memory[2], 0);
    EXPECT_EQ(b.memory[3 + size], 0);

    std::fill(b.memory.begin(), b.memory.end(), 0);
    b.PostReceive(5, kBytes - 5);
    ASSERT_EQ(a.Post(IBV_WR_SEND_WITH_IMM, a.Sge(1, size)), 0);
    const ibv_wc received = b.Next();
    EXPECT_EQ(received.status, IBV_WC_SUCCESS);
    EXPECT_EQ(received.byte_len, size);
    EXPECT_EQ(received.imm_data, htobe32(0x11223344));
    EXPECT_EQ(std::memcmp(&a.memory[1], &b.memory[5], size), 0);
    EXPECT_EQ(a.Next().status, IBV_WC_SUCCESS);

    std::vector<uint8_t> read_back(size + 1, 0);
    auto region = MemoryRegion::Register(b.pd, read_back.data(), read_back.size(), kAllAccess);
    ASSERT_TRUE(region.ok());
    ibv_sge sge{reinterpret_cast<uint64_t>(read_back.data()), static_cast<uint32_t>(size),
                (*region)->lkey()};
    ASSERT_EQ(b.Post(IBV_WR_RDMA_READ, sge, a.Address(9), a.region->rkey()), 0);
    EXPECT_EQ(b.Next().status, IBV_WC_SUCCESS);
    EXPECT_EQ(std::memcmp(&a.memory[9], read_back.data(), size), 0);
    EXPECT_EQ(read_back[size], 0);
  }
}

INSTANTIATE_TEST_SUITE_P(PathMtu, MtuTest,
                         testing::Values(IBV_MTU_256, IBV_MTU_512, IBV_MTU_1024, IBV_MTU_2048,
                                         IBV_MTU_4096));

TEST(SoftDevice, WriteWithImmediateTakesAReceiveAndAnnouncesItself) {
  End a(4096), b(4096);
  Connect(a, b);
  b.PostReceive(0, 16, 42);
  a.memory[0] = 9;
  ASSERT_EQ(a.Post(IBV_WR_RDMA_WRITE_WITH_IMM, a.Sge(0, 100), b.Address(200), b.region->rkey()), 0);
  const ibv_wc wc = b.Next();
  EXPECT_EQ(wc.opcode, IBV_WC_RECV_RDMA_WITH_IMM);
  EXPECT_EQ(wc.wr_id, 42u);
  EXPECT_EQ(wc.byte_len, 100u);
  EXPECT_EQ(wc.wc_flags & IBV_WC_WITH_IMM, IBV_WC_WITH_IMM);
  EXPECT_EQ(b.memory[200], 9);
}

TEST(SoftDevice, AtomicsReturnTheOldValue) {
  End a(64), b(64);
  Connect(a, b);
  auto* const target = reinterpret_cast<uint64_t*>(b.memory.data());
  auto* const result = reinterpret_cast<uint64_t*>(a.memory.data());
  *target = 5;
  ASSERT_EQ(a.Post(IBV_WR_ATOMIC_CMP_AND_SWP, a.Sge(0, 8), b.Address(), b.region->rkey()), 0);
  EXPECT_EQ(a.Next().status, IBV_WC_SUCCESS);
  EXPECT_EQ(*result, 5u);
  EXPECT_EQ(*target, 77u);
  ASSERT_EQ(a.Post(IBV_WR_ATOMIC_FETCH_AND_ADD, a.Sge(0, 8), b.Address(), b.region->rkey()), 0);
  EXPECT_EQ(a.Next().status, IBV_WC_SUCCESS);
  EXPECT_EQ(*result, 77u);
  EXPECT_EQ(*target, 82u);
}

struct Refusal {
  const char* what;
  int64_t rkey_xor;
  int64_t offset;
  int region_access;
};

class RefusalTest : public testing::TestWithParam<Refusal> {};

TEST_P(RefusalTest, ChangesNoByteAndFailsTheQueuePair) {
  End a(8192), b(8192);
  Connect(a, b);
  auto guarded = MemoryRegion::Register(b.pd, b.memory.data(), 4096, GetParam().region_access);
  ASSERT_TRUE(guarded.ok()) << guarded.status();
  const std::vector<uint8_t> before = b.memory;
  std::fill(a.memory.begin(), a.memory.end(), 0xee);
  const auto rkey = static_cast<uint32_t>((*guarded)->rkey() ^ GetParam().rkey_xor);
  ASSERT_EQ(a.Post(IBV_WR_RDMA_WRITE, a.Sge(0, 1024),
                   b.Address() + static_cast<uint64_t>(GetParam().offset), rkey),
            0);
  ASSERT_EQ(a.Post(IBV_WR_RDMA_WRITE, a.Sge(0, 8), b.Address(), b.region->rkey(), 2), 0);
  EXPECT_STREQ(NameOf(a.Next().status), "IBV_WC_REM_ACCESS_ERR");
  EXPECT_STREQ(NameOf(a.Next().status), "IBV_WC_WR_FLUSH_ERR");
  EXPECT_EQ(b.memory, before);
  EXPECT_EQ(a.qp->Query(IBV_QP_STATE)->qp_state, IBV_QPS_ERR);
}

INSTANTIATE_TEST_SUITE_P(All, RefusalTest,
                         testing::Values(Refusal{"wrong key", 1, 0, kAllAccess},
                                         Refusal{"past the end", 0, 4000, kAllAccess},
                                         Refusal{"before the start", 0, -1, kAllAccess},
                                         Refusal{"wrapping around", 0, -2048, kAllAccess},
                                         Refusal{"no right to write", 0, 0,
                                                 IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ}));

TEST(SoftDevice, RegisteringWhatIsNotMappedOrNotWritableFails) {
  End a(64);
  void* const page = mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(page, MAP_FAILED);
  EXPECT_FALSE(MemoryRegion::Register(a.pd, page, 4096, kAllAccess).ok());
  EXPECT_TRUE(MemoryRegion::Register(a.pd, page, 4096, IBV_ACCESS_REMOTE_READ).ok());
  munmap(page, 4096);
  EXPECT_FALSE(MemoryRegion::Register(a.pd, page, 4096, 0).ok());
  EXPECT_FALSE(MemoryRegion::Register(a.pd, a.memory.data(), 0, kAllAccess).ok());
  EXPECT_FALSE(MemoryRegion::Register(a.pd, a.memory.data(), 64, IBV_ACCESS_REMOTE_WRITE).ok());
}

TEST(SoftDevice, SilentPeerIsRetryExceeded) {
  End a(64), b(64);
  ConnectionOptions to_b = To(b);
  to_b.remote_qpn ^= 0x10;  // nobody has it
  to_b.timeout = 8;         // 1 ms
  to_b.retry_count = 2;
  Connect(a, b, to_b, To(a));
  ASSERT_EQ(a.Post(IBV_WR_RDMA_WRITE, a.Sge(0, 8), b.Address(), b.region->rkey()), 0);
  EXPECT_STREQ(NameOf(a.Next().status), "IBV_WC_RETRY_EXC_ERR");
}

TEST(SoftDevice, ReceiverNotReadyWaitsForAReceive) {
  End a(64), b(64);
  Connect(a, b);
  a.memory[0] = 3;
  ASSERT_EQ(a.Post(IBV_WR_SEND, a.Sge(0, 8)), 0);
  ibv_wc wc{};
  for (int i = 0; i < 100; ++i) EXPECT_EQ(b.cq->Poll({&wc, 1}), 0);
  b.PostReceive(8, 8);
  EXPECT_EQ(b.Next().status, IBV_WC_SUCCESS);
  EXPECT_EQ(b.memory[8], 3);
  EXPECT_EQ(a.Next().status, IBV_WC_SUCCESS);
}

// Each queue in order. Which of two queues comes first nobody promises.
TEST(SoftDevice, ErrorStateFlushesBothQueuesInOrder) {
  End a(64), b(64);
  Connect(a, b);
  for (uint64_t i = 0; i < 5; ++i) a.PostReceive(0, 8, i);
  ASSERT_TRUE(a.qp->ToError().ok());
  a.PostReceive(0, 8, 5);
  ASSERT_EQ(a.Post(IBV_WR_SEND, a.Sge(0, 8), 0, 0, 6), 0);
  ASSERT_EQ(a.Post(IBV_WR_SEND, a.Sge(0, 8), 0, 0, 7), 0);
  uint64_t receives = 0, sends = 0;
  for (int i = 0; i < 8; ++i) {
    const ibv_wc wc = a.Next();
    EXPECT_EQ(wc.status, IBV_WC_WR_FLUSH_ERR);
    EXPECT_EQ(wc.wr_id, wc.wr_id < 6 ? receives++ : 6 + sends++);
  }
  EXPECT_EQ(receives, 6u);
  EXPECT_EQ(sends, 2u);
}

TEST(SoftDevice, PassiveTargetIsServedWhileItsApplicationDoesNothing) {
  End a(1 << 20), b(1 << 20);
  Connect(a, b);
  // b never polls: only its helper thread can answer.
  for (int i = 0; i < 20; ++i) {
    a.memory[0] = static_cast<uint8_t>(i);
    ASSERT_EQ(a.Post(IBV_WR_RDMA_WRITE, a.Sge(0, 1 << 20), b.Address(), b.region->rkey()), 0);
    ASSERT_EQ(a.Next().status, IBV_WC_SUCCESS);
    EXPECT_EQ(b.memory[0], i);
  }
}

TEST(SoftDevice, PosterThatNeverPollsStillRetransmitsAndCompletes) {
  End a(64), b(64);
  ConnectionOptions to_b = To(b);
  to_b.timeout = 10;
  ASSERT_TRUE(a.qp->ToInit(to_b).ok());
  ASSERT_TRUE(a.qp->ToReadyToReceive(to_b).ok());
  ASSERT_TRUE(a.qp->ToReadyToSend(to_b).ok());
  ASSERT_TRUE(a.cq->Arm().ok());
  // b is not ready yet: the packet is lost, and only a timer can bring it again.
  ASSERT_EQ(a.Post(IBV_WR_RDMA_WRITE, a.Sge(0, 8), b.Address(), b.region->rkey()), 0);
  ASSERT_TRUE(b.qp->ToInit(To(a)).ok());
  ASSERT_TRUE(b.qp->ToReadyToReceive(To(a)).ok());
  pollfd event{a.channel->channel()->fd, POLLIN, 0};
  EXPECT_EQ(poll(&event, 1, 10'000), 1) << "no event: nobody drove the device";
  EXPECT_EQ(a.Next().status, IBV_WC_SUCCESS);
}

TEST(SoftDevice, ArmedQueueWakesAWaiter) {
  End a(64), b(64);
  Connect(a, b);
  for (int i = 0; i < 50; ++i) {
    b.PostReceive(0, 8);
    ASSERT_TRUE(b.cq->Arm().ok());
    ibv_wc wc{};
    ASSERT_EQ(b.cq->Poll({&wc, 1}), 0);
    std::thread sender([&] { ASSERT_EQ(a.Post(IBV_WR_SEND, a.Sge(0, 8)), 0); });
    const auto woken = b.channel->Wait(absl::Seconds(10));
    sender.join();
    ASSERT_TRUE(woken.ok());
    ASSERT_TRUE(*woken);
    EXPECT_EQ(b.Next().status, IBV_WC_SUCCESS);
    EXPECT_EQ(a.Next().status, IBV_WC_SUCCESS);
  }
}

}  // namespace
}  // namespace sumac::verbs
