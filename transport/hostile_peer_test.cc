// A peer that connects properly and then sends anything at all: its endpoint breaks, nothing else.

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "transport/address_record.h"
#include "transport/message_header.h"
#include "transport/testing/fake_bootstrap.h"
#include "transport/testing/ranks_on_threads.h"
#include "transport/worker.h"
#include "verbs/completion_queue.h"
#include "verbs/device_choice.h"
#include "verbs/memory_region.h"
#include "verbs/queue_pair.h"

namespace sumac::transport {
namespace {

// Rank 1, by hand: a queue pair that speaks verbs to the worker of rank 0.
class Peer {
 public:
  explicit Peer(Bootstrap& bootstrap) : bootstrap_(bootstrap) {
    device_ = *verbs::Device::Open(test_support::TestDevice(1));
    pd_ = *verbs::ProtectionDomain::Create(device_);
    cq_ = *verbs::CompletionQueue::Create(device_, 1024, nullptr);
    qp_ = *verbs::QueuePair::Create(pd_, cq_, cq_, {});
    region_ = *verbs::MemoryRegion::Register(pd_, memory_.data(), memory_.size(),
                                             IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ);
    connection_.path_mtu = IBV_MTU_4096;
    connection_.access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ;
    gid_ = verbs::ChooseGid(*device_->QueryGids(1), -1)->entry;
    connection_.gid_index = gid_.index;
    EXPECT_TRUE(qp_->ToInit(connection_).ok());
    for (size_t i = 0; i < 64; ++i) {
      ibv_sge sge{reinterpret_cast<uint64_t>(memory_.data()), 4200, region_->lkey()};
      ibv_recv_wr request{};
      request.sg_list = &sge;
      request.num_sge = 1;
      EXPECT_EQ(qp_->PostReceive(request), 0);
    }
  }

  AddressRecord Record() const {
    AddressRecord record;
    record.qpn = qp_->qpn();
    record.gid = gid_.gid;
    record.mtu_bytes = 4096;
    record.read_depth = 16;
    record.receive_depth = 16;
    record.eager_bytes_max = 4096;
    record.host = "here";
    record.pid = 1;
    return record;
  }

  void Publish(const std::string& address) {
    ASSERT_TRUE(bootstrap_.Publish("worker/0/1/0/address", address, absl::Seconds(5)).ok());
  }

  void Connect() {
    Publish(ToText(Record()));
    ASSERT_TRUE(bootstrap_.Notify(0, "0", absl::Seconds(5)).ok());
    const auto text = bootstrap_.Lookup("worker/0/0/1/address", absl::Seconds(20));
    ASSERT_TRUE(text.ok()) << text.status();
    const auto remote = ParseAddressRecord(*text);
    ASSERT_TRUE(remote.ok()) << remote.status();
    connection_.remote_qpn = remote->qpn;
    connection_.remote_psn = remote->psn;
    connection_.remote_gid = remote->gid;
    ASSERT_TRUE(qp_->ToReadyToReceive(connection_).ok());
    ASSERT_TRUE(qp_->ToReadyToSend(connection_).ok());
    ASSERT_TRUE(bootstrap_.Publish("worker/0/1/0/ready", "1", absl::Seconds(5)).ok());
    ASSERT_TRUE(bootstrap_.Lookup("worker/0/0/1/ready", absl::Seconds(20)).ok());
  }

  void Send(const MessageHeader& header, size_t body = 0, size_t cut = 0) {
    std::byte* const at = memory_.data() + 8192;
    Encode(header, at);
    SendBytes(header.bytes() + body - cut);
  }
  void SendBytes(size_t length) {
    ibv_sge sge{reinterpret_cast<uint64_t>(memory_.data() + 8192), static_cast<uint32_t>(length),
                region_->lkey()};
    ibv_send_wr request{};
    request.opcode = IBV_WR_SEND;
    request.sg_list = &sge;
    request.num_sge = 1;
    request.send_flags = IBV_SEND_SIGNALED;
    EXPECT_EQ(qp_->PostSend(request), 0);
  }
  uint64_t address() const { return reinterpret_cast<uint64_t>(memory_.data()); }
  uint32_t rkey() const { return region_->rkey(); }

