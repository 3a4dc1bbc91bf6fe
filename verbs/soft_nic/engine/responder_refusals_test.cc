// What a responder must refuse: the right NAK, no byte changed, and the connection's end.
#include <gtest/gtest.h>

#include "verbs/soft_nic/engine/responder.h"
#include "verbs/soft_nic/engine/responder_testing.h"

namespace sumac::soft_nic {
namespace {

TEST_F(ResponderTest, RefusedAccessChangesNoByte) {
  struct Refusal {
    const char* name;
    int region_access;
    uint32_t key_offset;  // added to the right key
    size_t offset;
    Opcode opcode;
    uint32_t length;
    size_t payload;
  };
  const size_t end = 64 << 10;
  const Refusal cases[] = {
      {"bad key", testing::kAllAccess, 1, 0, Opcode::kRcWriteOnly, 64, 64},
      {"past the end", testing::kAllAccess, 0, end - 32, Opcode::kRcWriteOnly, 64, 64},
      {"multi-packet, its end is past the end", testing::kAllAccess, 0, end - 2000,
       Opcode::kRcWriteFirst, 3000, 1024},
      {"before the start", testing::kAllAccess, 0, ~size_t{0}, Opcode::kRcWriteOnly, 64, 64},
      {"no write right", IBV_ACCESS_REMOTE_READ, 0, 0, Opcode::kRcWriteOnly, 64, 64},
      {"no read right", IBV_ACCESS_REMOTE_WRITE, 0, 0, Opcode::kRcReadRequest, 64, 0},
      {"read past the end", testing::kAllAccess, 0, end - 32, Opcode::kRcReadRequest, 64, 0},
      {"no atomic right", IBV_ACCESS_REMOTE_WRITE, 0, 0, Opcode::kRcFetchAdd, 0, 0},
      {"atomic past the end", testing::kAllAccess, 0, end, Opcode::kRcCompareSwap, 0, 0},
  };
  for (const Refusal& test : cases) {
    SCOPED_TRACE(test.name);
    Engine fresh;
    fresh.Connect();
    const std::vector<std::byte> before = fresh.memory;
    fresh.key = fresh.keys.Add(fresh.memory.data(), end, test.region_access) + test.key_offset;
    fresh.InjectReth(test.opcode, 0x500, test.offset, test.length, test.payload);
    const std::deque<Packet> sent = fresh.Transmit();
    ASSERT_EQ(sent.size(), 1u);
    EXPECT_EQ(sent[0].header.syndrome, kSyndromeNakRemoteAccess);
    EXPECT_EQ(sent[0].header.psn, 0x500u);
    EXPECT_EQ(fresh.memory, before);
    EXPECT_EQ(fresh.qp->state(), IBV_QPS_ERR);
    EXPECT_EQ(fresh.qp->counters().access_naks_sent, 1u);
  }
}

TEST_F(ResponderTest, SendThatInvalidatesAWrongKeyPlacesNothing) {
  engine.Connect();
  ASSERT_EQ(engine.PostReceive(0, 64), 0);
  PacketHeader header;
  header.opcode = Opcode::kRcSendOnlyWithInvalidate;
  header.psn = 0x500;
  header.ack_request = true;
  header.rkey = engine.key + 1;
  engine.Inject(header, 8);
  ExpectAnswer(0x500, kSyndromeNakRemoteAccess, 0);
  ExpectUntouched();
  ASSERT_EQ(engine.receives.list.size(), 1u);
  EXPECT_EQ(engine.receives.list[0].status, IBV_WC_REM_ACCESS_ERR);
}

TEST_F(ResponderTest, QueuePairRightsAreAskedFirst) {
  for (const Opcode opcode : {Opcode::kRcWriteOnly, Opcode::kRcReadRequest, Opcode::kRcFetchAdd,
                              Opcode::kRcCompareSwap}) {
    Engine fresh;
    fresh.receive.access_flags = IBV_ACCESS_LOCAL_WRITE;
    fresh.Connect();
    fresh.InjectReth(opcode, 0x500, 0, 0);
    const std::deque<Packet> sent = fresh.Transmit();
    ASSERT_EQ(sent.size(), 1u);
    EXPECT_EQ(sent[0].header.syndrome, kSyndromeNakInvalidRequest);
  }
}

TEST_F(ResponderTest, NoBytesNeedNoKey) {
  engine.Connect();
  engine.key = 0xbad;
  engine.InjectReth(Opcode::kRcWriteOnly, 0x500, 0, 0);
  engine.InjectReth(Opcode::kRcReadRequest, 0x501, 0, 0);
  EXPECT_EQ(Describe(engine.Transmit()), "RC READ_RESP_ONLY@501, RC ACK@501");
  EXPECT_EQ(engine.qp->state(), IBV_QPS_RTS);
}

TEST_F(ResponderTest, MemoryDeregisteredInsideAWrite) {
  engine.Connect();
  engine.InjectReth(Opcode::kRcWriteFirst, 0x500, 0, 2048, 1024);
  engine.keys.Remove(engine.key);
  engine.Inject(Opcode::kRcWriteLast, 0x501, 1024);
  ExpectAnswer(0x501, kSyndromeNakRemoteAccess, 0);
  EXPECT_EQ(engine.memory[1024], static_cast<std::byte>(1024 * 7 + 3));
}

TEST_F(ResponderTest, MemoryDeregisteredInsideAReadResponse) {
  engine.Connect();
  engine.InjectReth(Opcode::kRcReadRequest, 0x500, 0, 3000);
  EXPECT_EQ(engine.Transmit(1).size(), 1u);
  engine.keys.Remove(engine.key);
  ExpectAnswer(0x501, kSyndromeNakRemoteAccess, 1);
  EXPECT_EQ(engine.qp->state(), IBV_QPS_ERR);
}

TEST_F(ResponderTest, AtomicsMustBeAligned) {
  engine.Connect();
  engine.InjectAtomic(Opcode::kRcFetchAdd, 0x500, 4, 1);
  ExpectAnswer(0x500, kSyndromeNakInvalidRequest, 0);
  ExpectUntouched();
}

TEST_F(ResponderTest, MoreReadsThanAgreed) {
  engine.receive.max_dest_rd_atomic = 2;
  engine.Connect();
  engine.InjectReth(Opcode::kRcReadRequest, 0x500, 0, 8);
  engine.InjectReth(Opcode::kRcReadRequest, 0x501, 0, 8);
  EXPECT_EQ(engine.qp->state(), IBV_QPS_RTS);
  engine.InjectAtomic(Opcode::kRcFetchAdd, 0x502, 8, 1);
  const std::deque<Packet> sent = engine.Transmit();
  EXPECT_EQ(Describe(sent), "RC READ_RESP_ONLY@500, RC READ_RESP_ONLY@501, RC ACK@502");
  EXPECT_EQ(sent.back().header.syndrome, kSyndromeNakInvalidRequest);
  EXPECT_EQ(engine.Word(8), Engine().Word(8));
}

TEST_F(ResponderTest, FatalNakIsRepeatedWhenAskedAgain) {
  engine.Connect();
  engine.InjectReth(Opcode::kRcWriteOnly, 0x500, 1 << 20, 64, 64);
  ExpectAnswer(0x500, kSyndromeNakRemoteAccess, 0);
  EXPECT_TRUE(engine.Transmit().empty());
  engine.InjectReth(Opcode::kRcWriteOnly, 0x500, 0, 64, 64);  // even if it would be fine now
  ExpectAnswer(0x500, kSyndromeNakRemoteAccess, 0);
  ExpectUntouched();
  EXPECT_EQ(engine.qp->counters().access_naks_sent, 1u);
}

}  // namespace
}  // namespace sumac::soft_nic
