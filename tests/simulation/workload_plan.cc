// Drawing a conversation and playing it on the model.
#include <algorithm>
#include <cstring>

#include "tests/simulation/workload.h"

namespace sumac::soft_nic::simulation {
namespace {

constexpr uint64_t kGuardBytes = 96;
constexpr uint64_t kWords = 4;

bool IsAtomic(ibv_wr_opcode opcode) {
  return opcode == IBV_WR_ATOMIC_CMP_AND_SWP || opcode == IBV_WR_ATOMIC_FETCH_AND_ADD;
}
bool IsWrite(ibv_wr_opcode opcode) {
  return opcode == IBV_WR_RDMA_WRITE || opcode == IBV_WR_RDMA_WRITE_WITH_IMM;
}
bool IsSend(ibv_wr_opcode opcode) {
  return opcode == IBV_WR_SEND || opcode == IBV_WR_SEND_WITH_IMM || opcode == IBV_WR_SEND_WITH_INV;
}

}  // namespace

uint32_t Conversation::DrawLength() {
  const uint32_t most = options_.message_bytes_max;
  switch (random_.Below(4)) {
    case 0:
      return static_cast<uint32_t>(random_.Below(std::min<uint32_t>(17, most)));
    case 1: {  // around whole packets
      const uint64_t packets = random_.Below(most / options_.mtu + 1);
      return static_cast<uint32_t>(
          std::min<uint64_t>(packets * options_.mtu + random_.Below(3), most));
    }
    default:
      return static_cast<uint32_t>(random_.Below(most + 1));
  }
}

Conversation::Request Conversation::DrawRequest(int side, bool* unfenced_read) {
  static constexpr ibv_wr_opcode kOpcodes[] = {
      IBV_WR_SEND,       IBV_WR_SEND_WITH_IMM,       IBV_WR_SEND_WITH_INV,
      IBV_WR_RDMA_WRITE, IBV_WR_RDMA_WRITE_WITH_IMM, IBV_WR_RDMA_READ,
      IBV_WR_RDMA_READ,  IBV_WR_ATOMIC_CMP_AND_SWP,  IBV_WR_ATOMIC_FETCH_AND_ADD,
      IBV_WR_LOCAL_INV};
  const Side& peer = sides_[1 - side];
  Request request{};
  request.opcode = kOpcodes[random_.Below(std::size(kOpcodes))];
  request.length = IsAtomic(request.opcode) ? 8 : DrawLength();
  if (request.opcode == IBV_WR_LOCAL_INV) request.length = 0;
  request.immediate = static_cast<uint32_t>(random_.Next());
  if (random_.Chance(5000)) request.flags |= IBV_SEND_SIGNALED;
  if (random_.Chance(3000)) request.flags |= IBV_SEND_SOLICITED;
  if (random_.Chance(1000)) request.flags |= IBV_SEND_FENCE;
  if (IsAtomic(request.opcode)) {
    request.remote_offset = peer.words + 8 * random_.Below(kWords);
    request.compare_add = random_.Below(3);
    request.swap = random_.Below(3);
  } else if (request.opcode == IBV_WR_RDMA_READ) {
    const bool moving = random_.Chance(5000);
    request.remote_offset = (moving ? peer.target : peer.fixed) +
                            random_.Below(options_.message_bytes_max - request.length + 1);
    *unfenced_read = *unfenced_read || moving;
  } else if (IsWrite(request.opcode)) {
    request.remote_offset =
        peer.target + random_.Below(options_.message_bytes_max - request.length + 1);
    // A WRITE may overtake a READ of the same bytes unless a fence holds it (IBTA vol.
    // 1, 10.8.3.3.1).
    if (*unfenced_read) request.flags |= IBV_SEND_FENCE;
    *unfenced_read = false;
  }
  if ((IsSend(request.opcode) || IsWrite(request.opcode)) && request.length <= 256 &&
      random_.Chance(5000)) {
    request.flags |= IBV_SEND_INLINE;
  }
  return request;
}

void Conversation::DrawRequests(int side) {
  bool unfenced_read = false;
  std::vector<Request>& requests = sides_[side].requests;
  for (uint32_t i = 0; i < options_.requests[side]; ++i) {
    requests.push_back(DrawRequest(side, &unfenced_read));
  }
  if (!requests.empty()) requests.back().flags |= IBV_SEND_SIGNALED;
}

// Room for `bytes`, with guards around it that nobody may touch.
uint64_t Conversation::Reserve(Side& side, uint64_t bytes) {
  const uint64_t offset = (side.memory.size() + kGuardBytes + 7) / 8 * 8;
  side.memory.resize(offset + bytes + kGuardBytes);
  side.zones.push_back({offset, static_cast<uint32_t>(bytes)});
  return offset;
}

void Conversation::LayOut(int index) {
  Side& side = sides_[index];
  side.source = Reserve(side, options_.message_bytes_max);
  side.fixed = Reserve(side, options_.message_bytes_max);
  side.target = Reserve(side, options_.message_bytes_max);
  side.words = Reserve(side, 8 * kWords);
  // Not over `fixed`: a READ whose answer was lost is carried out again after the doomed SEND wrote
  // its first packets.
  if (index == 1) doomed_buffer_ = Reserve(side, options_.message_bytes_max);
}

// A range as up to max_sge pieces in random order.
std::vector<Conversation::Piece> Conversation::Split(uint64_t offset, uint32_t length) {
  std::vector<Piece> pieces;
  const uint64_t count = random_.Between(1, options_.max_sge);
  for (uint64_t i = 0; i < count; ++i) {
    const auto here = i + 1 == count ? length : static_cast<uint32_t>(random_.Below(length + 1));
    pieces.push_back({offset, here});
    offset += here;
    length -= here;
  }
  for (size_t i = pieces.size(); i > 1; --i) std::swap(pieces[i - 1], pieces[random_.Below(i)]);
  return pieces;
}

// Finds room for what the requests of one side bring back, and for the messages they send.
void Conversation::Place(int index) {
  Side& side = sides_[index];
  Side& peer = sides_[1 - index];
  for (Request& request : side.requests) {
    if (request.opcode == IBV_WR_LOCAL_INV) continue;
    if (IsAtomic(request.opcode)) {
      request.pieces = {{Reserve(side, 8), 8}};
    } else if (request.opcode == IBV_WR_RDMA_READ) {
      request.pieces = Split(Reserve(side, request.length), request.length);
    } else {
      const uint64_t room = options_.message_bytes_max - request.length;
      request.pieces = Split(side.source + random_.Below(room + 1), request.length);
    }
    if (IsSend(request.opcode)) {
      const auto slack = static_cast<uint32_t>(random_.Below(64));
      Buffer buffer{};
      buffer.pieces = Split(Reserve(peer, request.length + slack), request.length + slack);
      peer.buffers.push_back(buffer);
    } else if (request.opcode == IBV_WR_RDMA_WRITE_WITH_IMM) {
      peer.buffers.push_back({});
    }
  }
}

void Conversation::PlayOnModel(int index, Request& request) {
  if (request.opcode == IBV_WR_LOCAL_INV) return;
  Side& side = sides_[index];
  Side& peer = sides_[1 - index];
  if (IsAtomic(request.opcode)) {
    uint64_t word;
    std::memcpy(&word, &peer.model[request.remote_offset], 8);
    std::memcpy(&side.model[request.pieces[0].offset], &word, 8);
    if (request.opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
      word += request.compare_add;
    } else if (word == request.compare_add) {
      word = request.swap;
    }
    std::memcpy(&peer.model[request.remote_offset], &word, 8);
    return;
  }
  if (request.opcode == IBV_WR_RDMA_READ) {
    uint64_t from = request.remote_offset;
    for (const Piece& piece : request.pieces) {
      std::copy_n(peer.model.begin() + static_cast<ptrdiff_t>(from), piece.length,
                  side.model.begin() + static_cast<ptrdiff_t>(piece.offset));
      from += piece.length;
    }
    return;
  }
  std::vector<std::byte> bytes;
  for (const Piece& piece : request.pieces) {
    const auto from = side.model.begin() + static_cast<ptrdiff_t>(piece.offset);
    bytes.insert(bytes.end(), from, from + piece.length);
  }
  if (IsWrite(request.opcode)) {
    std::copy(bytes.begin(), bytes.end(),
              peer.model.begin() + static_cast<ptrdiff_t>(request.remote_offset));
  }
  if (request.opcode != IBV_WR_RDMA_WRITE) AddBuffer(index, request, bytes);
}

// What the peer's next receive completion must say.
void Conversation::AddBuffer(int index, const Request& request,
                             const std::vector<std::byte>& bytes) {
  Side& peer = sides_[1 - index];
  Buffer& buffer = peer.buffers[peer.buffers_played++];
  buffer.byte_len = request.length;
  buffer.solicited = (request.flags & IBV_SEND_SOLICITED) != 0;
  buffer.opcode = IsSend(request.opcode) ? IBV_WC_RECV : IBV_WC_RECV_RDMA_WITH_IMM;
  if (request.opcode == IBV_WR_SEND_WITH_INV) {
    buffer.flags = IBV_WC_WITH_INV;
    buffer.immediate = request.immediate;
  } else if (request.opcode != IBV_WR_SEND) {
    buffer.flags = IBV_WC_WITH_IMM;
    buffer.immediate = request.immediate;
  }
  if (!IsSend(request.opcode)) return;
  size_t done = 0;
  for (const Piece& piece : buffer.pieces) {
    const size_t here = std::min<size_t>(piece.length, bytes.size() - done);
    std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(done), here,
                peer.model.begin() + static_cast<ptrdiff_t>(piece.offset));
    done += here;
  }
}

