// A long mixture in a pipeline, both sides asking at once, in rounds with a connection of their own
// each: what is asked and at what lengths, the path MTU, the first PSNs, the pieces of memory and
// the depth of the pipeline are drawn from the seed (plan.h). Checked: one completion a signaled
// request and one a message, in order, each with its fields; what arrived, as it arrives; and after
// each round all memory of both sides.

#include <sched.h>

#include <chrono>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "tests/interop/rc_peer/cases.h"
#include "tests/interop/rc_peer/plan.h"

namespace sumac::interop {
namespace {

constexpr auto kPatience = std::chrono::seconds(30);  // without any completion
constexpr uint64_t kRoundOperations = 4000;
constexpr uint32_t kMessageBytesMax = 64 << 10;

ibv_wc_opcode CompletionOf(ibv_wr_opcode opcode) {
  switch (opcode) {
    case IBV_WR_RDMA_WRITE:
    case IBV_WR_RDMA_WRITE_WITH_IMM:
      return IBV_WC_RDMA_WRITE;
    case IBV_WR_RDMA_READ:
      return IBV_WC_RDMA_READ;
    case IBV_WR_ATOMIC_CMP_AND_SWP:
      return IBV_WC_COMP_SWAP;
    case IBV_WR_ATOMIC_FETCH_AND_ADD:
      return IBV_WC_FETCH_ADD;
    default:
      return IBV_WC_SEND;
  }
}

class Player {
 public:
  Player(Context& c, const PlannedSide& plan, size_t window)
      : channel_(c.channel), end_(c.end), plan_(plan), window_(window) {}

  void Run() {
    std::memcpy(end_.memory().data(), plan_.initial.data(), plan_.initial.size());
    for (size_t i = 0; i < plan_.receives.size(); ++i) {
      std::vector<ibv_sge> sges = SgesOf(plan_.receives[i].pieces);
      ibv_recv_wr request{};
      request.wr_id = i;
      request.sg_list = sges.data();
      request.num_sge = static_cast<int>(sges.size());
      end_.PostReceive(request);
    }
    channel_.Sync();
    auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (completed_ < plan_.requests.size() || received_ < plan_.receives.size()) {
      while (posted_ < plan_.requests.size() && posted_ - completed_ < window_) PostNext();
      ibv_wc wc{};
      bool moved = false;
      while (end_.PollSend(wc)) OnSend(wc), moved = true;
      while (end_.PollReceive(wc)) OnReceive(wc), moved = true;
      if (moved) {
        deadline = std::chrono::steady_clock::now() + kPatience;
        continue;
      }
      Check(std::chrono::steady_clock::now() < deadline, "no completion in 30 s" + Progress());
      sched_yield();
    }
    channel_.Sync();
    ibv_wc wc{};
    Check(!end_.PollSend(wc) && !end_.PollReceive(wc), "more completions than requests");
    CompareAll();
  }

 private:
  std::vector<ibv_sge> SgesOf(const std::vector<Piece>& pieces) const {
    std::vector<ibv_sge> sges;
    for (const Piece& piece : pieces)
      sges.push_back(end_.Sge(&end_.memory()[piece.offset], piece.length));
    return sges;
  }

  void PostNext() {
    const PlannedRequest& planned = plan_.requests[posted_];
    std::vector<ibv_sge> sges = SgesOf(planned.pieces);
    ibv_send_wr request = end_.Request(planned.opcode, sges, planned.remote_offset - kZoneBytes);
    request.wr_id = posted_;
    request.send_flags = planned.flags;
    if (posted_ + 1 == plan_.requests.size()) request.send_flags |= IBV_SEND_SIGNALED;
    if (planned.length > end_.qp().max_inline_bytes()) request.send_flags &= ~IBV_SEND_INLINE;
    request.imm_data = planned.immediate;
    if (planned.opcode == IBV_WR_ATOMIC_CMP_AND_SWP ||
        planned.opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
      request.wr.atomic.compare_add = planned.compare_add;
      request.wr.atomic.swap = planned.swap;
    }
    end_.Post(request);
    ++posted_;
  }

  void OnSend(const ibv_wc& wc) {
    const auto id = static_cast<size_t>(wc.wr_id);
    const std::string what = "request " + std::to_string(id);
    Check(id >= completed_ && id < posted_, what + " completed out of order" + Progress());
    for (; completed_ < id; ++completed_) {
      Check((plan_.requests[completed_].flags & IBV_SEND_SIGNALED) == 0,
            "request " + std::to_string(completed_) + " has no completion");
      CheckBrought(completed_);
    }
    const PlannedRequest& request = plan_.requests[id];
    ExpectStatus(wc, IBV_WC_SUCCESS, what + Progress());
    Check(wc.opcode == CompletionOf(request.opcode), what + ": another opcode");
    Check(wc.qp_num == end_.qp().qpn(), what + ": another queue pair");
    // Of what takes nothing back the specification does not say it.
    const bool brings = wc.opcode == IBV_WC_RDMA_READ || wc.opcode == IBV_WC_COMP_SWAP ||
                        wc.opcode == IBV_WC_FETCH_ADD;
    Check(!brings || wc.byte_len == request.length, what + ": another byte_len");
    CheckBrought(id);
    completed_ = id + 1;
  }

