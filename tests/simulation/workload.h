// What two connected endpoints do in a simulated run, and what must come of it.
//
// A Conversation draws a list of work requests for each of its two sides before the run and plays
// them on a sequential model at once: RC promises that the peer's memory changes as if they ran one
// after the other. The real run is then checked step by step (each completion in its order, each
// received message and READ byte by byte) and at its end: the whole memory of both sides, guard
// zones included, must equal the model's.
//
// Some conversations are doomed: their last request of one side is bad (key, range, length). Then
// that request must fail with its status, the rest must flush, and nothing outside the
// conversation's buffers may change. Others may break: faults that can last longer than the retries
// (Doom::kSilence). They either run to their end like all the others, or a side says "retries
// exceeded" and flushes.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tests/simulation/endpoint.h"

namespace sumac::soft_nic::simulation {

enum class Doom : uint8_t { kNone, kBadKey, kOutOfRange, kTooLong, kBadLocalKey, kSilence };

struct ConversationOptions {
  uint32_t mtu = 1024;
  uint32_t requests[2] = {20, 20};
  uint32_t message_bytes_max = 10000;
  uint32_t max_wr = 16;
  uint32_t max_sge = 4;
  uint8_t max_rd_atomic = 4;
  uint8_t ack_timeout = 14;
  uint8_t rnr_timer = 6;
  uint32_t first_psn[2] = {0, 0};
  bool signal_all = false;
  Duration receive_delay_max{};   // 0: all buffers that fit are posted before the start
  uint32_t buffers_per_turn = 0;  // of those posted late; 0: all that fit. 1 makes an RNR storm
  Duration post_gap_max{};
  uint32_t refuse_rate = 0;
  CongestionOptions congestion;
  Doom doom = Doom::kNone;  // of side 0's last request
};

class Conversation {
 public:
  // Side 0 sends on `way.out`. Takes the numbers `qpn` and `qpn` + 1.
  Conversation(VirtualNetwork& network, Way way, uint32_t qpn, const ConversationOptions& options);

  void Start();
  bool finished() const;
  // Everything that went wrong, in words; empty when nothing did.
  const std::string& complaints() const { return complaints_; }
  // After the run: memory against the model, nothing left to do.
  void CheckAtEnd();
  QueuePairCounters counters(int side) const { return sides_[side].endpoint->qp().counters(); }
  std::string Progress() const;
  uint64_t completed() const { return sides_[0].completed + sides_[1].completed; }
  // A side said "retries exceeded".
  bool broken() const { return options_.doom == Doom::kSilence && AnySideFailed(); }

 private:
  struct Piece {
    uint64_t offset;  // in its side's memory
    uint32_t length;
  };
  struct Request {
    ibv_wr_opcode opcode;
    uint32_t length;
    unsigned flags;
    uint64_t remote_offset;
    uint64_t compare_add;
    uint64_t swap;
    uint32_t immediate;
    std::vector<Piece> pieces;
    ibv_wc_status expected;
  };
  struct Buffer {
    std::vector<Piece> pieces;
    ibv_wc_opcode opcode;
    uint32_t byte_len;
    unsigned flags;
    uint32_t immediate;
    bool solicited;
    ibv_wc_status expected;
  };
  struct Side {
    std::unique_ptr<Endpoint> endpoint;
    std::vector<std::byte> memory;
    std::vector<std::byte> model;
    std::vector<Request> requests;
    std::vector<Buffer> buffers;
    std::vector<Piece> zones;  // everything that may ever change; guards lie between
    uint64_t source = 0;       // offsets of zones
    uint64_t fixed = 0;
    uint64_t target = 0;
    uint64_t words = 0;
    size_t buffers_played = 0;
    uint32_t key = 0;
    std::vector<uint32_t> windows;  // keys to be invalidated, by the peer or by itself
    size_t posted = 0;
    size_t completed = 0;
    size_t buffers_posted = 0;
    size_t received = 0;
    bool failed = false;  // an error completion was seen
    size_t failed_buffers = 0;
  };

  // workload_plan.cc: before the run.
  void DrawRequests(int side);
  Request DrawRequest(int side, bool* unfenced_read);
  uint32_t DrawLength();
  void LayOut(int side);
  uint64_t Reserve(Side& side, uint64_t bytes);
  std::vector<Piece> Split(uint64_t offset, uint32_t length);
  void Place(int side);
  void PlayOnModel(int side, Request& request);
  void AddBuffer(int side, const Request& request, const std::vector<std::byte>& bytes);
  void ApplyDoom();

  // workload.cc: the run.
  void PostSome(int side);
  bool PostRequest(int side, const Request& request);
  void PostBuffers(int side);
  void PostBuffersLater(int side);
  void OnSend(int side, const ibv_wc& completion);
  void OnReceive(int side, const ibv_wc& completion, bool solicited);
  void CheckBrought(int side, size_t first, size_t last);
  bool SameAsModel(const Side& side, const std::vector<Piece>& pieces) const;
  bool GuardsIntact(const Side& side) const;
  bool AnySideFailed() const { return sides_[0].failed || sides_[1].failed; }
  void Complain(int side, const std::string& what);

  VirtualNetwork& network_;
  const ConversationOptions options_;
  const uint32_t qpn_;
  Random random_;
  Side sides_[2];
  uint64_t doomed_buffer_ = 0;  // in side 1, for Doom::kTooLong
  std::string complaints_;
};

}  // namespace sumac::soft_nic::simulation
