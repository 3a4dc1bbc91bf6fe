// Connecting by rdma_cm: the whole handshake with queue pairs of the soft NIC and a kernel of the
// test's own, and what it says of each way to fail.

#include "transport/rdma_cm/setup.h"

#include <array>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "transport/testing/fake_rdma_cm.h"
#include "verbs/completion_queue.h"
#include "verbs/device_choice.h"

namespace sumac::transport::rdma_cm {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// One rank: a listening setup and a queue pair in INIT.
struct Side {
  Side(int own_rank, const LocalPath& local_path, const Calls& calls = FakeRdmaCm::Calls())
      : rank(own_rank), path(local_path) {
    auto made = Setup::Create(calls, rank, 2, path);
    EXPECT_TRUE(made.ok()) << made.status();
    setup = *std::move(made);
    pd = *verbs::ProtectionDomain::Create(path.device);
    cq = *verbs::CompletionQueue::Create(path.device, 16, nullptr);
    qp = *verbs::QueuePair::Create(pd, cq, cq, {});
    EXPECT_TRUE(qp->ToInit(path.connection).ok());
    record.qpn = qp->qpn();
    record.gid = path.gid.gid;
    setup->Announce(1 - rank, record);
  }
  absl::Status BringUp(const Side& other, absl::Duration patience = absl::Seconds(20)) {
    return setup->BringUp(1 - rank, *qp, path.connection, other.record,
                          {absl::Now() + patience, interrupted});
  }
  ibv_qp_state state() const { return qp->Query(IBV_QP_STATE)->qp_state; }

  const int rank;
  const LocalPath path;
  std::function<absl::Status()> interrupted = [] { return absl::OkStatus(); };
  std::shared_ptr<verbs::ProtectionDomain> pd;
  std::shared_ptr<verbs::CompletionQueue> cq;
  std::unique_ptr<verbs::QueuePair> qp;
  std::unique_ptr<ConnectionSetup> setup;
  AddressRecord record;
};

class RdmaCmTest : public testing::Test {
 protected:
  RdmaCmTest() {
    FakeRdmaCm::Instance().Reset();
    path_.device = *verbs::Device::Open("soft0");
    path_.gid = path_.device->QueryGids(1)->front();
    path_.connection.path_mtu = IBV_MTU_1024;
  }
  ~RdmaCmTest() override { EXPECT_EQ(FakeRdmaCm::Instance().identifiers, 0u); }

  std::pair<absl::Status, absl::Status> BringUpBoth(Side& low, Side& high) {
    absl::Status of_high;
    std::thread other([&] { of_high = high.BringUp(low); });
    const absl::Status of_low = low.BringUp(high);
    other.join();
    return {of_low, of_high};
  }
  void ExpectConnected(Side& low, Side& high) {
    const auto [of_low, of_high] = BringUpBoth(low, high);
    ASSERT_TRUE(of_low.ok()) << of_low;
    ASSERT_TRUE(of_high.ok()) << of_high;
    EXPECT_EQ(low.state(), IBV_QPS_RTS);
    EXPECT_EQ(high.state(), IBV_QPS_RTS);
  }

