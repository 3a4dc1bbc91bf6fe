// The soft NIC through the verbs API, between two processes on loopback: latency of a small WRITE
// and SEND, both ends polling; a WRITE to a target that makes no verbs call; both ends sleeping in
// between; bandwidth of WRITEs by size.
//
// The peer is a forked child that plays the other role, one for each benchmark.
#include <benchmark/benchmark.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <vector>

#include "verbs/completion_queue.h"
#include "verbs/device.h"
#include "verbs/memory_region.h"
#include "verbs/protection_domain.h"
#include "verbs/queue_pair.h"

namespace sumac::verbs {
namespace {

constexpr size_t kMemoryBytes = 16 << 20;
constexpr int kAccess = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
                        IBV_ACCESS_REMOTE_ATOMIC;

void Require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "verbs_benchmark: %s\n", what);
  std::_Exit(1);
}

struct Record {
  uint32_t qpn;
  uint32_t rkey;
  uint64_t addr;
  ibv_gid gid;
};

class End {
 public:
  explicit End(int fd) : memory_(kMemoryBytes) {
    device_ = *Device::Open("soft0");
    auto pd = *ProtectionDomain::Create(device_);
    channel = *CompletionChannel::Create(device_);
    cq = *CompletionQueue::Create(device_, 4096, channel);
    qp = *QueuePair::Create(pd, cq, cq, {});
    region_ = *MemoryRegion::Register(pd, memory_.data(), memory_.size(), kAccess);
    const Record mine{qp->qpn(), region_->rkey(), reinterpret_cast<uint64_t>(memory_.data()),
                      device_->QueryGids(1)->front().gid};
    Require(write(fd, &mine, sizeof(mine)) == sizeof(mine), "exchange");
    Require(read(fd, &peer_, sizeof(peer_)) == sizeof(peer_), "exchange");
    ConnectionOptions options;
    options.path_mtu = IBV_MTU_4096;
    options.access = kAccess;
    options.remote_qpn = peer_.qpn;
    options.remote_gid = peer_.gid;
    Require(qp->ToInit(options).ok(), "INIT");
    for (int i = 0; i < 64; ++i) PostReceive();
    Require(qp->ToReadyToReceive(options).ok(), "RTR");
    Require(qp->ToReadyToSend(options).ok(), "RTS");
    char ready = 1;
    Require(write(fd, &ready, 1) == 1 && read(fd, &ready, 1) == 1, "barrier");
  }

  void Post(ibv_wr_opcode opcode, size_t bytes, unsigned flags = IBV_SEND_SIGNALED) {
    ibv_sge sge{reinterpret_cast<uint64_t>(memory_.data()), static_cast<uint32_t>(bytes),
                region_->lkey()};
    ibv_send_wr wr{};
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.opcode = opcode;
    wr.send_flags = flags;
    wr.wr.rdma.remote_addr = peer_.addr;
    wr.wr.rdma.rkey = peer_.rkey;
    Require(qp->PostSend(wr) == 0, "post");
  }
  void PostReceive() {
    ibv_sge sge{reinterpret_cast<uint64_t>(memory_.data()), 4096, region_->lkey()};
    ibv_recv_wr wr{.wr_id = 0, .next = nullptr, .sg_list = &sge, .num_sge = 1};
    Require(qp->PostReceive(wr) == 0, "post receive");
  }
  // Polls until a completion of this kind has come.
  void Await(ibv_wc_opcode opcode, bool sleep) {
    for (;;) {
      if (sleep) Require(cq->Arm().ok(), "arm");
      ibv_wc wc{};
      while (cq->Poll({&wc, 1}) == 1) {
        Require(wc.status == IBV_WC_SUCCESS, "completion");
        if (wc.opcode == opcode) return;
      }
      if (sleep) Require(*channel->Wait(absl::Seconds(30)), "wait");
    }
  }

  std::shared_ptr<CompletionChannel> channel;
  std::shared_ptr<CompletionQueue> cq;
  std::unique_ptr<QueuePair> qp;