// Makes the last request of side 0 one that must fail.
void Conversation::ApplyDoom() {
  if (options_.doom == Doom::kNone || options_.doom == Doom::kSilence) return;
  Side& side = sides_[0];
  Side& peer = sides_[1];
  Request bad{};
  bad.flags = 0;  // unsignaled: a failure completes all the same
  bad.opcode = IBV_WR_RDMA_WRITE;
  bad.length = std::min(options_.message_bytes_max, 3 * options_.mtu);
  bad.pieces = {{side.source, bad.length}};
  bad.remote_offset = peer.target;
  bad.expected = IBV_WC_REM_ACCESS_ERR;
  switch (options_.doom) {
    case Doom::kBadKey:
      bad.immediate = 1;  // see PostRequest: added to the key
      break;
    case Doom::kOutOfRange:
      bad.remote_offset = peer.memory.size() - bad.length + 1;
      break;
    case Doom::kTooLong: {
      bad.opcode = IBV_WR_SEND;
      bad.expected = IBV_WC_REM_INV_REQ_ERR;
      Buffer buffer{};
      buffer.pieces = {{doomed_buffer_, bad.length - 1}};
      buffer.expected = IBV_WC_LOC_LEN_ERR;
      peer.buffers.push_back(buffer);
      break;
    }
    default:
      bad.expected = IBV_WC_LOC_PROT_ERR;
      bad.pieces[0].offset = side.memory.size() - 1;
      break;
  }
  side.requests.push_back(bad);
}