  LocalPath path_;
};

// A message of no bytes arrives.
void Carry(Side& from, Side& to) {
  ibv_recv_wr receive{};
  ASSERT_EQ(to.qp->PostReceive(receive), 0);
  ibv_send_wr send{};
  send.opcode = IBV_WR_SEND;
  send.send_flags = IBV_SEND_SIGNALED;
  ASSERT_EQ(from.qp->PostSend(send), 0);
  for (Side* side : {&from, &to}) {
    std::array<ibv_wc, 1> done{};
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    while (side->cq->Poll(done) == 0 && absl::Now() < deadline) std::this_thread::yield();
    EXPECT_EQ(done[0].status, IBV_WC_SUCCESS);
  }
}

TEST_F(RdmaCmTest, TheLowerRankConnectsTheOtherAcceptsAndBytesFlow) {
  path_.connection.timeout = 17;
  path_.connection.retry_count = 3;
  path_.connection.traffic_class = 106;
  {
    Side low(0, path_);
    Side high(1, path_);
    EXPECT_NE(low.record.cm_port, 0);
    EXPECT_NE(low.record.cm_key, 0u);
    AddressRecord again;
    low.setup->Announce(1, again);
    EXPECT_EQ(again.cm_key, low.record.cm_key);
    ExpectConnected(low, high);
    const auto attr = low.qp->Query(IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_AV);
    EXPECT_EQ(attr->timeout, 17);
    EXPECT_EQ(attr->retry_cnt, 3);
    EXPECT_EQ(attr->ah_attr.grh.traffic_class, 106);
    Carry(low, high);
    Carry(high, low);
  }
  EXPECT_EQ(FakeRdmaCm::Instance().disconnects, 2);
}

TEST_F(RdmaCmTest, WhoRunsOutOfTimeGoesOnLater) {
  Side low(0, path_);
  Side high(1, path_);
  const auto early = high.BringUp(low, absl::Milliseconds(20));
  EXPECT_EQ(early.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(early.message()), AllOf(HasSubstr("rank 0 ("), HasSubstr("request")));
  for (int i = 0; i < 2; ++i) {
    const auto unanswered = low.BringUp(high, absl::Milliseconds(20));
    EXPECT_EQ(unanswered.code(), absl::StatusCode::kDeadlineExceeded) << unanswered;
    EXPECT_THAT(std::string(unanswered.message()), HasSubstr("rank 1 ("));
  }
  ExpectConnected(low, high);
}

TEST_F(RdmaCmTest, AWaitEndsWhenItIsInterrupted) {
  Side low(0, path_);
  Side high(1, path_);
  low.interrupted = high.interrupted = [] { return absl::CancelledError("going away"); };
  EXPECT_EQ(high.BringUp(low).code(), absl::StatusCode::kCancelled);  // before a request is there
  EXPECT_EQ(low.BringUp(high).code(), absl::StatusCode::kCancelled);
}

TEST_F(RdmaCmTest, WhoDoesNotKnowTheKeyIsRefusedAndDisturbsNobody) {
  Side low(0, path_);
  Side high(1, path_);
  AddressRecord& record = high.record;
  record.cm_key ^= 1;
  const auto refused = low.BringUp(high);
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition) << refused;
  EXPECT_THAT(std::string(refused.message()),
              AllOf(HasSubstr("rank 1 ("), HasSubstr("RDMA_CM_EVENT_REJECTED, status 28")));
  EXPECT_EQ(low.state(), IBV_QPS_INIT);
  record.cm_key ^= 1;
  ExpectConnected(low, high);
}

TEST_F(RdmaCmTest, AnAnswerWithoutOurKeyIsNoConnection) {
  Side low(0, path_);
  Side high(1, path_);
  FakeRdmaCm::Instance().corrupt_answers = true;
  const auto [of_low, of_high] = BringUpBoth(low, high);
  EXPECT_EQ(of_low.code(), absl::StatusCode::kFailedPrecondition) << of_low;
  EXPECT_THAT(std::string(of_low.message()), HasSubstr("not as that rank"));
  EXPECT_EQ(low.state(), IBV_QPS_INIT);
}

TEST_F(RdmaCmTest, AFormerConnectionThatTheKernelStillHoldsIsWaitedOut) {
  Side low(0, path_);
  Side high(1, path_);
  FakeRdmaCm::Instance().stale_requests = 2;
  ExpectConnected(low, high);
  Side other(0, path_);
  FakeRdmaCm::Instance().stale_requests = 1 << 20;
  const auto late = other.BringUp(high, absl::Milliseconds(50));
  EXPECT_EQ(late.code(), absl::StatusCode::kDeadlineExceeded) << late;
  EXPECT_THAT(std::string(late.message()), HasSubstr("status 10"));
}