 private:
  std::vector<uint8_t> memory_;
  std::shared_ptr<Device> device_;
  std::unique_ptr<MemoryRegion> region_;
  Record peer_{};
};

// A child that is the other end, for the length of a scope.
class Peer {
 public:
  explicit Peer(const std::function<void(End&)>& play) {
    int fds[2];
    Require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0, "socketpair");
    pid_ = fork();
    Require(pid_ >= 0, "fork");
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      close(fds[0]);
      End end(fds[1]);
      play(end);
      std::_Exit(0);
    }
    close(fds[1]);
    fd_ = fds[0];
  }
  ~Peer() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    close(fd_);
  }
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;
  int fd() const { return fd_; }

 private:
  pid_t pid_ = -1;
  int fd_ = -1;
};

void Sleepless(End&) {
  for (;;) pause();
}

// A round trip; the reported time is a whole one.
void BM_SendPingPong(benchmark::State& state) {
  const bool sleep = state.range(0) != 0;
  const Peer peer([sleep](End& end) {
    for (;;) {
      end.Await(IBV_WC_RECV, sleep);
      end.PostReceive();
      end.Post(IBV_WR_SEND, 8);
    }
  });
  End end(peer.fd());
  for (auto unused : state) {
    end.Post(IBV_WR_SEND, 8);
    end.Await(IBV_WC_RECV, sleep);
    end.PostReceive();
  }
  state.SetLabel(sleep ? "both sleep in between" : "both poll");
}
BENCHMARK(BM_SendPingPong)->Arg(0)->Arg(1)->UseRealTime()->Unit(benchmark::kMicrosecond);

// A WRITE until its acknowledgement.
void BM_WriteToPassiveTarget(benchmark::State& state) {
  const Peer peer(Sleepless);
  End end(peer.fd());
  for (auto unused : state) {
    end.Post(IBV_WR_RDMA_WRITE, 8);
    end.Await(IBV_WC_RDMA_WRITE, false);
  }
  state.SetLabel("the target makes no verbs call");
}
BENCHMARK(BM_WriteToPassiveTarget)->UseRealTime()->Unit(benchmark::kMicrosecond);

void BM_WriteToPollingTarget(benchmark::State& state) {
  const Peer peer([](End& end) { end.Await(IBV_WC_RECV, false); });
  End end(peer.fd());
  for (auto unused : state) {
    end.Post(IBV_WR_RDMA_WRITE, 8);
    end.Await(IBV_WC_RDMA_WRITE, false);
  }
}
BENCHMARK(BM_WriteToPollingTarget)->UseRealTime()->Unit(benchmark::kMicrosecond);

void BM_WriteBandwidth(benchmark::State& state) {
  const auto bytes = static_cast<size_t>(state.range(0));
  const Peer peer([](End& end) { end.Await(IBV_WC_RECV, false); });
  End end(peer.fd());
  constexpr int kWindow = 16;
  for (auto unused : state) {
    for (int i = 0; i < kWindow; ++i) {
      end.Post(IBV_WR_RDMA_WRITE, bytes, i == kWindow - 1 ? IBV_SEND_SIGNALED : 0);
    }
    end.Await(IBV_WC_RDMA_WRITE, false);
  }
  state.SetBytesProcessed(state.iterations() * kWindow * state.range(0));
}
BENCHMARK(BM_WriteBandwidth)
    ->RangeMultiplier(8)
    ->Range(64, 1 << 21)
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

// A poll that finds nothing: what a spinning program pays.
void BM_EmptyPoll(benchmark::State& state) {
  const Peer peer(Sleepless);
  End end(peer.fd());
  ibv_wc wc{};
  for (auto unused : state) benchmark::DoNotOptimize(end.cq->Poll({&wc, 1}));
}
BENCHMARK(BM_EmptyPoll);

}  // namespace
}  // namespace sumac::verbs
