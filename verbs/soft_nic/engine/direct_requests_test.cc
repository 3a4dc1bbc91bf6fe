// Requests in the peer's memory without packets, and how they go together with those that need
// packets. The test plays the peer: its memory, whether it can be reached, and its answers.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "verbs/soft_nic/engine/engine_testing.h"

namespace sumac::soft_nic {
namespace {

using testing::Describe;
using testing::Engine;

constexpr uint64_t kRemote = 0x10000;  // where Engine::Post sends, with key 0x77
constexpr size_t kRemoteBytes = 4 << 20;

class FakePeer : public DirectMemory {
 public:
  bool up() const override { return is_up; }
  bool Write(const RemoteRange& range, uint64_t offset, std::span<const iovec> pieces) override {
    std::byte* to = Find(range, offset);
    if (to == nullptr) return false;
    for (const iovec& piece : pieces) {
      std::memcpy(to, piece.iov_base, piece.iov_len);
      to += piece.iov_len;
    }
    return true;
  }
  bool Read(const RemoteRange& range, uint64_t offset, std::span<const iovec> pieces) override {
    const std::byte* from = Find(range, offset);
    if (from == nullptr) return false;
    for (const iovec& piece : pieces) {
      std::memcpy(piece.iov_base, from, piece.iov_len);
      from += piece.iov_len;
    }
    return true;
  }
  bool CompareSwap(uint32_t rkey, uint64_t addr, uint64_t compare, uint64_t swap,
                   uint64_t* original) override {
    std::byte* at = Find({rkey, addr, 8}, 0);
    if (at == nullptr) return false;
    std::memcpy(original, at, 8);
    if (*original == compare) std::memcpy(at, &swap, 8);
    return true;
  }
  bool FetchAdd(uint32_t rkey, uint64_t addr, uint64_t add, uint64_t* original) override {
    std::byte* at = Find({rkey, addr, 8}, 0);
    if (at == nullptr) return false;
    std::memcpy(original, at, 8);
    const uint64_t sum = *original + add;
    std::memcpy(at, &sum, 8);
    return true;
  }

  bool is_up = true;
  int calls = 0;
  int refuse_from = 1 << 30;  // calls from this one on say no
  std::vector<std::byte> memory = std::vector<std::byte>(kRemoteBytes);

 private:
  std::byte* Find(const RemoteRange& range, uint64_t offset) {
    if (calls++ >= refuse_from || range.rkey != 0x77 || range.addr < kRemote ||
        range.addr - kRemote + range.length > memory.size()) {
      return nullptr;
    }
    return memory.data() + (range.addr - kRemote) + offset;
  }
};

class DirectRequests : public ::testing::Test {
 protected:
  void Connect() {
    engine.limits.direct = &peer;
    engine.Connect();
  }
  bool Holds(size_t remote, size_t local, size_t bytes) const {
    return std::memcmp(&peer.memory[remote], &engine.memory[local], bytes) == 0;
  }
  std::string Completions() const {
    std::string text;
    for (const ibv_wc& wc : engine.sends.list) {
      if (!text.empty()) text += ' ';
      text += std::to_string(wc.wr_id) + ':' + std::to_string(static_cast<int>(wc.status));
    }
    return text;
  }
  uint64_t Direct() const { return engine.qp->counters().direct_requests; }

  FakePeer peer;
  Engine engine;
};

TEST_F(DirectRequests, WriteReadAndAtomicsNeedNoPacket) {
  Connect();
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 0, 5000), 0);
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_READ, 8000, 5000), 0);
  ASSERT_EQ(engine.Post(IBV_WR_ATOMIC_FETCH_AND_ADD, 16, 8), 0);
  ASSERT_EQ(engine.Post(IBV_WR_ATOMIC_CMP_AND_SWP, 24, 8), 0);
  const uint64_t first = engine.Word(0);
  EXPECT_EQ(Describe(engine.Transmit()), "");
  EXPECT_EQ(Completions(), "1:0 2:0 3:0 4:0");
  EXPECT_TRUE(Holds(8, 8, 8));
  EXPECT_EQ(std::memcmp(&engine.memory[8000], &engine.memory[0], 5), 0);
  EXPECT_EQ(engine.Word(16), first);       // before 11 was added
  EXPECT_EQ(engine.Word(24), first + 11);  // before it was compared with 11
  EXPECT_EQ(engine.sends.list[0].opcode, IBV_WC_RDMA_WRITE);
  EXPECT_EQ(engine.sends.list[1].opcode, IBV_WC_RDMA_READ);
  EXPECT_EQ(engine.sends.list[1].byte_len, 5000u);
  EXPECT_EQ(engine.sends.list[2].opcode, IBV_WC_FETCH_ADD);
  EXPECT_EQ(engine.sends.list[3].opcode, IBV_WC_COMP_SWAP);
  EXPECT_EQ(Direct(), 4u);
  EXPECT_EQ(engine.qp->counters().direct_bytes, 10016u);
  EXPECT_EQ(engine.qp->next_send_psn(), 0x100u);
  EXPECT_EQ(engine.qp->NextTimeout(), kNever);
}

