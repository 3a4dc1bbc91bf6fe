// A list of work requests for each of two connected sides, with what must come of them.
//
// Both processes make the same plan from the same seed, so each knows all memory of both. Requests
// are played on a sequential model as they are added: RC promises that the peer's memory changes as
// if they ran one after the other. What a request brings back or delivers has a place of its own
// that nothing else writes to, so it can be compared as soon as its completion says so; what WRITEs
// and atomics leave behind is compared at the end, guard zones included.
//
// Plain data, one thread. std::runtime_error: more memory than an End has.
#pragma once

#include <infiniband/verbs.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tests/simulation/random.h"

namespace sumac::interop {

struct Piece {
  size_t offset;  // in its side's memory
  uint32_t length;
};

struct PlannedRequest {
  ibv_wr_opcode opcode;
  uint32_t length;
  unsigned flags;
  size_t remote_offset;
  uint64_t compare_add;
  uint64_t swap;
  uint32_t immediate;  // as in ibv_send_wr: big-endian
  std::vector<Piece> pieces;
};

// A posted receive, and what its completion must say.
struct PlannedReceive {
  std::vector<Piece> pieces;
  ibv_wc_opcode opcode;
  uint32_t byte_len;
  bool has_immediate;
  uint32_t immediate;
};

struct PlannedSide {
  std::vector<uint8_t> initial;
  std::vector<uint8_t> model;
  std::vector<PlannedRequest> requests;
  std::vector<PlannedReceive> receives;
  // Zones of its memory.
  size_t source = 0;  // what it sends from
  size_t target = 0;  // what the peer writes to and reads from
  size_t words = 0;   // what the peer's atomics work on
  bool unfenced_read = false;
};

class Plan {
 public:
  // No message is longer than `message_bytes_max`.
  Plan(uint64_t seed, uint32_t message_bytes_max);

  // One more request of side `requester`: any kind, any length, around whole packets often.
  void Add(int requester, uint32_t mtu_bytes);

  const PlannedSide& side(int index) const { return sides_[index]; }

 private:
  size_t Reserve(PlannedSide& side, size_t bytes);
  std::vector<Piece> Split(size_t offset, uint32_t length);
  uint32_t DrawLength(uint32_t mtu_bytes);
  void PlayAtomic(PlannedSide& side, PlannedSide& peer, PlannedRequest& request);
  void PlayRead(PlannedSide& side, PlannedSide& peer, PlannedRequest& request);
  void PlayMessage(PlannedSide& side, PlannedSide& peer, PlannedRequest& request);

  const uint32_t message_bytes_max_;
  soft_nic::simulation::Random random_;
  PlannedSide sides_[2];
};

}  // namespace sumac::interop
