#include "tests/simulation/workload.h"

#include <cerrno>
#include <cstring>

namespace sumac::soft_nic::simulation {
namespace {

// Between two rounds of posting, at least.
constexpr Duration kPause = std::chrono::microseconds(1);
constexpr Duration kPauseWhenFull = std::chrono::microseconds(20);

}  // namespace

void Conversation::Start() {
  for (int side : {0, 1}) {
    ReceiveConfig receive;
    receive.remote_qpn = qpn_ + static_cast<uint32_t>(1 - side);
    receive.expected_psn = options_.first_psn[1 - side];
    receive.mtu_bytes = options_.mtu;
    receive.max_dest_rd_atomic = options_.max_rd_atomic;
    receive.min_rnr_timer = options_.rnr_timer;
    receive.access_flags = testing::kAllAccess;
    SendConfig send;
    send.first_psn = options_.first_psn[side];
    send.timeout = options_.ack_timeout;
    send.max_rd_atomic = options_.max_rd_atomic;
    send.congestion = options_.congestion;
    sides_[side].endpoint->Connect(receive, send);
  }
  for (int side : {0, 1}) {
    if (options_.receive_delay_max == Duration::zero()) {
      PostBuffers(side);
    } else {
      PostBuffersLater(side);
    }
    PostSome(side);
  }
}

// Posts a few requests, and comes again later.
void Conversation::PostSome(int index) {
  Side& side = sides_[index];
  uint64_t burst = random_.Between(1, 8);
  Duration pause = kPause;
  for (; burst > 0 && side.posted < side.requests.size(); --burst) {
    if (!PostRequest(index, side.requests[side.posted])) {
      pause = kPauseWhenFull;
      break;
    }
    ++side.posted;
  }
  side.endpoint->Ring();
  if (side.posted == side.requests.size()) return;
  const auto gap = static_cast<uint64_t>(options_.post_gap_max.count());
  network_.After(pause + Duration(static_cast<int64_t>(random_.Below(gap + 1))),
                 [this, index] { PostSome(index); });
}

// False when the queue is full.
bool Conversation::PostRequest(int index, const Request& request) {
  Side& side = sides_[index];
  Side& peer = sides_[1 - index];
  std::vector<ibv_sge> sges;
  for (const Piece& piece : request.pieces) {
    sges.push_back(
        {reinterpret_cast<uint64_t>(side.memory.data() + piece.offset), piece.length, side.key});
  }
  ibv_send_wr wr{};
  wr.wr_id = side.posted;
  wr.sg_list = sges.data();
  wr.num_sge = static_cast<int>(sges.size());
  wr.opcode = request.opcode;
  wr.send_flags = request.flags;
  const uint64_t remote = reinterpret_cast<uint64_t>(peer.memory.data() + request.remote_offset);
  if (request.opcode == IBV_WR_ATOMIC_CMP_AND_SWP ||
      request.opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
    wr.wr.atomic = {remote, request.compare_add, request.swap, peer.key};
  } else {
    const bool bad_key = options_.doom == Doom::kBadKey && request.expected != IBV_WC_SUCCESS;
    wr.wr.rdma = {remote, bad_key ? peer.key + 1000 : peer.key};
  }
  wr.imm_data = request.immediate;  // shares its place with invalidate_rkey
  const int error = side.endpoint->qp().PostSend(wr);
  if (error != 0 && error != ENOMEM) {
    Complain(index, "post refused with errno " + std::to_string(error));
  }
  return error == 0;
}

void Conversation::PostBuffers(int index) {
  Side& side = sides_[index];
  uint32_t left = options_.buffers_per_turn != 0 ? options_.buffers_per_turn : ~0u;
  for (; side.buffers_posted < side.buffers.size() && left > 0; ++side.buffers_posted, --left) {
    std::vector<ibv_sge> sges;
    for (const Piece& piece : side.buffers[side.buffers_posted].pieces) {
      sges.push_back(
          {reinterpret_cast<uint64_t>(side.memory.data() + piece.offset), piece.length, side.key});
    }
    ibv_recv_wr wr{};
    wr.wr_id = side.buffers_posted;
    wr.sg_list = sges.data();
    wr.num_sge = static_cast<int>(sges.size());
    if (side.endpoint->qp().PostReceive(wr) != 0) break;
  }
  side.endpoint->Ring();
}

void Conversation::PostBuffersLater(int index) {
  const auto most = static_cast<uint64_t>(options_.receive_delay_max.count());
  network_.After(Duration(static_cast<int64_t>(random_.Below(most + 1))), [this, index] {
    PostBuffers(index);
    // Nobody will ever take a buffer from a broken connection.
    if (sides_[index].buffers_posted < sides_[index].buffers.size() && !AnySideFailed()) {
      PostBuffersLater(index);
    }
  });
}

void Conversation::OnSend(int index, const ibv_wc& completion) {
  Side& side = sides_[index];
  network_.Trace(completion.wr_id << 8 | completion.status);
  const auto id = static_cast<size_t>(completion.wr_id);
  if (id < side.completed || id >= side.posted) {
    return Complain(index, "completion of request " + std::to_string(id) + " out of order");
  }
  for (size_t skipped = side.completed; skipped < id; ++skipped) {
    if (side.failed || options_.signal_all ||
        (side.requests[skipped].flags & IBV_SEND_SIGNALED) != 0) {
      Complain(index, "no completion of request " + std::to_string(skipped));
    }
  }
  if (completion.status == IBV_WC_SUCCESS) CheckBrought(index, side.completed, id);
  side.completed = id + 1;
  const Request& request = side.requests[id];
  ibv_wc_status expected = request.expected;
  if (side.failed) {
    expected = IBV_WC_WR_FLUSH_ERR;
  } else if (completion.status != IBV_WC_SUCCESS) {
    side.failed = true;
    if (options_.doom == Doom::kSilence) expected = IBV_WC_RETRY_EXC_ERR;
    // Answers to earlier READs and atomics may be lost for good once the peer has ended the
    // connection.
    const bool brings = request.opcode == IBV_WR_RDMA_READ ||
                        request.opcode == IBV_WR_ATOMIC_CMP_AND_SWP ||
                        request.opcode == IBV_WR_ATOMIC_FETCH_AND_ADD;
    if (options_.doom != Doom::kNone && brings) expected = IBV_WC_RETRY_EXC_ERR;
    // The peer of a failed side: its own requests flush, or find nobody to answer.
    if (index == 1 && options_.doom != Doom::kNone &&
        (completion.status == IBV_WC_WR_FLUSH_ERR || completion.status == IBV_WC_RETRY_EXC_ERR)) {
      return;
    }
  }
  if (completion.status != expected) {
    Complain(index, "request " + std::to_string(id) + " completed with " +
                        ibv_wc_status_str(completion.status) + ", not " +
                        ibv_wc_status_str(expected));
  }
  if (completion.status == IBV_WC_SUCCESS && completion.byte_len != request.length) {
    Complain(index, "wrong byte_len");
  }
}

// What READs and atomics among requests first ... last brought (pieces of other requests are never
// written to).
void Conversation::CheckBrought(int index, size_t first, size_t last) {
  const Side& side = sides_[index];
  for (size_t i = first; i <= last; ++i) {
    if (!SameAsModel(side, side.requests[i].pieces)) {
      Complain(index, "request " + std::to_string(i) + " brought wrong bytes");
    }
  }
}

void Conversation::OnReceive(int index, const ibv_wc& completion, bool solicited) {
  Side& side = sides_[index];
  network_.Trace(completion.wr_id << 16 | completion.status);
  const size_t id = side.received++;
  if (completion.wr_id != id) {
    return Complain(index, "receive " + std::to_string(completion.wr_id) + " out of order");
  }
  const Buffer& buffer = side.buffers[id];
  if (completion.status == IBV_WC_WR_FLUSH_ERR && options_.doom != Doom::kNone) {
    ++side.failed_buffers;
    return;
  }
  if (completion.status != buffer.expected || side.failed_buffers != 0) {
    return Complain(index, "receive " + std::to_string(id) + " completed with " +
                               ibv_wc_status_str(completion.status));
  }
  if (completion.status != IBV_WC_SUCCESS) return;
  if (completion.opcode != buffer.opcode || completion.byte_len != buffer.byte_len ||
      completion.wc_flags != buffer.flags || solicited != buffer.solicited ||
      (buffer.flags != 0 && completion.imm_data != buffer.immediate)) {
    Complain(index, "receive " + std::to_string(id) + " announced wrongly");
  }
  if (!SameAsModel(side, buffer.pieces)) {
    Complain(index, "receive " + std::to_string(id) + " has wrong bytes");
  }
  if (options_.receive_delay_max == Duration::zero()) PostBuffers(index);
}

bool Conversation::SameAsModel(const Side& side, const std::vector<Piece>& pieces) const {
  for (const Piece& piece : pieces) {
    if (std::memcmp(side.memory.data() + piece.offset, side.model.data() + piece.offset,
                    piece.length) != 0) {
      return false;
    }
  }
  return true;
}

// The model never writes there.
bool Conversation::GuardsIntact(const Side& side) const {
  std::vector<Piece> guards;
  uint64_t at = 0;
  for (const Piece& zone : side.zones) {
    guards.push_back({at, static_cast<uint32_t>(zone.offset - at)});
    at = zone.offset + zone.length;
  }
  guards.push_back({at, static_cast<uint32_t>(side.memory.size() - at)});
  return SameAsModel(side, guards);
}

bool Conversation::finished() const {
  const bool all_received =
      options_.doom == Doom::kNone || (options_.doom == Doom::kSilence && !AnySideFailed());
  for (const Side& side : sides_) {
    if (side.completed < side.requests.size()) return false;
    if (all_received && side.received < side.buffers.size()) return false;
  }
  return true;
}

void Conversation::CheckAtEnd() {
  for (int index : {0, 1}) {
    Side& side = sides_[index];
    QueuePair& qp = side.endpoint->qp();
    if (qp.NextTimeout() != kNever) Complain(index, "a timer still runs");
    if (side.endpoint->delivered != qp.counters().packets_received) {
      Complain(index, "packets_received is not what was delivered");
    }
    const bool silence = options_.doom == Doom::kSilence;
    const bool doomed = silence ? AnySideFailed() : options_.doom != Doom::kNone;
    // A peer is told of the end only by a NAK of its own.
    const bool untold = silence || (index == 1 && options_.doom == Doom::kBadLocalKey);
    if (doomed && !silence && index == 0 && !side.failed) {
      Complain(index, "the bad request did not fail");
    }
    if ((qp.state() == IBV_QPS_ERR) != (untold ? side.failed : doomed)) {
      Complain(index, "wrong state at the end");
    }
    if (doomed && !silence && index == 1 &&
        !SameAsModel(side, {{side.target, options_.message_bytes_max}})) {
      Complain(index, "a refused request changed memory");
    }
    if (!GuardsIntact(side)) Complain(index, "bytes between the buffers changed");
    if (doomed) continue;
    for (uint32_t window : side.windows) {
      if (side.endpoint->keys.Invalidate(window)) Complain(index, "a key was not invalidated");
    }
    if (side.memory != side.model) {
      size_t at = 0;
      while (side.memory[at] == side.model[at]) ++at;
      Complain(index, "memory differs from the model at offset " + std::to_string(at));
    }
  }
}

std::string Conversation::Progress() const {
  std::string text;
  for (int index : {0, 1}) {
    const Side& side = sides_[index];
    text += " side " + std::to_string(index) + ": " + std::to_string(side.completed) + "/" +
            std::to_string(side.requests.size()) + " requests, " + std::to_string(side.received) +
            "/" + std::to_string(side.buffers.size()) + " receives, " +
            std::to_string(counters(index).timeouts) + " timeouts;";
  }
  return text;
}

void Conversation::Complain(int index, const std::string& what) {
  if (complaints_.size() > 2000) return;
  complaints_ += "QP " + std::to_string(qpn_ + static_cast<uint32_t>(index)) + ": " + what + "\n";
}

}  // namespace sumac::soft_nic::simulation
