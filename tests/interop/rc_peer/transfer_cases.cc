#include <endian.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>

#include "absl/strings/str_cat.h"

#include "tests/interop/rc_peer/cases.h"
#include "tests/interop/rc_peer/counters.h"
#include "verbs/status.h"

namespace sumac::interop {
namespace {

constexpr uint8_t kUntouched = 0xee;
constexpr size_t kGuard = 64;

const char* NameOf(ibv_wr_opcode opcode) {
  switch (opcode) {
    case IBV_WR_SEND:
      return "SEND";
    case IBV_WR_SEND_WITH_IMM:
      return "SEND with immediate";
    case IBV_WR_RDMA_WRITE:
      return "WRITE";
    case IBV_WR_RDMA_WRITE_WITH_IMM:
      return "WRITE with immediate";
    default:
      return "READ";
  }
}

bool TakesReceive(ibv_wr_opcode opcode) {
  return opcode != IBV_WR_RDMA_WRITE && opcode != IBV_WR_RDMA_READ;
}
bool HasImmediate(ibv_wr_opcode opcode) {
  return opcode == IBV_WR_SEND_WITH_IMM || opcode == IBV_WR_RDMA_WRITE_WITH_IMM;
}

void OneTransfer(Context& c, ibv_wr_opcode opcode, size_t size, uint64_t seed) {
  const std::string what = absl::StrCat(NameOf(opcode), " of ", size, " bytes");
  End& end = c.end;
  // Odd places, so that nothing is aligned by luck.
  const size_t from = kGuard + seed % 5;
  const size_t to = kGuard + seed % 7;
  const auto target = end.target().subspan(0, to + size + kGuard);
  const bool is_read = opcode == IBV_WR_RDMA_READ;
  const auto changed = is_read ? end.source() : end.target();
  const size_t at = is_read ? from : to;
  if (c.requester == is_read) {  // whose memory will change
    std::memset(changed.data(), kUntouched, at + size + kGuard);
  } else {
    Fill(is_read ? end.target().subspan(to, size) : end.source().subspan(from, size), seed);
  }
  if (!c.requester && TakesReceive(opcode)) end.PostReceive(target.data() + to, size, seed);
  c.channel.Sync();
  if (c.requester) {
    ibv_sge sge = end.Sge(end.source().data() + from, size);
    ibv_send_wr request = end.Request(opcode, std::span(&sge, 1), to);
    request.wr_id = seed;
    request.imm_data = htobe32(static_cast<uint32_t>(seed));
    end.Post(request);
    const ibv_wc wc = end.NextSend();
    ExpectStatus(wc, IBV_WC_SUCCESS, what);
    Check(wc.wr_id == seed, what + ": another request completed");
  } else if (TakesReceive(opcode)) {
    const ibv_wc wc = end.NextReceive();
    ExpectStatus(wc, IBV_WC_SUCCESS, what + ", receive");
    Check(wc.byte_len == size, absl::StrCat(what, ": received ", wc.byte_len, " bytes"));
    Check(wc.wr_id == seed, what + ": another receive completed");
    const bool is_write = opcode == IBV_WR_RDMA_WRITE_WITH_IMM;
    Check(wc.opcode == (is_write ? IBV_WC_RECV_RDMA_WITH_IMM : IBV_WC_RECV),
          what + ": the receive has another opcode");
    Check(((wc.wc_flags & IBV_WC_WITH_IMM) != 0) == HasImmediate(opcode),
          what + ": immediate or none, wrongly");
    if (HasImmediate(opcode)) {
      Check(wc.imm_data == htobe32(static_cast<uint32_t>(seed)), what + ": wrong immediate");
    }
  }
  c.channel.Sync();
  if (c.requester == is_read) {
    ExpectAll(changed.subspan(0, at), kUntouched, what + ", before it");
    Expect(changed.subspan(at, size), seed, what);
    ExpectAll(changed.subspan(at + size, kGuard), kUntouched, what + ", behind it");
  }
}

}  // namespace

uint64_t Sizes(Context& c) {
  uint64_t count = 0;
  for (const uint32_t mtu : {256u, 512u, 1024u, 2048u, 4096u}) {
    if (mtu > c.end.mtu_bytes_max()) break;
    c.end.Reconnect({.mtu_bytes = mtu});
    for (const size_t size :
         {size_t{0}, size_t{1}, size_t{3}, size_t{4}, size_t{mtu - 1}, size_t{mtu}, size_t{mtu + 1},
          size_t{2 * mtu}, size_t{3 * mtu + 5}, size_t{40 * mtu + 2}, size_t{1 << 20}}) {
      for (const ibv_wr_opcode opcode : {IBV_WR_SEND, IBV_WR_SEND_WITH_IMM, IBV_WR_RDMA_WRITE,
                                         IBV_WR_RDMA_WRITE_WITH_IMM, IBV_WR_RDMA_READ}) {
        if (size == 1 << 20 && HasImmediate(opcode)) continue;
        OneTransfer(c, opcode, size, c.seed + ++count);
      }
    }
  }
  return count;
}

uint64_t Pieces(Context& c) {
  c.end.Reconnect({});
  constexpr std::array<size_t, 4> kFrom = {1, 5000, 0, 4095};
  constexpr std::array<size_t, 3> kTo = {4096, 3, 4997};
  constexpr size_t kTotal = 9096;
  End& end = c.end;
  const auto cut = [&](std::span<uint8_t> zone, auto lengths) {
    std::array<ibv_sge, std::tuple_size_v<decltype(lengths)>> pieces;
    size_t at = 0;
    for (size_t i = 0; i < lengths.size(); ++i) {  // back to front, with gaps
      pieces[i] = end.Sge(zone.data() + (lengths.size() - 1 - i) * 8192, lengths[i]);
      at += lengths[i];
    }
    Check(at == kTotal, "the pieces of this test don't add up");
    return pieces;
  };
  const auto gather = [](auto& pieces) {
    std::vector<uint8_t> whole;
    for (const ibv_sge& piece : pieces) {
      const auto* from = reinterpret_cast<const uint8_t*>(piece.addr);
      whole.insert(whole.end(), from, from + piece.length);
    }
    return whole;
  };
  auto from = cut(end.source(), kFrom);
  auto to = cut(end.target(), kTo);
  Fill(end.source().first(1 << 16), c.seed);
  if (!c.requester) {
    // Three pieces into one place for the WRITE, and a receive of three for the SEND.
    ibv_recv_wr request{};
    request.sg_list = to.data();
    request.num_sge = static_cast<int>(to.size());
    end.PostReceive(request);
  }
  c.channel.Sync();
  const auto expected = gather(from);  // both sides have the same source
  if (c.requester) {
    ibv_send_wr send = end.Request(IBV_WR_SEND, from);
    end.Post(send);
    ExpectStatus(end.NextSend(), IBV_WC_SUCCESS, "SEND of four pieces");
    ibv_send_wr write = end.Request(IBV_WR_RDMA_WRITE, from, 1 << 20);
    end.Post(write);
    ExpectStatus(end.NextSend(), IBV_WC_SUCCESS, "WRITE of four pieces");
    ibv_send_wr read = end.Request(IBV_WR_RDMA_READ, to, 1 << 20);
    end.Post(read);
    ExpectStatus(end.NextSend(), IBV_WC_SUCCESS, "READ into three pieces");
    Check(gather(to) == expected, "READ into three pieces: wrong bytes");
  } else {
    ExpectStatus(end.NextReceive(), IBV_WC_SUCCESS, "receive of three pieces");
    Check(gather(to) == expected, "receive of three pieces: wrong bytes");
  }
  c.channel.Sync();
  if (!c.requester) {
    Check(std::equal(expected.begin(), expected.end(), end.target().data() + (1 << 20)),
          "WRITE of four pieces: wrong bytes");
  }
  return 3;
}

uint64_t Atomics(Context& c) {
  c.end.Reconnect({});
  End& end = c.end;
  constexpr size_t kAt = 4096 + 8;
  auto* word = reinterpret_cast<uint64_t*>(end.target().data() + kAt);
  auto* result = reinterpret_cast<uint64_t*>(end.source().data());
  std::memset(word - 1, kUntouched, 24);
  *word = 7;
  uint64_t value = 7;
  c.channel.Sync();
  uint64_t count = 0;
  if (c.requester) {
    for (uint64_t i = 0; i < 200; ++i) {
      const bool swap = i % 3 == 0;
      const bool matches = i % 2 == 0;
      ibv_sge sge = end.Sge(end.source().data(), 8);
      ibv_send_wr request = end.Request(
          swap ? IBV_WR_ATOMIC_CMP_AND_SWP : IBV_WR_ATOMIC_FETCH_AND_ADD, std::span(&sge, 1), kAt);
      // With carries across all the bytes.
      request.wr.atomic.compare_add = swap ? (matches ? value : value + 1) : i * 0x0123456789abcdef;
      request.wr.atomic.swap = ~value * 31 + i;
      end.Post(request);
      ExpectStatus(end.NextSend(), IBV_WC_SUCCESS, swap ? "COMPARE_SWAP" : "FETCH_ADD");
      Check(*result == value, absl::StrCat("atomic ", i, " returned ", *result, ", not ", value));
      if (!swap) value += request.wr.atomic.compare_add;
      if (swap && matches) value = request.wr.atomic.swap;
      ++count;
    }
  }
  const uint64_t last = c.channel.Swap(value);
  if (!c.requester) {
    Check(std::atomic_ref(*word).load() == last, "the word is not what the requester's sums say");
    ExpectAll({end.target().data() + kAt - 8, 8}, kUntouched, "before the word");
    ExpectAll({end.target().data() + kAt + 8, 8}, kUntouched, "behind the word");
  }
  return c.requester ? count : 200;
}

// Polls until the device has sent a NAK because there was no receive.
void AwaitRnrNak(End& end, uint64_t naks_before) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  ibv_wc wc;
  while (RnrNaksSent(end.device()) == naks_before) {
    Check(!end.PollReceive(wc), "a SEND completed a receive that there was not");
    Check(std::chrono::steady_clock::now() < deadline, "a SEND without a receive draws no NAK");
  }
}

