// The soft NIC through the verbs API, between two processes on loopback: latency of a small WRITE
// and SEND, both ends polling; a WRITE to a target that makes no verbs call; both ends sleeping in
// between; bandwidth of WRITEs by size; one-sided requests beside memcpy; what an idle device uses.
// With SUMAC_SOFT_LOCAL=0 the first ones show what packets take.
//
// The peer is a forked child that plays the other role, one for each benchmark.
#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <memory>
#include <thread>

#include "verbs/completion_queue.h"
#include "verbs/device.h"
#include "verbs/memory_region.h"
#include "verbs/protection_domain.h"
#include "verbs/queue_pair.h"
#include "verbs/soft_nic/device/counters.h"

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

// In a file that can't shrink, so that peers on the same host may map it.
class SharedMemory {
 public:
  SharedMemory() {
    const int fd = memfd_create("verbs_benchmark", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    Require(ftruncate(fd, kMemoryBytes) == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) == 0,
            "memfd");
    void* const at =
        mmap(nullptr, kMemoryBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    Require(at != MAP_FAILED, "mmap");
    data_ = static_cast<uint8_t*>(at);
    // The descriptor stays open: by it the device finds the file.
  }
  uint8_t* data() { return data_; }
  size_t size() const { return kMemoryBytes; }

 private:
  uint8_t* data_ = nullptr;
};

class End {
 public:
  explicit End(int fd) {
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
  // Writes until it goes without packets; the peer may not be there at once.
  void AwaitDirect() {
    const auto direct = [this] {
      return soft_nic::ReadCounters(device_->context()).queue_pairs.direct_requests;
    };
    const auto before = direct();
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (direct() == before) {
      Require(std::chrono::steady_clock::now() < deadline, "no way without packets");
      Post(IBV_WR_RDMA_WRITE, 8);
      Await(IBV_WC_RDMA_WRITE, false);
    }
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
  SharedMemory memory_;
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

// One-sided requests in memory that the target shares: no packet where the devices are on one host.
void BM_DirectPut(benchmark::State& state) {
  const Peer peer(Sleepless);
  End end(peer.fd());
  end.AwaitDirect();
  for (auto unused : state) {
    end.Post(IBV_WR_RDMA_WRITE, 8);
    end.Await(IBV_WC_RDMA_WRITE, false);
  }
}
BENCHMARK(BM_DirectPut)->UseRealTime();

void BM_DirectBandwidth(benchmark::State& state) {
  const auto bytes = static_cast<size_t>(state.range(0));
  const auto opcode = state.range(1) != 0 ? IBV_WR_RDMA_READ : IBV_WR_RDMA_WRITE;
  const Peer peer(Sleepless);
  End end(peer.fd());
  end.AwaitDirect();
  for (auto unused : state) {
    end.Post(opcode, bytes);
    end.Await(opcode == IBV_WR_RDMA_READ ? IBV_WC_RDMA_READ : IBV_WC_RDMA_WRITE, false);
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_DirectBandwidth)
    ->ArgsProduct({{4 << 10, 64 << 10, 1 << 20}, {0, 1}})
    ->ArgNames({"bytes", "read"})
    ->UseRealTime();

// What the last is measured by: between memory of the same kinds.
void BM_Memcpy(benchmark::State& state) {
  const auto bytes = static_cast<size_t>(state.range(0));
  SharedMemory from, to;
  for (auto unused : state) {
    std::memcpy(to.data(), from.data(), bytes);
    benchmark::DoNotOptimize(to.data()[0]);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_Memcpy)->Arg(4 << 10)->Arg(64 << 10)->Arg(1 << 20)->UseRealTime();

// A poll that finds nothing: what a spinning program pays.
void BM_EmptyPoll(benchmark::State& state) {
  const Peer peer(Sleepless);
  End end(peer.fd());
  ibv_wc wc{};
  for (auto unused : state) benchmark::DoNotOptimize(end.cq->Poll({&wc, 1}));
}
BENCHMARK(BM_EmptyPoll);

// Connected, after some traffic, and nothing to do: the share of a processor that this process
// uses.
void BM_Idle(benchmark::State& state) {
  constexpr auto kTraffic = std::chrono::milliseconds(100);
  constexpr auto kSettling = std::chrono::milliseconds(100);
  constexpr auto kIdle = std::chrono::seconds(2);
  const Peer peer(Sleepless);
  End end(peer.fd());
  for (const auto until = std::chrono::steady_clock::now() + kTraffic;
       std::chrono::steady_clock::now() < until;) {
    end.Post(IBV_WR_RDMA_WRITE, 8);
    end.Await(IBV_WC_RDMA_WRITE, false);
  }
  for (auto unused : state) {
    std::this_thread::sleep_for(kSettling);
    const std::clock_t before = std::clock();  // of all threads
    std::this_thread::sleep_for(kIdle);
    const double used = static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC;
    state.counters["percent_of_a_core"] = 100 * used / std::chrono::duration<double>(kIdle).count();
  }
}
BENCHMARK(BM_Idle)->Iterations(1)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace sumac::verbs