TEST_F(DirectRequests, BehindAPacketEverythingIsPacketsUntilItIsAnswered) {
  Connect();
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 0, 8), 0);
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 8), 0);
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 8, 8), 0);
  EXPECT_EQ(Describe(engine.Transmit()), "RC SEND_ONLY@100, RC WRITE_ONLY@101");
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 16, 8), 0);
  EXPECT_EQ(Describe(engine.Transmit()), "RC WRITE_ONLY@102");
  EXPECT_EQ(Direct(), 1u);
  engine.InjectAck(0x101);
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 24, 8), 0);
  EXPECT_EQ(Describe(engine.Transmit()), "RC WRITE_ONLY@103") << "one is still unanswered";
  engine.InjectAck(0x103);
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 32, 8), 0);
  EXPECT_EQ(Describe(engine.Transmit()), "");
  EXPECT_TRUE(Holds(0, 32, 8));
  EXPECT_EQ(Direct(), 2u);
  EXPECT_EQ(Completions(), "1:0 2:0 3:0 4:0 5:0 6:0");
}

// A program that keeps its queue full, and began before the peer could be reached.
TEST_F(DirectRequests, OnceThePathIsUpTheNextRequestWaitsForWhatIsUnderWay) {
  Connect();
  peer.is_up = false;
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 0, 8), 0);
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 8, 8), 0);
  EXPECT_EQ(engine.Transmit().size(), 2u);
  peer.is_up = true;
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 16, 8), 0);
  EXPECT_EQ(Describe(engine.Transmit()), "");
  engine.InjectAck(0x100);
  EXPECT_EQ(Describe(engine.Transmit()), "");
  EXPECT_EQ(Direct(), 0u);
  engine.InjectAck(0x101);
  EXPECT_EQ(Describe(engine.Transmit()), "");
  EXPECT_EQ(Direct(), 1u);
  EXPECT_TRUE(Holds(0, 16, 8));
  EXPECT_EQ(Completions(), "1:0 2:0 3:0");
}

TEST_F(DirectRequests, WaitsNoLongerWhenThePathGoesAgain) {
  Connect();
  peer.is_up = false;
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 0, 8), 0);
  EXPECT_EQ(engine.Transmit().size(), 1u);
  peer.is_up = true;
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 8, 8), 0);
  EXPECT_EQ(engine.Transmit().size(), 0u);
  peer.is_up = false;
  EXPECT_EQ(Describe(engine.Transmit()), "RC WRITE_ONLY@101");
}

TEST_F(DirectRequests, ARefusedOneHoldsUpNobody) {
  Connect();
  peer.refuse_from = 0;
  for (int i = 0; i < 4; ++i) {
    ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 0, 8), 0);
    EXPECT_EQ(engine.Transmit().size(), 1u);
  }
  engine.InjectAck(0x101);
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 0, 8), 0);
  EXPECT_EQ(engine.Transmit().size(), 1u) << "the pipeline never runs empty";
  EXPECT_EQ(peer.calls, 1);
}

// A target that was not ready for the first of a full queue's requests.
TEST_F(DirectRequests, AfterARefusalItIsTriedAgainInTheMidstOfPackets) {
  Connect();
  peer.refuse_from = 0;
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 0, 8), 0);
  EXPECT_EQ(engine.Transmit().size(), 1u);
  peer.refuse_from = 1 << 30;
  uint32_t packets = 1;
  for (; packets < 1000; ++packets) {  // one is always unanswered
    ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 0, 8), 0);
    if (engine.Transmit().empty()) break;
    engine.InjectAck(0x100 + packets - 1);
  }
  EXPECT_LT(packets, 100u) << "and it waits for those under way";
  EXPECT_EQ(Direct(), 0u);
  engine.InjectAck(0x100 + packets - 1);
  EXPECT_EQ(Describe(engine.Transmit()), "");
  EXPECT_EQ(Direct(), 1u);
}

