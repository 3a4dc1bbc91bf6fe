#include "tests/interop/rc_peer/plan.h"

#include <endian.h>

#include <cstring>

#include "tests/interop/rc_peer/end.h"

namespace sumac::interop {
namespace {

constexpr size_t kGuardBytes = 64;
constexpr uint32_t kWords = 4;
constexpr uint32_t kPiecesMax = 4;
constexpr uint32_t kInlineMax = 64;

bool IsAtomic(ibv_wr_opcode opcode) {
  return opcode == IBV_WR_ATOMIC_CMP_AND_SWP || opcode == IBV_WR_ATOMIC_FETCH_AND_ADD;
}
bool IsSend(ibv_wr_opcode opcode) {
  return opcode == IBV_WR_SEND || opcode == IBV_WR_SEND_WITH_IMM;
}

}  // namespace

Plan::Plan(uint64_t seed, uint32_t message_bytes_max)
    : message_bytes_max_(message_bytes_max), random_(seed) {
  for (PlannedSide& side : sides_) {
    side.source = Reserve(side, message_bytes_max);
    side.target = Reserve(side, message_bytes_max);
    side.words = Reserve(side, kWords * sizeof(uint64_t));
  }
}

// Room for `bytes`, with guards around it that nobody may touch; all of it random.
size_t Plan::Reserve(PlannedSide& side, size_t bytes) {
  const size_t old = side.initial.size();
  const size_t offset = (old + kGuardBytes + 7) / 8 * 8;
  const size_t end = (offset + bytes + kGuardBytes + 7) / 8 * 8;
  Check(end <= 2 * kZoneBytes, "the plan needs more memory than an end has");
  side.initial.resize(end);
  for (size_t at = old; at < end; at += sizeof(uint64_t)) {
    const uint64_t value = random_.Next();
    std::memcpy(&side.initial[at], &value, sizeof(value));
  }
  side.model.insert(side.model.end(), side.initial.begin() + static_cast<ptrdiff_t>(old),
                    side.initial.end());
  return offset;
}

// A range as up to kPiecesMax pieces in random order, some of them perhaps empty.
std::vector<Piece> Plan::Split(size_t offset, uint32_t length) {
  std::vector<Piece> pieces;
  const uint64_t count = random_.Between(1, kPiecesMax);
  for (uint64_t i = 0; i < count; ++i) {
    const auto here = i + 1 == count ? length : static_cast<uint32_t>(random_.Below(length + 1));
    pieces.push_back({offset, here});
    offset += here;
    length -= here;
  }
  for (size_t i = pieces.size(); i > 1; --i) std::swap(pieces[i - 1], pieces[random_.Below(i)]);
  return pieces;
}

void Plan::Add(int requester, uint32_t mtu_bytes) {
  static constexpr ibv_wr_opcode kOpcodes[] = {IBV_WR_SEND,
                                               IBV_WR_SEND_WITH_IMM,
                                               IBV_WR_RDMA_WRITE,
                                               IBV_WR_RDMA_WRITE_WITH_IMM,
                                               IBV_WR_RDMA_READ,
                                               IBV_WR_RDMA_READ,
                                               IBV_WR_ATOMIC_CMP_AND_SWP,
                                               IBV_WR_ATOMIC_FETCH_AND_ADD};
  const ibv_wr_opcode opcode = kOpcodes[random_.Below(std::size(kOpcodes))];
  PlannedSide& side = sides_[requester];
  PlannedSide& peer = sides_[1 - requester];
  PlannedRequest request{};
  request.opcode = opcode;
  request.length = DrawLength(mtu_bytes);
  request.immediate = htobe32(static_cast<uint32_t>(random_.Next()));
  // Never two unsignaled ones in a row, so that a full queue always has a completion to come.
  const bool may_be_silent =
      !side.requests.empty() && (side.requests.back().flags & IBV_SEND_SIGNALED) != 0;
  if (!may_be_silent || random_.Chance(7000)) request.flags |= IBV_SEND_SIGNALED;
  if (random_.Chance(2000)) request.flags |= IBV_SEND_SOLICITED;
  if (IsAtomic(opcode)) {
    PlayAtomic(side, peer, request);
  } else if (opcode == IBV_WR_RDMA_READ) {
    PlayRead(side, peer, request);
  } else {
    PlayMessage(side, peer, request);
  }
  side.requests.push_back(std::move(request));
}

void Plan::PlayAtomic(PlannedSide& side, PlannedSide& peer, PlannedRequest& request) {
  request.length = sizeof(uint64_t);
  request.pieces = {{Reserve(side, sizeof(uint64_t)), sizeof(uint64_t)}};
  request.remote_offset = peer.words + sizeof(uint64_t) * random_.Below(kWords);
  request.compare_add = random_.Next();
  request.swap = random_.Next();
  uint64_t word;
  std::memcpy(&word, &peer.model[request.remote_offset], sizeof(word));
  std::memcpy(&side.model[request.pieces[0].offset], &word, sizeof(word));
  if (request.opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
    word += request.compare_add;
  } else {
    if (random_.Chance(5000)) request.compare_add = word;
    if (word == request.compare_add) word = request.swap;
  }
  std::memcpy(&peer.model[request.remote_offset], &word, sizeof(word));
}

void Plan::PlayRead(PlannedSide& side, PlannedSide& peer, PlannedRequest& request) {
  request.pieces = Split(Reserve(side, request.length), request.length);
  request.remote_offset = peer.target + random_.Below(message_bytes_max_ - request.length + 1);
  side.unfenced_read = true;
  size_t from = request.remote_offset;
  for (const Piece& piece : request.pieces) {
    if (piece.length == 0) continue;
    std::memcpy(&side.model[piece.offset], &peer.model[from], piece.length);
    from += piece.length;
  }
}

void Plan::PlayMessage(PlannedSide& side, PlannedSide& peer, PlannedRequest& request) {
  const size_t room = message_bytes_max_ - request.length;
  request.pieces = Split(side.source + random_.Below(room + 1), request.length);
  if (request.length <= kInlineMax && random_.Chance(5000)) request.flags |= IBV_SEND_INLINE;
  std::vector<uint8_t> bytes;
  for (const Piece& piece : request.pieces) {
    const auto from = side.model.begin() + static_cast<ptrdiff_t>(piece.offset);
    bytes.insert(bytes.end(), from, from + piece.length);
  }
  PlannedReceive receive{};
  if (IsSend(request.opcode)) {
    const uint32_t slack = random_.Chance(5000) ? static_cast<uint32_t>(random_.Below(64)) : 0;
    const uint32_t length = request.length + slack;
    receive.pieces = Split(Reserve(peer, length), length);
    size_t done = 0;
    for (const Piece& piece : receive.pieces) {
      const size_t here = std::min<size_t>(piece.length, bytes.size() - done);
      if (here != 0) std::memcpy(&peer.model[piece.offset], &bytes[done], here);
      done += here;
    }
  } else {
    request.remote_offset = peer.target + random_.Below(room + 1);
    if (!bytes.empty()) std::memcpy(&peer.model[request.remote_offset], bytes.data(), bytes.size());
    // A WRITE may overtake a READ of the same bytes unless a fence holds it (IBTA vol. 1,
    // 10.8.3.3.1).
    if (side.unfenced_read) request.flags |= IBV_SEND_FENCE;
    side.unfenced_read = false;
  }
  if (request.opcode == IBV_WR_RDMA_WRITE) return;
  receive.opcode = IsSend(request.opcode) ? IBV_WC_RECV : IBV_WC_RECV_RDMA_WITH_IMM;
  receive.byte_len = request.length;
  receive.has_immediate = request.opcode != IBV_WR_SEND;
  receive.immediate = request.immediate;
  peer.receives.push_back(std::move(receive));
}

uint32_t Plan::DrawLength(uint32_t mtu_bytes) {
  const uint64_t dice = random_.Below(100);
  uint64_t length = 0;
  if (dice < 50) {
    length = random_.Below(65);
  } else if (dice < 80) {  // around whole packets
    length = random_.Between(1, 4) * mtu_bytes + random_.Below(3) - 1;
  } else if (dice < 98) {
    length = random_.Below(4097);
  } else {
    length = random_.Below(message_bytes_max_ + 1);
  }
  return static_cast<uint32_t>(std::min<uint64_t>(length, message_bytes_max_));
}

}  // namespace sumac::interop