 private:
  Bootstrap& bootstrap_;
  std::vector<std::byte> memory_ = std::vector<std::byte>(1 << 16);
  std::shared_ptr<verbs::Device> device_;
  std::shared_ptr<verbs::ProtectionDomain> pd_;
  std::shared_ptr<verbs::CompletionQueue> cq_;
  std::unique_ptr<verbs::MemoryRegion> region_;
  std::unique_ptr<verbs::QueuePair> qp_;
  verbs::GidEntry gid_;
  verbs::ConnectionOptions connection_;
};

// What rank 0's endpoint says after `attack`, which must break it.
absl::Status After(const std::function<void(Peer&)>& attack) {
  FakeJob job(2);
  const auto worker = Worker::Create(job.rank(0), TestOptions());
  if (!worker.ok()) return worker.status();
  Peer peer(job.rank(1));
  peer.Connect();
  const auto endpoint = (*worker)->Connect(1, Soon());
  if (!endpoint.ok()) return endpoint.status();
  attack(peer);
  EXPECT_TRUE((*worker)->Wait([&] { return !(*endpoint)->status().ok(); }, Soon()).ok());
  EXPECT_FALSE(job.rank(0).failed());  // a liar is not dead
  return (*endpoint)->status();
}

void ExpectDataLoss(const char* what, const std::function<void(Peer&)>& attack) {
  const absl::Status status = After(attack);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << what << ": " << status;
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("rank 1")) << what;
}

TEST(HostilePeer, NonsenseIsDataLoss) {
  ExpectDataLoss("a single byte", [](Peer& peer) { peer.SendBytes(1); });
  ExpectDataLoss("no known kind", [](Peer& peer) { peer.SendBytes(4000); });
  ExpectDataLoss("a cut header", [](Peer& peer) { peer.Send({}, 0, 1); });
  ExpectDataLoss("a length that is not so", [](Peer& peer) {
    MessageHeader header;
    header.length = 1000;
    peer.Send(header, 10);
  });
  ExpectDataLoss("an id out of order", [](Peer& peer) {
    MessageHeader header;
    header.id = 1;
    peer.Send(header);
  });
  ExpectDataLoss("credits that nobody used", [](Peer& peer) {
    MessageHeader header;
    header.kind = MessageKind::kCredit;
    header.credits = 1;
    peer.Send(header);
  });
  ExpectDataLoss("a confirmation of nothing", [](Peer& peer) {
    MessageHeader header;
    header.kind = MessageKind::kFinish;
    peer.Send(header);
  });
}

TEST(HostilePeer, AMessageLongerThanAReceiveBreaksTheConnection) {
  const absl::Status status = After([](Peer& peer) { peer.SendBytes(5000); });
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("rank 1"));
}

TEST(HostilePeer, AnAnnouncementOfMemoryThatIsNotThereFailsTheReceive) {
  for (const bool wrong_key : {false, true}) {
    FakeJob job(2);
    const auto worker = Worker::Create(job.rank(0), TestOptions());
    ASSERT_TRUE(worker.ok());
    Peer peer(job.rank(1));
    peer.Connect();
    Endpoint& endpoint = **(*worker)->Connect(1, Soon());
    MessageHeader header;
    header.kind = MessageKind::kRendezvous;
    header.length = wrong_key ? 5000 : 1 << 17;  // or more than is registered
    header.address = peer.address();
    header.rkey = peer.rkey() ^ (wrong_key ? 0x5a5a : 0);
    peer.Send(header);
    std::vector<std::byte> buffer(1 << 20);
    const auto got = endpoint.Receive(buffer, Soon());
    EXPECT_EQ(got.status().code(), absl::StatusCode::kPermissionDenied) << got.status();
    EXPECT_EQ(endpoint.status(), got.status());
  }
}

TEST(HostilePeer, ALengthBeyondAllMemoryIsJustTooLong) {
  FakeJob job(2);
  const auto worker = Worker::Create(job.rank(0), TestOptions());
  ASSERT_TRUE(worker.ok());
  Peer peer(job.rank(1));
  peer.Connect();
  Endpoint& endpoint = **(*worker)->Connect(1, Soon());
  MessageHeader header;
  header.kind = MessageKind::kRendezvous;
  header.length = ~uint64_t{0};
  peer.Send(header);
  std::array<std::byte, 64> buffer;
  EXPECT_EQ(endpoint.Receive(buffer, Soon()).status().code(), absl::StatusCode::kOutOfRange);
}

TEST(HostilePeer, AnAddressRecordOfNonsenseIsRefusedByConnect) {
  FakeJob job(2);
  const auto worker = Worker::Create(job.rank(0), TestOptions());
  ASSERT_TRUE(worker.ok());
  Peer peer(job.rank(1));
  peer.Publish("qpn=1 psn=2");
  const auto endpoint = (*worker)->Connect(1, Soon());
  EXPECT_EQ(endpoint.status().code(), absl::StatusCode::kInvalidArgument) << endpoint.status();
  EXPECT_THAT(std::string(endpoint.status().message()), testing::HasSubstr("rank 1"));
}

}  // namespace
}  // namespace sumac::transport
