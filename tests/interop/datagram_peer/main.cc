// datagram_peer: two processes, each with a device of its own, exchange UD and UC messages and
// check every byte. See README.md beside it.
#include <endian.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"

#include "tests/interop/datagram_peer/end.h"

namespace sumac::interop {
namespace {

constexpr uint8_t kUntouched = 0xee;
constexpr size_t kGrh = sizeof(ibv_grh);
constexpr uint32_t kOwnQkey = 0x80000000;

uint8_t ByteAt(size_t i, uint64_t seed) { return static_cast<uint8_t>(i * 7 + seed * 31 + 3); }

void Fill(uint8_t* bytes, size_t length, uint64_t seed) {
  for (size_t i = 0; i < length; ++i) bytes[i] = ByteAt(i, seed);
}
void ExpectFilled(const uint8_t* bytes, size_t length, uint64_t seed, const std::string& what) {
  for (size_t i = 0; i < length; ++i) {
    Check(bytes[i] == ByteAt(i, seed), what + ": byte " + std::to_string(i) + " is wrong");
  }
  Check(bytes[length] == kUntouched, what + ": wrote past the end");
}

struct Context {
  Channel& channel;
  UnreliableEnd& end;
  bool sends;  // this side, in this round
};

ibv_send_wr Request(ibv_wr_opcode opcode, uint64_t seed) {
  ibv_send_wr wr{};
  wr.opcode = opcode;
  wr.imm_data = htobe32(static_cast<uint32_t>(seed));
  return wr;
}

std::vector<size_t> Sizes(size_t mtu) { return {0, 1, 2, 3, 4, 13, 255, 256, 1000, mtu - 1, mtu}; }

// A datagram there, and the answer to whom the completion names.
uint64_t Datagrams(Context& c) {
  uint64_t seed = 0;
  ibv_ah* to_peer = c.end.ToPeer();
  for (const size_t size : Sizes(c.end.mtu_bytes())) {
    for (const ibv_wr_opcode opcode : {IBV_WR_SEND, IBV_WR_SEND_WITH_IMM}) {
      for (const uint32_t qkey : {kQkey, kOwnQkey}) {
        ++seed;
        const std::string what = "datagram of " + std::to_string(size) + " bytes";
        std::memset(c.end.target(), kUntouched, kHalfBytes);
        Fill(c.end.source(), size, seed);
        c.end.PostReceive(kHalfBytes);
        c.channel.Sync();
        ibv_send_wr wr = Request(opcode, seed);
        const uint32_t asked = c.end.replaces_qkeys() ? qkey : kQkey;
        wr.wr.ud = {to_peer, c.end.peer().qpn, asked};
        if (c.sends) c.end.Send(wr, size);
        ibv_wc wc = c.end.NextReceive();
        Check(wc.status == IBV_WC_SUCCESS, what + ": status " + std::to_string(wc.status));
        Check(wc.byte_len == kGrh + size, what + ": " + std::to_string(wc.byte_len) + " came");
        Check((wc.wc_flags & IBV_WC_GRH) != 0, what + ": no GRH");
        Check(wc.src_qp == c.end.peer().qpn, what + ": from another queue pair");
        const bool with_immediate = opcode == IBV_WR_SEND_WITH_IMM;
        Check(((wc.wc_flags & IBV_WC_WITH_IMM) != 0) == with_immediate, what + ": immediate?");
        Check(!with_immediate || wc.imm_data == wr.imm_data, what + ": another immediate");
        ExpectFilled(c.end.target() + kGrh, size, seed, what);
        if (!c.sends) {
          wr.wr.ud = {c.end.ToSenderOf(wc), wc.src_qp, asked};
          c.end.Send(wr, size);
        }
      }
    }
  }
  return seed;
}

// A wrong Q_Key leaves no trace: the right one after it arrives in its place.
uint64_t DroppedDatagrams(Context& c) {
  std::memset(c.end.target(), kUntouched, kHalfBytes);
  ibv_send_wr wr = Request(IBV_WR_SEND, 1);
  if (c.sends) {
    wr.wr.ud = {c.end.ToPeer(), c.end.peer().qpn, kQkey};
    c.end.Send(wr, 100);  // nobody has posted a receive
    c.channel.Sync();
    c.channel.Sync();
    wr.wr.ud.remote_qkey = kQkey + 1;
    c.end.Send(wr, 200);
    wr.wr.ud.remote_qkey = kOwnQkey;
    if (!c.end.replaces_qkeys()) c.end.Send(wr, 250);
    wr.wr.ud.remote_qkey = kQkey;
    Fill(c.end.source(), 300, 5);
    c.end.Send(wr, 300);
  } else {
    c.channel.Sync();
    c.end.PostReceive(kHalfBytes);
    c.channel.Sync();
    const ibv_wc wc = c.end.NextReceive();
    if (wc.byte_len == kGrh + 100) {  // it was so late that it met a receive
      std::printf("a datagram came late: nothing was tried\n");
      return 0;
    }
    Check(wc.status == IBV_WC_SUCCESS && wc.byte_len == kGrh + 300, "what was to be dropped came");
    ExpectFilled(c.end.target() + kGrh, 300, 5, "datagram after dropped ones");
  }
  return 3;
}

uint64_t ConnectedMessages(Context& c) {
  uint64_t seed = 0;
  std::vector<size_t> sizes = Sizes(c.end.mtu_bytes());
  const size_t mtu = c.end.mtu_bytes();
  sizes.insert(sizes.end(), {mtu + 1, 2 * mtu, 3 * mtu + 5, size_t{50'003}});
  for (const size_t size : sizes) {
    for (const ibv_wr_opcode opcode :
         {IBV_WR_SEND, IBV_WR_SEND_WITH_IMM, IBV_WR_RDMA_WRITE, IBV_WR_RDMA_WRITE_WITH_IMM}) {
      ++seed;
      const std::string what =
          "UC opcode " + std::to_string(opcode) + " of " + std::to_string(size) + " bytes";
      const bool takes_receive = opcode != IBV_WR_RDMA_WRITE;
      std::memset(c.end.target(), kUntouched, kHalfBytes);
      if (size != 0) c.end.target()[size - 1] = static_cast<uint8_t>(~ByteAt(size - 1, seed));
      if (!c.sends && takes_receive) c.end.PostReceive(kHalfBytes);
      c.channel.Sync();
      if (c.sends) {
        Fill(c.end.source(), size, seed);
        ibv_send_wr wr = Request(opcode, seed);
        wr.wr.rdma = {c.end.peer().target, c.end.peer().rkey};
        c.end.Send(wr, size);
      } else if (takes_receive) {
        const ibv_wc wc = c.end.NextReceive();
        Check(wc.status == IBV_WC_SUCCESS, what + ": status " + std::to_string(wc.status));
        Check(wc.byte_len == size, what + ": " + std::to_string(wc.byte_len) + " came");
        const bool with_immediate = opcode != IBV_WR_SEND;
        Check(!with_immediate || wc.imm_data == htobe32(static_cast<uint32_t>(seed)),
              what + ": another immediate");
        ExpectFilled(c.end.target(), size, seed, what);
      } else if (size != 0) {
        // As ib_write_lat does: the last byte tells.
        const std::atomic_ref<uint8_t> last(c.end.target()[size - 1]);
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
        while (last.load(std::memory_order_acquire) != ByteAt(size - 1, seed)) {
          Check(std::chrono::steady_clock::now() < deadline, what + ": never came");
        }
        ExpectFilled(c.end.target(), size, seed, what);
      }
      c.channel.Sync();
    }
  }
  return seed;
}

// A WRITE with a wrong key and a SEND without a receive: dropped, and the connection goes on.
uint64_t DroppedMessages(Context& c) {
  std::memset(c.end.target(), kUntouched, kHalfBytes);
  c.channel.Sync();
  if (c.sends) {
    ibv_send_wr wr = Request(IBV_WR_RDMA_WRITE, 1);
    wr.wr.rdma = {c.end.peer().target, c.end.peer().rkey ^ 1};
    c.end.Send(wr, 3 * c.end.mtu_bytes());
    c.end.Send(Request(IBV_WR_SEND, 1), 3 * c.end.mtu_bytes());
    wr.wr.rdma = {c.end.peer().target, c.end.peer().rkey};
    Fill(c.end.source(), 100, 5);
    c.end.Send(wr, 100);
  } else {
    const std::atomic_ref<uint8_t> last(c.end.target()[99]);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (last.load(std::memory_order_acquire) != ByteAt(99, 5)) {
      Check(std::chrono::steady_clock::now() < deadline, "the connection did not go on");
    }
    ExpectFilled(c.end.target(), 100, 5, "WRITE after dropped messages");
  }
  return 3;
}

struct Case {
  const char* name;
  ibv_qp_type type;
  uint64_t (*run)(Context&);
};
constexpr Case kCases[] = {
    {"datagrams", IBV_QPT_UD, Datagrams},
    {"dropped datagrams", IBV_QPT_UD, DroppedDatagrams},
    {"UC messages", IBV_QPT_UC, ConnectedMessages},
    {"dropped UC messages", IBV_QPT_UC, DroppedMessages},
};

struct Options {
  std::string listen, connect, device = "soft0";
};

int Run(const Options& options) {
  const bool first = !options.listen.empty();
  Channel channel = first ? Channel::Listen(options.listen) : Channel::Connect(options.connect);
  for (const Case& each : kCases) {
    for (const bool listener_sends : {true, false}) {
      std::string failure;
      uint64_t count = 0;
      try {
        UnreliableEnd end(options.device, channel, each.type);
        Context c{channel, end, listener_sends == first};
        count = each.run(c);
        channel.Sync();
      } catch (const std::exception& error) {
        failure = error.what();
      }
      std::printf("%s as %s: %s: %llu messages%s%s\n", options.device.c_str(),
                  listener_sends == first ? "sender" : "receiver", each.name,
                  static_cast<unsigned long long>(count),
                  failure.empty() ? "" : ": FAILED: ", failure.c_str());
      std::fflush(stdout);
      if (!failure.empty()) return 1;
    }
  }
  return 0;
}

}  // namespace
}  // namespace sumac::interop

int main(int argc, char** argv) {
  sumac::interop::Options options;
  CLI::App app(
      "exchanges UD and UC messages between two devices; one process listens, one connects");
  auto* where = app.add_option_group("where");
  where->add_option("--listen", options.listen, "ADDRESS:PORT at which the other process connects");
  where->add_option("--connect", options.connect, "ADDRESS:PORT of the process that listens");
  where->require_option(1);
  app.add_option("--device", options.device, "the device of this end")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    return sumac::interop::Run(options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", options.device.c_str(), error.what());
    return 1;
  }
}