TEST_F(RdmaCmTest, EachFailureNamesRankAddressEventAndAdvice) {
  Side low(0, path_);
  Side high(1, path_);
  FakeRdmaCm& fake = FakeRdmaCm::Instance();
  const auto fails = [&](absl::StatusCode code, const char* event, const char* advice) {
    const auto status = low.BringUp(high);
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("rank 1 (127."), HasSubstr(event), HasSubstr(advice)));
    EXPECT_EQ(low.state(), IBV_QPS_INIT);
  };
  fake.address_result = RDMA_CM_EVENT_ADDR_ERROR;
  fails(absl::StatusCode::kUnavailable, "RDMA_CM_EVENT_ADDR_ERROR, status -110", "route");
  fake.address_result = RDMA_CM_EVENT_DEVICE_REMOVAL;
  fails(absl::StatusCode::kUnavailable, "RDMA_CM_EVENT_DEVICE_REMOVAL", "taken away");
  fake.address_result = RDMA_CM_EVENT_ADDR_RESOLVED;
  fake.route_result = RDMA_CM_EVENT_ROUTE_ERROR;
  fails(absl::StatusCode::kUnavailable, "RDMA_CM_EVENT_ROUTE_ERROR", "interface");
  fake.route_result = RDMA_CM_EVENT_UNREACHABLE;
  fails(absl::StatusCode::kUnavailable, "RDMA_CM_EVENT_UNREACHABLE", "4791");
  fake.route_result = RDMA_CM_EVENT_ROUTE_RESOLVED;
  const uint16_t port = std::exchange(high.record.cm_port, uint16_t{9});
  fails(absl::StatusCode::kFailedPrecondition, "status 8", "nobody listens");
  high.record.cm_port = port;
  ++high.record.qpn;
  std::thread other([&] { (void)high.BringUp(low); });
  fails(absl::StatusCode::kFailedPrecondition, "rdma_cm leads to QP 0x",
        "the address record to QP");
  other.join();
}

TEST_F(RdmaCmTest, APeerThatConnectsByTheExchangeIsNamed) {
  Side low(0, path_);
  Side high(1, path_);
  high.record.cm_port = 0;
  const auto status = low.BringUp(high);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("rank 1"), HasSubstr("SUMAC_CONNECT")));
  ExchangeSetup exchange;
  const auto reverse = exchange.BringUp(0, *high.qp, path_.connection, low.record,
                                        {absl::Now(), [] { return absl::OkStatus(); }});
  EXPECT_EQ(reverse.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(high.state(), IBV_QPS_INIT);
}

TEST_F(RdmaCmTest, WithoutAConnectionManagerTheErrorSaysWhatToLoad) {
  const auto refused = [&](absl::StatusCode code, const char* named) {
    const auto setup = Setup::Create(FakeRdmaCm::Calls(), 0, 2, path_);
    EXPECT_EQ(setup.status().code(), code) << setup.status();
    EXPECT_THAT(std::string(setup.status().message()), AllOf(HasSubstr("soft0"), HasSubstr(named)));
  };
  FakeRdmaCm& fake = FakeRdmaCm::Instance();
  fake.absent = true;
  refused(absl::StatusCode::kUnavailable, "/dev/infiniband/rdma_cm");
  fake.absent = false;
  fake.refuse_bind = ENODEV;
  refused(absl::StatusCode::kUnavailable, "rdma_bind_addr for 127.");
  fake.refuse_bind = EADDRNOTAVAIL;
  refused(absl::StatusCode::kUnavailable, "no network interface");
  fake.refuse_bind = EACCES;
  refused(absl::StatusCode::kPermissionDenied, "access");
}

TEST_F(RdmaCmTest, TheRealOneOfThisMachineAnswersInTime) {
  const absl::Time begun = absl::Now();
  const auto setup = Setup::Create(Librdmacm(), 0, 2, path_);
  EXPECT_LT(absl::Now() - begun, absl::Seconds(20));
  if (!setup.ok()) {
    EXPECT_EQ(setup.status().code(), absl::StatusCode::kUnavailable) << setup.status();
  }
}

TEST(SocketAddress, OfBothFamiliesWithTheScopeOfLinkLocalOnes) {
  ibv_gid gid{};
  gid.raw[10] = gid.raw[11] = 0xff;
  gid.raw[12] = 10;
  gid.raw[15] = 7;
  auto storage = SocketAddressOf(gid, 4711, 3);
  const auto& v4 = reinterpret_cast<const sockaddr_in&>(storage);
  EXPECT_EQ(v4.sin_family, AF_INET);
  EXPECT_EQ(ntohs(v4.sin_port), 4711);
  EXPECT_EQ(ntohl(v4.sin_addr.s_addr), 0x0a000007u);
  for (const uint8_t first : {0xfe, 0xfd}) {
    gid = {};
    gid.raw[0] = first;
    gid.raw[1] = 0x80;
    storage = SocketAddressOf(gid, 4711, 3);
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(storage);
    EXPECT_EQ(v6.sin6_family, AF_INET6);
    EXPECT_EQ(ntohs(v6.sin6_port), 4711);
    EXPECT_EQ(v6.sin6_scope_id, first == 0xfe ? 3u : 0u);
  }
}

}  // namespace
}  // namespace sumac::transport::rdma_cm
