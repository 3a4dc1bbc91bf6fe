// The promise of the hot path: after construction the engine takes no memory, whatever happens to
// it.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <span>

#include "verbs/soft_nic/engine/address_handle.h"
#include "verbs/soft_nic/engine/queue_pair.h"
#include "verbs/soft_nic/engine/shared_receive_queue.h"
#include "verbs/soft_nic/engine/xrc_selection.h"

namespace {
std::atomic<uint64_t> allocations{0};
}  // namespace

// The replaced operators pair with each other; g++ 12 loses sight of that once it has inlined one
// of them.
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"

void* operator new(size_t bytes) {
  ++allocations;
  if (void* memory = std::malloc(bytes)) return memory;
  throw std::bad_alloc();
}
void* operator new(size_t bytes, std::align_val_t alignment) {
  ++allocations;
  const size_t unit = static_cast<size_t>(alignment);
  if (void* memory = std::aligned_alloc(unit, (bytes + unit - 1) / unit * unit)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }

namespace sumac::soft_nic {
namespace {

class Flat : public Memory {
 public:
  std::byte* Local(uint32_t, uint64_t addr, size_t length, bool) override {
    return At(addr, length);
  }
  std::byte* Remote(uint32_t, uint64_t addr, size_t length, int) override {
    return At(addr, length);
  }
  bool Invalidate(uint32_t) override { return true; }
  bool Bind(const WindowBind&) override { return true; }

 private:
  std::byte* At(uint64_t addr, size_t length) {
    return addr + length <= sizeof(bytes_) ? bytes_ + addr : nullptr;
  }
  alignas(8) std::byte bytes_[64 << 10] = {};
};

class Count : public CompletionSink {
 public:
  void Push(const ibv_wc& completion, bool) override {
    ++count;
    failed += completion.status != IBV_WC_SUCCESS;
  }
  int count = 0;
  int failed = 0;
};

// Passes packets on, and loses every eleventh.
class LossyWire : public TransmitSink {
 public:
  bool Transmit(const OutgoingPacket& packet) override {
    if (++sent % 11 == 0) return true;
    PacketView view{packet.header, FlagsOf(packet.header.opcode), {}};
    if (!packet.payload.empty()) {
      view.payload = {static_cast<const std::byte*>(packet.payload[0].iov_base),
                      packet.payload[0].iov_len};
    }
    to->OnPacket(view, now);
    return true;
  }
  QueuePair* to = nullptr;
  Time now{};
  uint64_t sent = 0;
};

TEST(NoAllocationTest, TrafficLossAndErrorsTakeNoMemory) {
  Flat memory;
  Count sends;
  Count receives;
  QueuePair a(QueuePairLimits{}, memory, sends, receives);
  QueuePair b(QueuePairLimits{}, memory, sends, receives);
  LossyWire to_a;
  LossyWire to_b;
  to_a.to = &a;
  to_b.to = &b;
  const uint64_t before = allocations;
  ReceiveConfig receive;
  receive.access_flags =
      IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC;
  for (QueuePair* qp : {&a, &b}) {
    qp->ToInit();
    qp->ToReadyToReceive(receive);
    qp->ToReadyToSend(SendConfig{});
  }
  constexpr ibv_wr_opcode kOpcodes[] = {IBV_WR_SEND, IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ,
                                        IBV_WR_ATOMIC_FETCH_AND_ADD, IBV_WR_SEND_WITH_INV};
  Time now{};
  int posted = 0;
  for (int i = 0; i < 2000; ++i) {
    ibv_sge sge{0, i % 5 == 3 ? 8u : static_cast<uint32_t>(i * 37 % 9000), 1};
    ibv_recv_wr buffer{};
    ibv_sge room{16384, 9000, 1};
    buffer.sg_list = &room;
    buffer.num_sge = 1;
    (void)b.PostReceive(buffer);
    ibv_send_wr wr{};
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.opcode = kOpcodes[i % 5];
    wr.send_flags = IBV_SEND_SIGNALED;
    if (i % 5 == 3) {
      wr.wr.atomic = {32768, 1, 1, 1};
    } else {
      wr.wr.rdma = {32768, 1};
    }
    posted += a.PostSend(wr) == 0;
    for (int round = 0; round < 20 && sends.count < posted; ++round) {
      to_a.now = to_b.now = now;
      (void)a.PollTransmit(to_b, now, 64);
      (void)b.PollTransmit(to_a, now, 64);
      now += std::chrono::microseconds(600);
      if (a.NextTimeout() <= now) a.OnTimeout(now);
    }
  }
  EXPECT_EQ(a.state(), IBV_QPS_RTS);
  EXPECT_GT(a.counters().retransmitted_packets, 100u);
  a.ToError(now);
  b.ToError(now);
  EXPECT_EQ(allocations, before);
  EXPECT_EQ(sends.count, posted);
  EXPECT_GT(posted, 1000);
}

TEST(NoAllocationTest, SharedReceivesBatchesAndWindowsTakeNoMemory) {
  Flat memory;
  Count sends;
  Count receives;
  int limit_events = 0;
  SharedReceiveQueue shared(64, 2, memory, [&limit_events] { ++limit_events; });
  QueuePairLimits limits;
  QueuePair a(limits, memory, sends, receives);
  limits.shared_receives = &shared;
  QueuePair b(limits, memory, sends, receives);
  LossyWire to_a;
  LossyWire to_b;
  to_a.to = &a;
  to_b.to = &b;
  ibv_mw window{};
  const uint64_t before = allocations;
  for (QueuePair* qp : {&a, &b}) {
    qp->ToInit();
    qp->ToReadyToReceive(ReceiveConfig{});
    qp->ToReadyToSend(SendConfig{});
  }
  Time now{};
  for (int i = 0; i < 500; ++i) {
    ibv_sge room{16384, 9000, 1};
    ibv_recv_wr buffer{};
    buffer.sg_list = &room;
    buffer.num_sge = 1;
    for (int k = 0; k < 2; ++k) EXPECT_EQ(shared.Post(buffer), 0);
    shared.SetLimit(1);
    ibv_sge sge{0, static_cast<uint32_t>(i * 37 % 9000), 1};
    ibv_send_wr wr{};
    wr.send_flags = IBV_SEND_SIGNALED;
    wr.opcode = IBV_WR_BIND_MW;
    wr.bind_mw.mw = &window;
    EXPECT_EQ(a.StageSend(wr), 0);
    wr.opcode = IBV_WR_SEND;
    wr.sg_list = &sge;
    wr.num_sge = 1;
    for (int k = 0; k < 2; ++k) EXPECT_EQ(a.StageSend(wr), 0);
    wr.opcode = IBV_WR_LOCAL_INV;
    EXPECT_EQ(a.StageSend(wr), 0);
    a.CommitSends();
    for (int round = 0; round < 50 && sends.count < 4 * (i + 1); ++round) {
      to_a.now = to_b.now = now;
      (void)a.PollTransmit(to_b, now, 64);
      (void)b.PollTransmit(to_a, now, 64);
      now += std::chrono::microseconds(600);
      if (a.NextTimeout() <= now) a.OnTimeout(now);
    }
  }
  EXPECT_EQ(allocations, before);
  EXPECT_EQ(sends.count, 2000);
  EXPECT_EQ(sends.failed, 0);
  EXPECT_EQ(receives.count, 1000);
  EXPECT_GT(limit_events, 100);
}

// An XRC connection whose messages go to two queues in turn.
TEST(NoAllocationTest, ExtendedReliableConnectionsTakeNoMemory) {
  Flat memory;
  Count sends;
  Count receives;
  SharedReceiveQueue first(
      64, 2, memory, [] {}, &receives);
  SharedReceiveQueue second(
      64, 2, memory, [] {}, &receives);
  class : public XrcQueues {
   public:
    SharedReceiveQueue* Find(uint32_t number) override { return queues[number % 2]; }
    SharedReceiveQueue* queues[2] = {};
  } queues;
  queues.queues[0] = &first;
  queues.queues[1] = &second;
  QueuePairLimits limits;
  limits.type = IBV_QPT_XRC_SEND;
  QueuePair a(limits, memory, sends, receives);
  limits.type = IBV_QPT_XRC_RECV;
  limits.xrc_queues = &queues;
  QueuePair b(limits, memory, sends, receives);
  LossyWire to_a;
  LossyWire to_b;
  to_a.to = &a;
  to_b.to = &b;
  const uint64_t before = allocations;
  ReceiveConfig receive;
  receive.access_flags = IBV_ACCESS_REMOTE_READ;
  for (QueuePair* qp : {&a, &b}) {
    qp->ToInit();
    qp->ToReadyToReceive(receive);
    qp->ToReadyToSend(SendConfig{});
  }
  Time now{};
  for (int i = 0; i < 500; ++i) {
    ibv_sge sge{0, static_cast<uint32_t>(i * 37 % 9000), 1};
    ibv_recv_wr buffer{};
    ibv_sge room{16384, 9000, 1};
    buffer.sg_list = &room;
    buffer.num_sge = 1;
    EXPECT_EQ(queues.queues[i % 2]->Post(buffer), 0);
    ibv_send_wr wr{};
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.send_flags = IBV_SEND_SIGNALED;
    wr.wr.rdma = {32768, 1};
    wr.qp_type.xrc.remote_srqn = static_cast<uint32_t>(i);
    for (const ibv_wr_opcode opcode : {IBV_WR_SEND, IBV_WR_RDMA_READ}) {
      wr.opcode = opcode;
      EXPECT_EQ(a.PostSend(wr), 0);
    }
    for (int round = 0; round < 50 && sends.count < 2 * (i + 1); ++round) {
      to_a.now = to_b.now = now;
      (void)a.PollTransmit(to_b, now, 64);
      (void)b.PollTransmit(to_a, now, 64);
      now += std::chrono::microseconds(600);
      if (a.NextTimeout() <= now) a.OnTimeout(now);
    }
  }
  b.ForgetReceives(first);
  EXPECT_EQ(allocations, before);
  EXPECT_EQ(sends.count, 1000);
  EXPECT_EQ(sends.failed, 0);
  EXPECT_EQ(receives.count, 500);
}

// UC and UD over the same wire: they complete at once, and the receiver drops what has gaps, finds
// no buffer, is refused or does not fit.
void RunUnreliable(ibv_qp_type type, std::span<const ibv_wr_opcode> opcodes) {
  Flat memory;
  Count sends;
  Count receives;
  QueuePairLimits limits;
  limits.type = type;
  QueuePair a(limits, memory, sends, receives);
  QueuePair b(limits, memory, sends, receives);
  LossyWire to_b;
  to_b.to = &b;
  AddressHandle handle{};
  const uint64_t before = allocations;
  ReceiveConfig receive;
  receive.access_flags = IBV_ACCESS_REMOTE_WRITE;
  for (QueuePair* qp : {&a, &b}) {
    qp->ToInit();
    qp->ToReadyToReceive(receive);
    qp->ToReadyToSend(SendConfig{});
  }
  int posted = 0;
  for (int i = 0; i < 2000; ++i) {
    ibv_recv_wr buffer{};
    ibv_sge room{16384, i % 13 == 0 ? 8u : 9000u, 1};
    buffer.sg_list = &room;
    buffer.num_sge = 1;
    if (i % 7 != 0) (void)b.PostReceive(buffer);
    ibv_sge sge{0, static_cast<uint32_t>(i * 37 % (type == IBV_QPT_UD ? 1100 : 9000)), 1};
    ibv_send_wr wr{};
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.opcode = opcodes[static_cast<size_t>(i) % opcodes.size()];
    wr.send_flags = IBV_SEND_SIGNALED;
    if (type == IBV_QPT_UD) {
      wr.wr.ud = {&handle, 0, i % 17 == 0 ? 1u : 0u};
    } else {
      wr.wr.rdma = {i % 17 == 0 ? 1u << 20 : 32768u, 1};
    }
    posted += a.PostSend(wr) == 0;
    while (a.PollTransmit(to_b, Time{}, 64)) {
    }
  }
  EXPECT_EQ(sends.count, posted);
  EXPECT_EQ(sends.failed, 0);
  EXPECT_GT(receives.failed, 0) << "too long for its buffer";
  const QueuePairCounters& counters = b.counters();
  EXPECT_GT(counters.dropped_no_receive, 0u);
  if (type == IBV_QPT_UD) {
    EXPECT_GT(counters.dropped_bad_qkey, 0u);
    EXPECT_GT(a.counters().unsent_too_long, 0u);
  } else {
    EXPECT_GT(counters.dropped_out_of_order, 0u);
    EXPECT_GT(counters.dropped_with_message, 0u);
    EXPECT_GT(counters.dropped_bad_key, 0u);
  }
  EXPECT_EQ(b.state(), IBV_QPS_RTS);
  a.ToError(Time{});
  b.ToError(Time{});
  EXPECT_EQ(allocations, before);
  EXPECT_EQ(posted, 2000);
}

TEST(NoAllocationTest, UnreliableConnectionsTakeNoMemory) {
  constexpr ibv_wr_opcode kOpcodes[] = {IBV_WR_SEND, IBV_WR_RDMA_WRITE, IBV_WR_SEND_WITH_IMM,
                                        IBV_WR_RDMA_WRITE_WITH_IMM};
  RunUnreliable(IBV_QPT_UC, kOpcodes);
}

TEST(NoAllocationTest, DatagramsTakeNoMemory) {
  constexpr ibv_wr_opcode kOpcodes[] = {IBV_WR_SEND, IBV_WR_SEND_WITH_IMM};
  RunUnreliable(IBV_QPT_UD, kOpcodes);
}

}  // namespace
}  // namespace sumac::soft_nic
