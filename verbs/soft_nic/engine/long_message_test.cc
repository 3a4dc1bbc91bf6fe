// Two engines and a message of 2^31 bytes, the longest there is.
#include <gtest/gtest.h>

#include <algorithm>

#include "verbs/soft_nic/engine/engine_testing.h"

namespace sumac::soft_nic {
namespace {

// Memory that is 4 KiB wherever it is looked at.
class OnePage : public Memory {
 public:
  std::byte* Local(uint32_t, uint64_t, size_t, bool) override { return page; }
  std::byte* Remote(uint32_t, uint64_t addr, size_t length, int) override {
    addressed = std::max(addressed, addr + length);
    return page;
  }
  bool Invalidate(uint32_t) override { return false; }
  std::byte page[4096] = {};
  uint64_t addressed = 0;
};

class Forward : public TransmitSink {
 public:
  bool Transmit(const OutgoingPacket& packet) override {
    const std::span<const std::byte> payload =
        packet.payload.empty()
            ? std::span<const std::byte>()
            : std::span(static_cast<const std::byte*>(packet.payload[0].iov_base),
                        packet.payload[0].iov_len);
    to->OnPacket({packet.header, FlagsOf(packet.header.opcode), payload}, {});
    return true;
  }
  QueuePair* to = nullptr;
};

TEST(LongMessageTest, TwoToThe31BytesBothWays) {
  OnePage memory;
  testing::CompletionLog log;
  QueuePair a(QueuePairLimits{}, memory, log, log);
  QueuePair b(QueuePairLimits{}, memory, log, log);
  ReceiveConfig receive;
  receive.mtu_bytes = 4096;
  receive.access_flags = testing::kAllAccess;
  receive.expected_psn = 0xffff00;
  SendConfig send;
  send.first_psn = 0xffff00;
  for (QueuePair* qp : {&a, &b}) {
    qp->ToInit();
    qp->ToReadyToReceive(receive);
    qp->ToReadyToSend(send);
  }
  for (const ibv_wr_opcode opcode : {IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ}) {
    ibv_sge sge{0x1000, 1u << 31, 1};
    ibv_send_wr wr{};
    wr.opcode = opcode;
    wr.send_flags = IBV_SEND_SIGNALED;
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.wr.rdma = {uint64_t{1} << 40, 1};
    memory.addressed = 0;
    ASSERT_EQ(a.PostSend(wr), 0);
    Forward to_a;
    Forward to_b;
    to_a.to = &a;
    to_b.to = &b;
    log.list.clear();
    while (log.list.empty()) {
      (void)a.PollTransmit(to_b, {}, 64);
      (void)b.PollTransmit(to_a, {}, 64);
    }
    EXPECT_EQ(log.list[0].status, IBV_WC_SUCCESS);
    EXPECT_EQ(memory.addressed, (uint64_t{1} << 40) + (uint64_t{1} << 31));
  }
  EXPECT_EQ(a.counters().retransmitted_packets, 0u);
}

}  // namespace
}  // namespace sumac::soft_nic