uint64_t ReceiverNotReady(Context& c) {
  // The peer's timer (IBTA vol. 1, 9.7.5.2.8) decides when to come back; 7 is: as often as it
  // takes.
  c.end.Reconnect({.rnr_retry = 7});
  constexpr uint64_t kMessages = 20;
  for (uint64_t i = 0; i < kMessages; ++i) {
    const uint64_t naks = RnrNaksSent(c.end.device());
    c.channel.Sync();
    if (c.requester) {
      Fill(c.end.source().first(5000), c.seed + i);
      ibv_sge sge = c.end.Sge(c.end.source().data(), 5000);
      ibv_send_wr request = c.end.Request(IBV_WR_SEND, std::span(&sge, 1));
      c.end.Post(request);
      ExpectStatus(c.end.NextSend(), IBV_WC_SUCCESS, "SEND that found no receive");
    } else {
      if (c.end.self().kind != Kind::kHardware) AwaitRnrNak(c.end, naks);
      c.end.PostReceive(c.end.target().data(), 5000);
      ExpectStatus(c.end.NextReceive(), IBV_WC_SUCCESS, "receive posted late");
      Expect(c.end.target().first(5000), c.seed + i, "receive posted late");
    }
    c.channel.Sync();
  }
  return kMessages;
}

void Fill(std::span<uint8_t> bytes, uint64_t seed) {
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = PatternByte(seed, i);
}

void Expect(std::span<const uint8_t> bytes, uint64_t seed, const std::string& what) {
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] == PatternByte(seed, i)) continue;
    Check(false, absl::StrCat(what, ": byte ", i, " of ", bytes.size(), " is wrong"));
  }
}

void ExpectAll(std::span<const uint8_t> bytes, uint8_t value, const std::string& what) {
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] != value) Check(false, absl::StrCat(what, ": byte ", i, " was changed"));
  }
}

void ExpectStatus(const ibv_wc& wc, ibv_wc_status status, const std::string& what) {
  if (wc.status == status) return;
  Check(false,
        absl::StrCat(what, ": ", verbs::NameOf(wc.status), ", expected ", verbs::NameOf(status)));
}

}  // namespace sumac::interop
