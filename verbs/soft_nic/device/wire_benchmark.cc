// The soft NIC over a veth with MTU 9000 beside what the kernel offers there: WRITEs of 1 MiB
// against UDP sockets with segmentation and iperf3's TCP, a WRITE of 8 bytes until its completion
// against a round trip of UDP. In rounds that alternate, because the machine's speed changes by the
// minute.
//
//   wire_benchmark [ROUNDS [SECONDS of each]]      (as root; iperf3 is left out where it is
//   missing)
//
// Two network namespaces that live as long as this program stand for two hosts.
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "verbs/completion_queue.h"
#include "verbs/device.h"
#include "verbs/memory_region.h"
#include "verbs/protection_domain.h"
#include "verbs/queue_pair.h"
#include "verbs/soft_nic/link/address.h"
#include "verbs/soft_nic/link/reuseport_group.h"

namespace sumac::verbs {
namespace {

using Clock = std::chrono::steady_clock;
using soft_nic::GidOfIpv4;
using soft_nic::ToSocketAddress;

constexpr size_t kMessageBytes = 1 << 20;
constexpr uint16_t kSegmentBytes = 4116;  // a path MTU of 4096 with its headers
constexpr uint16_t kPort = 29600;
constexpr int kAccess = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE;

void Require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "wire_benchmark: %s\n", what);
  std::_Exit(1);
}

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// A socket to the other end, for handshakes. Both ends call it: each waits for the other.
void Meet(int fd) {
  char byte = 0;
  Require(write(fd, &byte, 1) == 1 && read(fd, &byte, 1) == 1, "the other end went away");
}

class End {
 public:
  explicit End(int fd) : memory_(kMessageBytes) {
    auto device = *Device::Open("soft0");
    auto pd = *ProtectionDomain::Create(device);
    cq_ = *CompletionQueue::Create(device, 64, nullptr);
    qp_ = *QueuePair::Create(pd, cq_, cq_, {});
    region_ = *MemoryRegion::Register(pd, memory_.data(), memory_.size(), kAccess);
    struct Record {
      uint64_t addr;
      uint32_t qpn, rkey;
      ibv_gid gid;
    };
    const Record mine{reinterpret_cast<uint64_t>(memory_.data()), qp_->qpn(), region_->rkey(),
                      device->QueryGids(1)->front().gid};
    Record peer{};
    Require(write(fd, &mine, sizeof(mine)) == sizeof(mine), "exchange");
    Require(read(fd, &peer, sizeof(peer)) == sizeof(peer), "exchange");
    ConnectionOptions options;
    options.path_mtu = IBV_MTU_4096;
    options.access = kAccess;
    options.remote_qpn = peer.qpn;
    options.remote_gid = peer.gid;
    Require(qp_->ToInit(options).ok() && qp_->ToReadyToReceive(options).ok() &&
                qp_->ToReadyToSend(options).ok(),
            "connect");
    peer_addr_ = peer.addr;
    peer_rkey_ = peer.rkey;
    Meet(fd);
  }
  void Write(size_t bytes) {
    ibv_sge sge{reinterpret_cast<uint64_t>(memory_.data()), static_cast<uint32_t>(bytes),
                region_->lkey()};
    ibv_send_wr wr{};
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.opcode = IBV_WR_RDMA_WRITE;
    wr.send_flags = IBV_SEND_SIGNALED;
    wr.wr.rdma.remote_addr = peer_addr_;
    wr.wr.rdma.rkey = peer_rkey_;
    Require(qp_->PostSend(wr) == 0, "post");
  }
  // Polls once. True when a WRITE is complete.
  bool Poll() {
    ibv_wc wc{};
    if (cq_->Poll({&wc, 1}) != 1) return false;
    Require(wc.status == IBV_WC_SUCCESS, "completion");
    return true;
  }

 private:
  std::vector<uint8_t> memory_;
  std::shared_ptr<CompletionQueue> cq_;
  std::unique_ptr<QueuePair> qp_;
  std::unique_ptr<MemoryRegion> region_;
  uint64_t peer_addr_ = 0;
  uint32_t peer_rkey_ = 0;
};

