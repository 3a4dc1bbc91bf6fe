// One end of a connection over the verbs API with a registered buffer, for tests of the soft NIC.
//
// Tests only: GoogleTest checks inside, and everything on the test's thread.
#pragma once

#include <endian.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "verbs/completion_queue.h"
#include "verbs/device.h"
#include "verbs/memory_region.h"
#include "verbs/protection_domain.h"
#include "verbs/queue_pair.h"

namespace sumac::verbs {

inline constexpr int kAllAccess = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE |
                                  IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC;

// While it lives, devices that are opened exchange packets only (SUMAC_SOFT_LOCAL=0): for tests of
// what packets do.
class PacketsOnly {
 public:
  PacketsOnly() {
    if (const char* value = getenv(kName)) before_ = value;
    setenv(kName, "0", 1);
  }
  ~PacketsOnly() { before_ ? setenv(kName, before_->c_str(), 1) : unsetenv(kName); }
  PacketsOnly(const PacketsOnly&) = delete;
  PacketsOnly& operator=(const PacketsOnly&) = delete;

 private:
  static constexpr const char* kName = "SUMAC_SOFT_LOCAL";
  std::optional<std::string> before_;
};

// One end of a connection, with a registered buffer.
struct End {
  explicit End(size_t bytes, const QueuePairOptions& options = {}, int cq_entries = 1024)
      : memory(bytes) {
    auto opened = Device::Open("soft0");
    EXPECT_TRUE(opened.ok()) << opened.status();
    device = *opened;
    pd = *ProtectionDomain::Create(device);
    channel = *CompletionChannel::Create(device);
    cq = *CompletionQueue::Create(device, cq_entries, channel);
    auto made = QueuePair::Create(pd, cq, cq, options);
    EXPECT_TRUE(made.ok()) << made.status();
    qp = *std::move(made);
    region = *MemoryRegion::Register(pd, memory.data(), memory.size(), kAllAccess);
  }

  ibv_gid gid() const { return device->QueryGids(1)->front().gid; }

  ibv_sge Sge(size_t offset, size_t length) const {
    return {reinterpret_cast<uint64_t>(memory.data()) + offset, static_cast<uint32_t>(length),
            region->lkey()};
  }

  int Post(ibv_wr_opcode opcode, const ibv_sge& sge, uint64_t remote_addr = 0, uint32_t rkey = 0,
           uint64_t wr_id = 1) {
    ibv_sge local = sge;
    ibv_send_wr wr{};
    wr.wr_id = wr_id;
    wr.sg_list = &local;
    wr.num_sge = 1;
    wr.opcode = opcode;
    wr.send_flags = IBV_SEND_SIGNALED;
    wr.imm_data = htobe32(0x11223344);
    if (opcode == IBV_WR_ATOMIC_FETCH_AND_ADD || opcode == IBV_WR_ATOMIC_CMP_AND_SWP) {
      wr.wr.atomic.remote_addr = remote_addr;
      wr.wr.atomic.rkey = rkey;
      wr.wr.atomic.compare_add = 5;
      wr.wr.atomic.swap = 77;
    } else {
      wr.wr.rdma.remote_addr = remote_addr;
      wr.wr.rdma.rkey = rkey;
    }
    return qp->PostSend(wr);
  }

  void PostReceive(size_t offset, size_t length, uint64_t wr_id = 2) {
    ibv_sge local = Sge(offset, length);
    ibv_recv_wr wr{};
    wr.wr_id = wr_id;
    wr.sg_list = &local;
    wr.num_sge = 1;
    ASSERT_EQ(qp->PostReceive(wr), 0);
  }

  // The next completion; a failed one past the deadline.
  ibv_wc Next(std::chrono::seconds patience = std::chrono::seconds(10)) {
    ibv_wc wc{};
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (std::chrono::steady_clock::now() < deadline) {
      if (cq->Poll({&wc, 1}) == 1) return wc;
    }
    ADD_FAILURE() << "no completion in " << patience.count() << " seconds";
    wc.status = IBV_WC_GENERAL_ERR;
    return wc;
  }

  uint64_t Address(size_t offset = 0) const {
    return reinterpret_cast<uint64_t>(memory.data()) + offset;
  }

  std::vector<uint8_t> memory;
  std::shared_ptr<Device> device;
  std::shared_ptr<ProtectionDomain> pd;
  std::shared_ptr<CompletionChannel> channel;
  std::shared_ptr<CompletionQueue> cq;
  std::unique_ptr<QueuePair> qp;
  std::unique_ptr<MemoryRegion> region;
};

inline ConnectionOptions To(const End& peer, ibv_mtu mtu = IBV_MTU_4096) {
  ConnectionOptions connection;
  connection.path_mtu = mtu;
  connection.access = kAllAccess;
  connection.remote_qpn = peer.qp->qpn();
  connection.remote_gid = peer.gid();
  connection.timeout = 17;  // half a second: sanitizers may hold a thread up for long
  connection.local_psn = 0xfffff0;
  connection.remote_psn = 0xfffff0;
  return connection;
}

inline void Connect(End& a, End& b, ConnectionOptions to_b, ConnectionOptions to_a) {
  for (auto [end, connection] : {std::pair{&a, &to_b}, std::pair{&b, &to_a}}) {
    ASSERT_TRUE(end->qp->ToInit(*connection).ok());
    const auto receive = end->qp->ToReadyToReceive(*connection);
    ASSERT_TRUE(receive.ok()) << receive;
    const auto send = end->qp->ToReadyToSend(*connection);
    ASSERT_TRUE(send.ok()) << send;
  }
}
inline void Connect(End& a, End& b, ibv_mtu mtu = IBV_MTU_4096) {
  Connect(a, b, To(b, mtu), To(a, mtu));
}

}  // namespace sumac::verbs