TEST_F(DirectRequests, RetriedPacketsKeepLaterOnesBehindThem) {
  Connect();
  ASSERT_EQ(engine.Post(IBV_WR_SEND, 0, 8), 0);
  EXPECT_EQ(engine.Transmit().size(), 1u);
  engine.FireTimer();  // lost: the cursor goes back to where everything is answered
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 0, 8), 0);
  EXPECT_EQ(Describe(engine.Transmit()), "RC SEND_ONLY@100, RC WRITE_ONLY@101");
  EXPECT_EQ(Direct(), 0u);
}

TEST_F(DirectRequests, WhatThePeerWouldRefuseItGetsAsAPacket) {
  Connect();
  engine.last_wr_id = 10;
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 0, 8, IBV_SEND_SIGNALED, 0x100), 0);  // not there
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 0, 8), 0);
  EXPECT_EQ(Describe(engine.Transmit()), "RC WRITE_ONLY@100, RC WRITE_ONLY@101");
  engine.InjectAck(0x100, kSyndromeNakRemoteAccess);
  EXPECT_EQ(Completions(), "11:10 12:5");  // REM_ACCESS_ERR, and a flush
  EXPECT_EQ(engine.qp->state(), IBV_QPS_ERR);
  EXPECT_TRUE(std::all_of(peer.memory.begin(), peer.memory.end(),
                          [](std::byte b) { return b == std::byte{0}; }));
}

TEST_F(DirectRequests, ARefusedOneIsNotTriedAgainAndAgain) {
  Connect();
  peer.refuse_from = 0;
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 0, 8), 0);
  testing::PacketList full;
  full.room = 0;
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(engine.qp->PollTransmit(full, engine.now, 32));
  EXPECT_EQ(peer.calls, 1);
}

TEST_F(DirectRequests, ALocalKeyThatRefusesIsALocalError) {
  Connect();
  ibv_sge sge = {engine.addr(0), 8, 0xbad};
  ibv_send_wr wr{};
  wr.wr_id = 9;
  wr.sg_list = &sge;
  wr.num_sge = 1;
  wr.opcode = IBV_WR_RDMA_WRITE;
  wr.wr.rdma = {kRemote, 0x77};
  ASSERT_EQ(engine.qp->PostSend(wr), 0);
  EXPECT_EQ(Describe(engine.Transmit()), "");
  EXPECT_EQ(Completions(), "9:4");  // LOC_PROT_ERR
  EXPECT_EQ(peer.calls, 0);
}

TEST_F(DirectRequests, InlineDataAndSeveralPieces) {
  Connect();
  ibv_sge pieces[] = {engine.Sge(100, 10), engine.Sge(0, 0), engine.Sge(300, 20)};
  ibv_send_wr wr{};
  wr.sg_list = pieces;
  wr.num_sge = 3;
  wr.opcode = IBV_WR_RDMA_WRITE;
  wr.wr.rdma = {kRemote, 0x77};
  ASSERT_EQ(engine.qp->PostSend(wr), 0);
  wr.send_flags = IBV_SEND_INLINE;
  wr.wr.rdma.remote_addr = kRemote + 64;
  ASSERT_EQ(engine.qp->PostSend(wr), 0);
  EXPECT_EQ(Describe(engine.Transmit()), "");
  for (const size_t at : {0, 64}) {
    EXPECT_TRUE(Holds(at, 100, 10));
    EXPECT_TRUE(Holds(at + 10, 300, 20));
  }
  EXPECT_EQ(Completions(), "") << "nobody asked to be told";
  EXPECT_EQ(Direct(), 2u);
}

TEST_F(DirectRequests, ALongOneGivesWayInTurns) {
  engine.memory.resize(1 << 20);
  Connect();
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 0, 1 << 20), 0);
  testing::PacketList sink;
  int turns = 1;
  while (engine.qp->PollTransmit(sink, engine.now, 32)) {
    EXPECT_EQ(Completions(), "");
    EXPECT_FALSE(engine.qp->drained());
    ++turns;
  }
  EXPECT_EQ(turns, 4);
  EXPECT_EQ(Completions(), "1:0");
  EXPECT_TRUE(Holds(0, 0, 1 << 20));
  EXPECT_TRUE(sink.list.empty());
  EXPECT_TRUE(engine.qp->drained());
}