// The hosts, and measurements that each run as one new process on each.
class Hosts {
 public:
  Hosts() {
    // The children are born into the namespaces; this process makes the veth from the last one.
    for (int& space : spaces_) {
      Require(unshare(CLONE_NEWNET) == 0, "can't make a network namespace; run as root");
      space = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
      Require(std::system("ip link set lo up") == 0, "ip link set lo up");
    }
    const std::string make = absl::StrCat(
        "ip link add sumac0 mtu 9000 gso_max_size 185000 gro_max_size 185000 type veth peer name "
        "sumac0 mtu 9000 gso_max_size 185000 gro_max_size 185000 netns ",
        "/proc/", getpid(), "/fd/", spaces_[0]);
    Require(std::system(make.c_str()) == 0, make.c_str());
    for (int i : {0, 1}) {
      Require(setns(spaces_[i], CLONE_NEWNET) == 0, "setns");
      const std::string up = absl::StrCat("ip addr add 10.77.0.", i + 1,
                                          "/24 dev sumac0 && ip -6 addr add fd77::", i + 1,
                                          "/64 dev sumac0 nodad && ip link set sumac0 up");
      Require(std::system(up.c_str()) == 0, up.c_str());
    }
    setenv("SUMAC_SOFT_INTERFACE", "sumac0", 1);
  }

  using Play = std::function<double(int fd)>;
  // What `near` returns. `far` runs until it is killed.
  double Run(const Play& near, const std::function<void(int fd)>& far) {
    int between[2];
    int result[2];
    Require(socketpair(AF_UNIX, SOCK_STREAM, 0, between) == 0 && pipe(result) == 0, "socketpair");
    const pid_t far_end = Fork(1, [&] { far(between[1]); });
    const pid_t near_end = Fork(0, [&] {
      const double value = near(between[0]);
      Require(write(result[1], &value, sizeof(value)) == sizeof(value), "result");
    });
    close(result[1]);
    close(between[0]);
    close(between[1]);
    double value = 0;
    Require(read(result[0], &value, sizeof(value)) == sizeof(value), "a measurement failed");
    close(result[0]);
    waitpid(near_end, nullptr, 0);
    kill(far_end, SIGKILL);
    waitpid(far_end, nullptr, 0);
    return value;
  }

 private:
  pid_t Fork(int host, const std::function<void()>& play) {
    const pid_t child = fork();
    Require(child >= 0, "fork");
    if (child != 0) return child;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    Require(setns(spaces_[host], CLONE_NEWNET) == 0, "setns");
    play();
    std::_Exit(0);
  }
  int spaces_[2] = {-1, -1};
};

double seconds = 1;

// --- The soft NIC. ---
void PolledTarget(int fd) {
  End end(fd);
  for (;;) (void)end.Poll();
}
double WriteGigabits(int fd) {
  End end(fd);
  constexpr int kWindow = 8;
  for (int i = 0; i < kWindow; ++i) end.Write(kMessageBytes);
  int64_t messages = 0;
  const auto start = Clock::now();
  while (SecondsSince(start) < seconds) {
    if (!end.Poll()) continue;
    ++messages;
    end.Write(kMessageBytes);
  }
  return static_cast<double>(messages * kMessageBytes) * 8e-9 / SecondsSince(start);
}
double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}
double MedianMicroseconds(const std::function<void()>& once) {
  std::vector<double> times;
  const auto start = Clock::now();
  while (SecondsSince(start) < seconds) {
    const auto begin = Clock::now();
    once();
    times.push_back(SecondsSince(begin) * 1e6);
  }
  return Median(std::move(times));
}
double WriteMicroseconds(int fd) {
  End end(fd);
  return MedianMicroseconds([&end] {
    end.Write(8);
    while (!end.Poll()) {
    }
  });
}