Conversation::Conversation(VirtualNetwork& network, Way way, uint32_t qpn,
                           const ConversationOptions& options)
    : network_(network), options_(options), qpn_(qpn), random_(network.random.Next()) {
  for (int side : {0, 1}) LayOut(side);
  for (int side : {0, 1}) DrawRequests(side);
  for (int side : {0, 1}) Place(side);
  for (int side : {0, 1}) {
    Side& s = sides_[side];
    for (std::byte& byte : s.memory) byte = static_cast<std::byte>(random_.Next());
    std::memset(&s.memory[s.words], 0, 8 * kWords);
    s.model = s.memory;
    QueuePairLimits limits;
    limits.qpn = qpn_ + static_cast<uint32_t>(side);
    limits.max_send_wr = limits.max_recv_wr = options_.max_wr;
    limits.max_send_sge = limits.max_recv_sge = options_.max_sge;
    limits.signal_all = options_.signal_all;
    s.endpoint = std::make_unique<Endpoint>(
        network_, side == 0 ? way : Way{way.in, way.out}, limits,
        [this, side](const ibv_wc& completion, bool) { OnSend(side, completion); },
        [this, side](const ibv_wc& completion, bool solicited) {
          OnReceive(side, completion, solicited);
        });
    s.endpoint->refuse_rate = options_.refuse_rate;
    s.key = s.endpoint->keys.Add(s.memory.data(), s.memory.size(), testing::kAllAccess);
  }
  for (int side : {0, 1}) {
    for (Request& request : sides_[side].requests) {
      if (request.opcode == IBV_WR_SEND_WITH_INV || request.opcode == IBV_WR_LOCAL_INV) {
        Side& owner = sides_[request.opcode == IBV_WR_LOCAL_INV ? side : 1 - side];
        request.immediate = owner.endpoint->keys.Add(owner.memory.data(), 8, testing::kAllAccess);
        owner.windows.push_back(request.immediate);
      }
      PlayOnModel(side, request);
    }
  }
  ApplyDoom();
}

}  // namespace sumac::soft_nic::simulation