  // READs and atomics: what they brought.
  void CheckBrought(size_t id) {
    CheckPieces(plan_.requests[id].pieces, "request " + std::to_string(id) + " brought");
  }

  void OnReceive(const ibv_wc& wc) {
    const std::string what = "receive " + std::to_string(received_);
    Check(received_ < plan_.receives.size() && wc.wr_id == received_,
          "receive " + std::to_string(wc.wr_id) + " completed out of order" + Progress());
    const PlannedReceive& receive = plan_.receives[received_];
    ExpectStatus(wc, IBV_WC_SUCCESS, what + Progress());
    Check(wc.opcode == receive.opcode, what + ": another opcode");
    Check(wc.qp_num == end_.qp().qpn(), what + ": another queue pair");
    Check(wc.byte_len == receive.byte_len, what + ": byte_len " + std::to_string(wc.byte_len) +
                                               ", not " + std::to_string(receive.byte_len));
    const bool has_immediate = (wc.wc_flags & IBV_WC_WITH_IMM) != 0;
    Check(has_immediate == receive.has_immediate &&
              (!has_immediate || wc.imm_data == receive.immediate),
          what + ": another immediate");
    CheckPieces(receive.pieces, what + " got");
    ++received_;
  }

  void CheckPieces(const std::vector<Piece>& pieces, const std::string& what) {
    for (const Piece& piece : pieces) {
      if (piece.length == 0) continue;
      Check(
          std::memcmp(&end_.memory()[piece.offset], &plan_.model[piece.offset], piece.length) == 0,
          what + " wrong bytes");
    }
  }

  void CompareAll() {
    const uint8_t* const real = end_.memory().data();
    if (std::memcmp(real, plan_.model.data(), plan_.model.size()) == 0) return;
    size_t at = 0;
    while (real[at] == plan_.model[at]) ++at;
    Check(false, "memory differs from the model at offset " + std::to_string(at) +
                     " (target zone " + std::to_string(plan_.target) + ", words " +
                     std::to_string(plan_.words) + ")");
  }

  std::string Progress() const {
    return " (" + std::to_string(posted_) + " posted and " + std::to_string(completed_) +
           " completed of " + std::to_string(plan_.requests.size()) + " requests, " +
           std::to_string(received_) + " of " + std::to_string(plan_.receives.size()) +
           " messages received)";
  }

  Channel& channel_;
  End& end_;
  const PlannedSide& plan_;
  const size_t window_;
  size_t posted_ = 0;
  size_t completed_ = 0;
  size_t received_ = 0;
};

// The same first PSNs on both sides: `mine` of this one.
Path DrawPath(uint64_t seed, uint64_t round, int side) {
  soft_nic::simulation::Random random(seed);
  uint32_t psns[2];
  for (uint32_t& psn : psns) {
    psn =
        static_cast<uint32_t>(random.Chance(5000) ? random.Next() : ~random.Below(2000)) & 0xffffff;
  }
  Path path;
  path.mtu_bytes = 256u << (round % 5);
  path.local_psn = psns[side];
  path.remote_psn = psns[1 - side];
  return path;
}

}  // namespace

uint64_t RandomOperations(Context& c) {
  const int side = c.requester ? 0 : 1;  // who is the requester elsewhere draws first here
  for (uint64_t done = 0, round = 0; done < c.operations; ++round) {
    const uint64_t seed = c.seed + round;
    const Path path = DrawPath(seed, round, side);
    const uint64_t count = std::min(kRoundOperations, c.operations - done);
    Plan plan(seed, kMessageBytesMax);
    for (uint64_t i = 0; i < count; ++i) {
      plan.Add(static_cast<int>(i % 2), std::min(path.mtu_bytes, c.end.mtu_bytes_max()));
    }
    const size_t window = 2 + seed % (kSendsMax / 2);
    c.end.Reconnect(path);
    try {
      Player(c, plan.side(side), window).Run();
    } catch (const std::exception& error) {
      Check(false, absl::StrCat("round ", round, " (path MTU ", path.mtu_bytes, ", window ", window,
                                "): ", error.what()));
    }
    done += count;
  }
  return c.operations;
}

}  // namespace sumac::interop