// --- UDP sockets, as good as they get. ---
int BoundSocket(int host) {
  const auto address = ToSocketAddress(GidOfIpv4(10, 77, 0, host), kPort, 0);
  auto fd = soft_nic::BindExclusively(address);
  Require(fd.ok(), "bind");
  const int bytes = 8 << 20;
  setsockopt(fd->get(), SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes));
  return dup(fd->get());
}
void ConnectTo(int fd, int host) {
  const auto address = ToSocketAddress(GidOfIpv4(10, 77, 0, host), kPort, 0);
  Require(connect(fd, reinterpret_cast<const sockaddr*>(&address), address.size()) == 0, "connect");
}
double SegmentGigabits(int fd) {
  const int socket = BoundSocket(1);
  ConnectTo(socket, 2);
  const int segment = kSegmentBytes;
  Require(setsockopt(socket, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof(segment)) == 0, "segment");
  std::vector<char> data(kSegmentBytes * size_t{15});
  Meet(fd);
  const auto start = Clock::now();
  while (SecondsSince(start) < seconds) (void)send(socket, data.data(), data.size(), 0);
  char byte = 0;
  uint64_t bytes = 0;
  Require(write(fd, &byte, 1) == 1 && read(fd, &bytes, sizeof(bytes)) == sizeof(bytes), "far end");
  return static_cast<double>(bytes) * 8e-9 / SecondsSince(start);
}
void TakeSegments(int fd) {
  const int socket = BoundSocket(2);
  const int yes = 1;
  Require(setsockopt(socket, IPPROTO_UDP, UDP_GRO, &yes, sizeof(yes)) == 0, "UDP_GRO");
  std::vector<char> data(1 << 16);
  Meet(fd);
  uint64_t bytes = 0;
  char byte = 0;
  while (recv(fd, &byte, 1, MSG_DONTWAIT) != 1) {
    for (int i = 0; i < 64; ++i) {
      const ssize_t got = recv(socket, data.data(), data.size(), MSG_DONTWAIT);
      if (got > 0) bytes += static_cast<uint64_t>(got);
    }
  }
  Require(write(fd, &bytes, sizeof(bytes)) == sizeof(bytes), "result");
}
void Spin(int socket) {
  char data[32];
  while (recv(socket, data, sizeof(data), MSG_DONTWAIT) <= 0) {
  }
}
double PingMicroseconds(int fd) {
  const int socket = BoundSocket(1);
  ConnectTo(socket, 2);
  Meet(fd);
  const char data[32] = {};  // BTH, RETH, 8 bytes would be 40; an ACK 20
  return MedianMicroseconds([&] {
    Require(send(socket, data, sizeof(data), 0) > 0, "send");
    Spin(socket);
  });
}
void Pong(int fd) {
  const int socket = BoundSocket(2);
  ConnectTo(socket, 1);
  Meet(fd);
  const char data[32] = {};
  for (;;) {
    Spin(socket);
    (void)send(socket, data, sizeof(data), 0);
  }
}

// --- iperf3. ---
double Iperf(int fd, const char* options) {
  Meet(fd);
  const std::string command =
      absl::StrCat("for i in 1 2 3 4 5 6 7 8 9; do iperf3 -f k ", options, " -t ",
                   std::max(seconds, 1.0), " 2>/dev/null && break; done");
  FILE* output = popen(command.c_str(), "r");
  char line[256];
  double gigabits = 0;
  while (fgets(line, sizeof(line), output) != nullptr) {
    const char* const rate = std::strstr(line, "Bytes");
    if (std::strstr(line, "receiver") != nullptr && rate != nullptr) {
      gigabits = std::strtod(rate + 5, nullptr) * 1e-6;
    }
  }
  pclose(output);
  return gigabits;
}
double Tcp(int fd) { return Iperf(fd, "-c 10.77.0.2"); }
double BigTcp(int fd) { return Iperf(fd, "-c fd77::2 -l 1M"); }
void IperfServer(int fd) {
  Meet(fd);
  const int null = open("/dev/null", O_WRONLY);
  dup2(null, 1);
  dup2(null, 2);
  execlp("iperf3", "iperf3", "-s", nullptr);
}

struct Measurement {
  const char* name;
  double (*near)(int);
  void (*far)(int);
  std::vector<double> values;
};

int Main(int argc, char** argv) {
  int rounds = 5;
  if (argc > 1) Require(absl::SimpleAtoi(argv[1], &rounds) && rounds > 0, "ROUNDS");
  if (argc > 2) Require(absl::SimpleAtod(argv[2], &seconds) && seconds > 0, "SECONDS");
  Hosts hosts;
  std::vector<Measurement> all = {
      {"soft NIC, WRITE 1 MiB, Gb/s", WriteGigabits, PolledTarget, {}},
      {"UDP with segmentation, Gb/s", SegmentGigabits, TakeSegments, {}},
      {"soft NIC, WRITE 8 B to completion, us", WriteMicroseconds, PolledTarget, {}},
      {"UDP round trip, us", PingMicroseconds, Pong, {}},
  };
  if (std::system("command -v iperf3 >/dev/null") == 0) {
    all.push_back({"TCP, iperf3, Gb/s", Tcp, IperfServer, {}});
    all.push_back({"BIG TCP, iperf3 with writes of 1 MiB, Gb/s", BigTcp, IperfServer, {}});
  }
  const std::string only = argc > 3 ? argv[3] : "";
  std::erase_if(all, [&](const Measurement& one) { return !absl::StrContains(one.name, only); });
  for (int round = 0; round < rounds; ++round) {
    for (Measurement& one : all) one.values.push_back(hosts.Run(one.near, one.far));
  }
  for (const Measurement& one : all) {
    std::printf("%-44s %7.2f  (", one.name, Median(one.values));
    for (const double value : one.values) std::printf(" %.1f", value);
    std::printf(" )\n");
  }
  return 0;
}

}  // namespace
}  // namespace sumac::verbs

int main(int argc, char** argv) { return sumac::verbs::Main(argc, argv); }
