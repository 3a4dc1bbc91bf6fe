// What the kernel's loopback allows: UDP and TCP to and fro (sleeping and polling), and how many
// bytes a second they move: UDP a datagram a call, UDP in batches (GSO to send, GRO to receive),
// TCP.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <vector>

#include "benchmark/benchmark.h"
#include "cli/perf/limits/partner.h"

namespace sumac::cli {
namespace {

constexpr size_t kBatchBytes = 60 * 1024;  // less than a datagram's 64 KiB
constexpr int kBufferBytes = 8 << 20;
constexpr timeval kPatience{.tv_sec = 5, .tv_usec = 0};

// Two connected sockets of loopback, of one kind.
class Pair {
 public:
  explicit Pair(int type) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    first = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    second = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    socklen_t length = sizeof(address);
    auto* const at = reinterpret_cast<sockaddr*>(&address);
    ok = bind(first, at, sizeof(address)) == 0 && getsockname(first, at, &length) == 0;
    if (type == SOCK_STREAM) {
      ok = ok && listen(first, 1) == 0 && connect(second, at, sizeof(address)) == 0;
      const int accepted = ok ? accept4(first, nullptr, nullptr, SOCK_CLOEXEC) : -1;
      close(first);
      first = accepted;
    } else {
      sockaddr_in own = address;
      own.sin_port = 0;
      auto* const own_at = reinterpret_cast<sockaddr*>(&own);
      ok = ok && bind(second, own_at, sizeof(own)) == 0 &&
           connect(second, at, sizeof(address)) == 0 && getsockname(second, own_at, &length) == 0 &&
           connect(first, own_at, sizeof(own)) == 0;
    }
    const int one = 1;
    for (const int fd : {first, second}) {
      setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &kBufferBytes, sizeof(kBufferBytes));
      setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof(kPatience));
      if (type == SOCK_STREAM) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    }
  }
  ~Pair() {
    close(first);
    close(second);
  }
  Pair(const Pair&) = delete;
  Pair& operator=(const Pair&) = delete;
  int first = -1, second = -1;
  bool ok = false;
};

ssize_t Receive(int fd, void* into, size_t bytes, bool polls) {
  for (;;) {
    const ssize_t got = recv(fd, into, bytes, polls ? MSG_DONTWAIT : 0);
    if (got >= 0 || !polls || errno != EAGAIN) return got;
  }
}

void PingPong(benchmark::State& state, int type) {
  constexpr char kStop = 'x';
  const bool polls = state.range(0) != 0;
  Pair pair(type);
  if (!pair.ok) {
    state.SkipWithError("no sockets");
    return;
  }
  Partner partner([&] {
    char bytes[8];
    while (Receive(pair.second, bytes, sizeof(bytes), polls) > 0 && bytes[0] != kStop) {
      if (send(pair.second, bytes, sizeof(bytes), 0) < 0) return;
    }
  });
  char bytes[8] = {};
  for (auto _ : state) {
    if (send(pair.first, bytes, sizeof(bytes), 0) < 0 ||
        Receive(pair.first, bytes, sizeof(bytes), polls) <= 0) {
      state.SkipWithError("no answer");
      break;
    }
  }
  bytes[0] = kStop;
  (void)send(pair.first, bytes, sizeof(bytes), 0);
  state.counters["one_way"] =
      benchmark::Counter(static_cast<double>(state.iterations()) * 2,
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
void BenchUdpPingPong(benchmark::State& state) { PingPong(state, SOCK_DGRAM); }
void BenchTcpPingPong(benchmark::State& state) { PingPong(state, SOCK_STREAM); }
BENCHMARK(BenchUdpPingPong)->ArgName("polls")->Arg(0)->Arg(1)->UseRealTime();
BENCHMARK(BenchTcpPingPong)->ArgName("polls")->Arg(0)->Arg(1)->UseRealTime();

// Bytes through one socket into a thread that throws them away; `segment` 0: no batches.
void Stream(benchmark::State& state, int type, size_t bytes, int segment) {
  Pair pair(type);
  const int on = 1;
  const bool batches =
      segment == 0 ||
      (setsockopt(pair.first, SOL_UDP, UDP_SEGMENT, &segment, sizeof(segment)) == 0 &&
       setsockopt(pair.second, SOL_UDP, UDP_GRO, &on, sizeof(on)) == 0);
  if (!pair.ok || !batches) {
    state.SkipWithError("no sockets, or no GSO and GRO");
    return;
  }
  std::atomic<uint64_t> received{0};
  Partner partner([&] {
    std::vector<char> into(256 << 10);
    for (ssize_t got = 0; (got = recv(pair.second, into.data(), into.size(), 0)) > 1;) {
      received.fetch_add(static_cast<uint64_t>(got), std::memory_order_relaxed);
    }
  });
  const std::vector<char> from(bytes, 'a');
  for (auto _ : state) {
    for (size_t sent = 0; sent < bytes;) {
      const ssize_t got = send(pair.first, from.data() + sent, bytes - sent, 0);
      if (got <= 0) {
        state.SkipWithError("can't send");
        break;
      }
      sent += static_cast<size_t>(got);
    }
  }
  // UDP loses what the receiver is too slow for: what counts is what came.
  state.SetBytesProcessed(static_cast<int64_t>(received.load()));
  if (type == SOCK_STREAM) {
    shutdown(pair.first, SHUT_WR);
  } else {
    (void)send(pair.first, from.data(), 1, 0);  // if it is lost, the receiver's patience ends
  }
}
void BenchUdpStream(benchmark::State& state) {
  Stream(state, SOCK_DGRAM, static_cast<size_t>(state.range(0)), 0);
}
void BenchUdpGsoGro(benchmark::State& state) {
  const auto segment = static_cast<int>(state.range(0));
  Stream(state, SOCK_DGRAM, kBatchBytes / state.range(0) * state.range(0), segment);
}
void BenchTcpStream(benchmark::State& state) {
  Stream(state, SOCK_STREAM, static_cast<size_t>(state.range(0)), 0);
}
BENCHMARK(BenchUdpStream)->ArgName("bytes")->Arg(1458)->Arg(4168)->UseRealTime();
BENCHMARK(BenchUdpGsoGro)->ArgName("segment")->Arg(1458)->Arg(4168)->Arg(8958)->UseRealTime();
BENCHMARK(BenchTcpStream)->ArgName("bytes")->Arg(64 << 10)->Arg(1 << 20)->UseRealTime();

}  // namespace
}  // namespace sumac::cli
