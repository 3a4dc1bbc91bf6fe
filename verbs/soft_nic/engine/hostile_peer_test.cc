// A peer that sends anything at all: well-formed packets whose contents make no sense, thousands in
// a row.
//
// Nothing may crash (the sanitizers watch), no byte outside the registered half of memory may
// change, and every posted request completes at most once, in order, and exactly once when the
// queue pair has reached the error state.
#include <gtest/gtest.h>

#include <random>

#include "verbs/soft_nic/engine/engine_testing.h"

namespace sumac::soft_nic {
namespace {

using testing::Engine;

constexpr size_t kRegistered = 32 << 10;

class HostilePeer {
 public:
  explicit HostilePeer(uint32_t seed) : random_(seed), kind_(seed % 3) {
    engine_.receive.max_dest_rd_atomic = 4;
    engine_.limits.signal_all = true;
    engine_.send.first_psn = 0xfffff0;
    engine_.send.congestion.tail_probe_us = 300;
    engine_.send.timeout = 8;
    engine_.Connect();
    engine_.keys.Remove(engine_.key);
    engine_.key = engine_.keys.Add(engine_.memory.data(), kRegistered, testing::kAllAccess);
  }

  // Until the queue pair breaks, or it has survived `packets`.
  void Run(int packets) {
    const std::vector<std::byte> before = engine_.memory;
    for (int i = 0; i < packets && engine_.qp->state() == IBV_QPS_RTS; ++i) Step();
    engine_.qp->ToError(engine_.now);
    EXPECT_EQ(engine_.sends.list.size(), engine_.last_wr_id - refused_sends_);
    EXPECT_EQ(engine_.receives.list.size(), engine_.last_receive_id - 1000 - refused_receives_);
    ExpectAscending(engine_.sends.list);
    ExpectAscending(engine_.receives.list);
    EXPECT_TRUE(std::equal(before.begin() + kRegistered, before.end(),
                           engine_.memory.begin() + kRegistered));
    EXPECT_EQ(engine_.qp->NextTimeout(), kNever);
  }

  uint64_t survived = 0;

 private:
  uint32_t Below(uint32_t bound) { return static_cast<uint32_t>(random_() % bound); }

  void Step() {
    switch (Below(8)) {
      case 0:
        PostSomething();
        break;
      case 1:
        refused_receives_ += engine_.PostReceive(Below(kRegistered), Below(3000)) != 0;
        break;
      case 2:
        engine_.Transmit(Below(20));
        break;
      case 3:
        if (Below(20) == 0 && engine_.qp->NextTimeout() != kNever) engine_.FireTimer();
        break;
      default:
        InjectSomething();
        ++survived;
    }
  }

  void PostSomething() {
    static constexpr ibv_wr_opcode kOpcodes[] = {IBV_WR_SEND, IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ,
                                                 IBV_WR_ATOMIC_FETCH_AND_ADD};
    const ibv_wr_opcode opcode = kOpcodes[Below(4)];
    const uint32_t length = opcode == IBV_WR_ATOMIC_FETCH_AND_ADD ? 8 : Below(5000);
    refused_sends_ += engine_.Post(opcode, Below(kRegistered - 5000), length) != 0;
  }

  // A peer that breaks the order of opcodes is cut off at once, so two kinds of three live longer.
  Opcode DrawOpcode() {
    static constexpr Opcode kAnswers[] = {
        Opcode::kRcAcknowledge,        Opcode::kRcAtomicAcknowledge, Opcode::kRcReadResponseFirst,
        Opcode::kRcReadResponseMiddle, Opcode::kRcReadResponseLast,  Opcode::kRcReadResponseOnly};
    static constexpr Opcode kWholeRequests[] = {Opcode::kRcSendOnly,    Opcode::kRcWriteOnly,
                                                Opcode::kRcReadRequest, Opcode::kRcFetchAdd,
                                                Opcode::kRcCompareSwap, Opcode::kRcAcknowledge};
    if (kind_ == 1) return kAnswers[Below(6)];
    if (kind_ == 2) return kWholeRequests[Below(6)];
    return static_cast<Opcode>(Below(0x18));
  }

  void InjectSomething() {
    PacketHeader header;
    header.opcode = DrawOpcode();
    if (FlagsOf(header.opcode) == 0) return;
    const bool response = (FlagsOf(header.opcode) & kIsResponse) != 0;
    const uint32_t near = response ? engine_.qp->next_send_psn() : engine_.qp->expected_psn();
    // Mostly where it hurts: at the edge of what is expected.
    header.psn =
        (Below(3) != 0 ? near + Below(9) - 6 : static_cast<uint32_t>(random_())) & 0xffffff;
    if (!response && Below(2) == 0) header.psn = near;
    header.ack_request = Below(2) != 0;
    header.solicited = Below(2) != 0;
    // Mostly ACKs: NAKs of the fatal kinds end the run.
    static constexpr uint8_t kSyndromes[] = {0x1f, 0x1f, 0x1f, 0x60, 0x2c, 0x1f, 0x45, 0x1f};
    header.syndrome = Below(200) == 0 ? static_cast<uint8_t>(random_()) : kSyndromes[Below(8)];
    header.msn = static_cast<uint32_t>(random_()) & 0xffffff;
    header.rkey = Below(50) == 0 ? static_cast<uint32_t>(random_()) : engine_.key;
    header.remote_addr = engine_.addr(Below(kRegistered - 1100));
    if (Below(50) == 0) header.remote_addr = random_();
    if ((FlagsOf(header.opcode) & kIsAtomic) != 0) header.remote_addr &= ~uint64_t{7};
    static constexpr uint32_t kLengths[] = {0, 1, 8, 1024, 1025, 2048, 5000, 0xffffffff};
    header.dma_length = kLengths[Below(Below(20) == 0 ? 8 : 4)];
    header.atomic_result = random_();
    header.swap_or_add = random_();
    size_t bytes = 0;
    if ((FlagsOf(header.opcode) & kMayCarryPayload) != 0) {
      const bool ends = (FlagsOf(header.opcode) & kEndsMessage) != 0;
      bytes = ends && Below(20) != 0 ? std::min<uint32_t>(header.dma_length, 1024) : 1024;
      if (Below(30) == 0) bytes = Below(4097);
    }
    engine_.Inject(header, bytes);
  }

  static void ExpectAscending(const std::vector<ibv_wc>& list) {
    for (size_t i = 1; i < list.size(); ++i) ASSERT_GT(list[i].wr_id, list[i - 1].wr_id);
  }

  std::mt19937_64 random_;
  const uint32_t kind_;
  Engine engine_;
  uint64_t refused_sends_ = 0;
  uint64_t refused_receives_ = 0;
};

TEST(HostilePeerTest, NonsenseNeverCrashesOrLeaks) {
  uint64_t survived = 0;
  for (uint32_t seed = 1; seed <= 3000; ++seed) {
    SCOPED_TRACE(seed);
    HostilePeer peer(seed);
    peer.Run(2000);
    survived += peer.survived;
    if (::testing::Test::HasFailure()) return;
  }
  EXPECT_GT(survived, 500000u);  // or the runs ended before they tried anything
}

}  // namespace
}  // namespace sumac::soft_nic
