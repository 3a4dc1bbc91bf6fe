#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "absl/strings/str_cat.h"

#include "tests/interop/rc_peer/cases.h"
#include "tests/interop/rc_peer/counters.h"
#include "verbs/soft_nic/link/address.h"
#include "verbs/soft_nic/link/unique_fd.h"
#include "verbs/soft_nic/wire/packet.h"

namespace sumac::interop {
namespace {

constexpr uint8_t kUntouched = 0xee;
constexpr uint8_t kForged = 0x11;
constexpr uint8_t kRegular = 0x22;
constexpr size_t kBytes = 64;
constexpr size_t kDamaged = 100;  // packets

soft_nic::Gid GidOf(const Record& record) {
  soft_nic::Gid gid;
  std::memcpy(gid.data(), record.gid.raw, gid.size());
  return gid;
}

// What this end's device has counted of packets with a wrong ICRC: on rxe, anything at all.
uint64_t Counted(End& end) {
  if (end.self().kind == Kind::kSoft) return CounterOf(end.device(), "dropped_bad_icrc");
  return end.self().kind == Kind::kRxe ? AllKernelCounters(end.device()) : 0;
}

// Packets that no device of ours made, from this host's address.
class Forger {
 public:
  explicit Forger(const End& end)
      : peer_(end.peer()), socket_(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    ip_ = {.source = GidOf(end.self()), .destination = GidOf(end.peer())};
    // Don't fragment, and not connected: Linux then leaves the identification 0
    // (net/ipv4/ip_output.c, ip_select_ident), which the ICRC covers.
    const int dont_fragment = IP_PMTUDISC_DO;
    auto self = soft_nic::ToSocketAddress(ip_.source, 0, 0);
    socklen_t size = self.size();
    Check(socket_.get() >= 0 &&
              ::setsockopt(socket_.get(), IPPROTO_IP, IP_MTU_DISCOVER, &dont_fragment,
                           sizeof(dont_fragment)) == 0 &&
              ::bind(socket_.get(), &self.any, size) == 0 &&
              ::getsockname(socket_.get(), &self.any, &size) == 0,
          absl::StrCat("a UDP socket: ", std::strerror(errno)));
    ip_.source_port = soft_nic::PortOf(self);
  }

  // A WRITE of `bytes` to the start of the peer's zone.
  void Write(uint32_t psn, std::span<const uint8_t> bytes, uint32_t damage) {
    std::array<std::byte, soft_nic::kHeaderBytesMax + kBytes + soft_nic::kIcrcBytes> packet;
    const size_t header =
        soft_nic::EncodeHeader({.opcode = soft_nic::Opcode::kRcWriteOnly,
                                .ack_request = true,
                                .dest_qpn = peer_.qpn,
                                .psn = psn,
                                .remote_addr = peer_.zone,
                                .rkey = peer_.rkey,
                                .dma_length = static_cast<uint32_t>(bytes.size())},
                               packet);
    std::memcpy(packet.data() + header, bytes.data(), bytes.size());
    const size_t covered = header + bytes.size();
    const uint32_t icrc = soft_nic::ComputeIcrc(ip_, std::span(packet).first(covered), {}) ^ damage;
    for (size_t i = 0; i < soft_nic::kIcrcBytes; ++i) {  // little-endian
      packet[covered + i] = std::byte(icrc >> 8 * i);
    }
    const size_t size = covered + soft_nic::kIcrcBytes;
    const auto to = soft_nic::ToSocketAddress(ip_.destination, soft_nic::kRoceUdpPort, 0);
    Check(::sendto(socket_.get(), packet.data(), size, 0, &to.any, to.size()) ==
              static_cast<ssize_t>(size),
          absl::StrCat("sendto: ", std::strerror(errno)));
  }

 private:
  Record peer_;
  soft_nic::UniqueFd socket_;
  soft_nic::IcrcHeaders ip_;
};

void Ask(Context& c, const Path& path) {
  End& end = c.end;
  std::memset(end.source().data(), kForged, kBytes);
  std::memset(end.source().data() + kBytes, kRegular, kBytes);
  Forger forger(end);
  for (size_t i = 0; i < kDamaged; ++i) {
    forger.Write(path.local_psn, end.source().first(kBytes), 1u << i % 32);
  }
  // The packet that has this PSN by right; by the time it is answered, those have been, too.
  ibv_sge sge = end.Sge(end.source().data() + kBytes, kBytes);
  ibv_send_wr request = end.Request(IBV_WR_RDMA_WRITE, std::span(&sge, 1), kBytes);
  end.Post(request);
  ExpectStatus(end.NextSend(), IBV_WC_SUCCESS, "WRITE after packets with a wrong ICRC");
  c.channel.Sync();
  c.channel.Sync();  // the responder has looked
  // Nothing else was wrong with them: with the next PSN and the ICRC that is right, it is taken.
  forger.Write(path.local_psn + 1, end.source().first(kBytes), 0);
}

void Answer(Context& c, uint64_t counted_before) {
  End& end = c.end;
  c.channel.Sync();
  ExpectAll(end.target().first(kBytes), kUntouched, "WRITE with a wrong ICRC");
  ExpectAll(end.target().subspan(kBytes, kBytes), kRegular, "WRITE after it");
  const uint64_t counted = Counted(end) - counted_before;
  if (end.self().kind == Kind::kSoft) {
    Check(counted == kDamaged, absl::StrCat(counted, " packets counted as bad, not ", kDamaged));
  } else if (end.self().kind == Kind::kRxe) {
    // Less than one for each: the WRITE, its answer, and what the requester may have asked after
    // it.
    Check(counted < kDamaged, absl::StrCat("rxe counts packets with a wrong ICRC now: ", counted));
  }
  c.channel.Sync();
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  for (uint8_t& byte : end.target().first(kBytes)) {
    while (std::atomic_ref(byte).load(std::memory_order_acquire) != kForged) {
      Check(std::chrono::steady_clock::now() < deadline,
            "the same WRITE with the right ICRC never came");
    }
  }
}

}  // namespace

uint64_t WrongIcrc(Context& c) {
  if (!soft_nic::IsIpv4Mapped(GidOf(c.end.self()))) return 0;
  const Path path;
  c.end.Reconnect(path);
  std::memset(c.end.target().data(), kUntouched, 2 * kBytes);
  const uint64_t counted = Counted(c.end);
  c.channel.Sync();
  if (c.requester) {
    Ask(c, path);
  } else {
    Answer(c, counted);
  }
  return kDamaged + 2;
}

}  // namespace sumac::interop