TEST_F(DirectRequests, APathThatEndsInMidStreamLeavesThePacketsToDoItAll) {
  engine.memory.resize(1 << 20);
  engine.send.congestion.window_bytes_initial = engine.send.congestion.window_bytes_max = 4 << 20;
  Connect();
  peer.refuse_from = 2;
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 0, 1 << 20), 0);
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 0, 8), 0);
  const auto sent = engine.Transmit();
  ASSERT_EQ(sent.size(), 1025u);
  EXPECT_EQ(sent[0].header.dma_length, 1u << 20);
  EXPECT_EQ(std::memcmp(sent[0].payload.data(), engine.memory.data(), 1024), 0);
  engine.InjectAck(0x100 + 1024);
  EXPECT_EQ(Completions(), "1:0 2:0");
  EXPECT_EQ(Direct(), 0u);
  // And it may come back.
  peer.refuse_from = 1 << 30;
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 0, 8), 0);
  EXPECT_EQ(Describe(engine.Transmit()), "");
  EXPECT_EQ(Direct(), 1u);
}

TEST_F(DirectRequests, DrainingEndsWhatHasBegunOnly) {
  engine.memory.resize(1 << 20);
  Connect();
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 0, 1 << 20), 0);
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 0, 8), 0);
  testing::PacketList sink;
  ASSERT_TRUE(engine.qp->PollTransmit(sink, engine.now, 32));
  engine.qp->SetDraining(true);
  engine.Transmit();
  EXPECT_EQ(Completions(), "1:0");
  EXPECT_TRUE(engine.qp->drained());
  engine.qp->SetDraining(false);
  engine.Transmit();
  EXPECT_EQ(Completions(), "1:0 2:0");
}

TEST_F(DirectRequests, WhatMustBePacketsIsPackets) {
  Connect();
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE_WITH_IMM, 0, 8), 0);
  EXPECT_EQ(Describe(engine.Transmit()), "RC WRITE_ONLY_IMM@100");
  engine.InjectAck(0x100);
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 0, 0), 0);  // without bytes there is no key to look at
  EXPECT_EQ(Describe(engine.Transmit()), "RC WRITE_ONLY@101");
  engine.InjectAck(0x101);
  engine.qp->SetRateLimit(1'000'000);
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 0, 8), 0);
  EXPECT_EQ(Describe(engine.Transmit()), "RC WRITE_ONLY@102");
  engine.InjectAck(0x102);
  engine.qp->SetRateLimit(0);
  peer.is_up = false;
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 0, 8), 0);
  EXPECT_EQ(Describe(engine.Transmit()), "RC WRITE_ONLY@103");
  EXPECT_EQ(peer.calls, 0);
}

TEST_F(DirectRequests, AReadThatTheQueuePairMayNotHaveIsRefusedAsEver) {
  engine.send.max_rd_atomic = 0;
  Connect();
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_READ, 0, 8), 0);
  EXPECT_EQ(Describe(engine.Transmit()), "");
  EXPECT_EQ(Completions(), "1:2");  // LOC_QP_OP_ERR
  EXPECT_EQ(peer.calls, 0);
}

TEST_F(DirectRequests, AFenceIsKept) {
  Connect();
  peer.is_up = false;
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_READ, 0, 8), 0);
  EXPECT_EQ(Describe(engine.Transmit()), "RC READ_REQ@100");
  peer.is_up = true;
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 0, 8, IBV_SEND_SIGNALED | IBV_SEND_FENCE), 0);
  EXPECT_EQ(Describe(engine.Transmit()), "");
  EXPECT_EQ(Direct(), 0u);
  engine.Inject(Opcode::kRcReadResponseOnly, 0x100, 8, 0x5a);
  EXPECT_EQ(Describe(engine.Transmit()), "");
  EXPECT_EQ(Completions(), "1:0 2:0");
  EXPECT_EQ(Direct(), 1u);
  EXPECT_EQ(peer.memory[0], std::byte{0x5a});
}

TEST_F(DirectRequests, BudgetAndResetInTheMiddle) {
  engine.memory.resize(1 << 20);
  Connect();
  for (int i = 0; i < 5; ++i) ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 0, 8), 0);
  testing::PacketList sink;
  EXPECT_TRUE(engine.qp->PollTransmit(sink, engine.now, 3));
  EXPECT_EQ(Direct(), 3u);
  EXPECT_FALSE(engine.qp->PollTransmit(sink, engine.now, 3));
  ASSERT_EQ(engine.Post(IBV_WR_RDMA_WRITE, 0, 1 << 20), 0);
  EXPECT_TRUE(engine.qp->PollTransmit(sink, engine.now, 3));
  engine.qp->ToError(engine.now);
  EXPECT_EQ(Completions(), "1:0 2:0 3:0 4:0 5:0 6:5");
}

}  // namespace
}  // namespace sumac::soft_nic
