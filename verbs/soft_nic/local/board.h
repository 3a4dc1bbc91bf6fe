// A device's own board: what it publishes to peers on the same host (board_layout.h).
//
// Owned by HostPeers. Publish and Withdraw by the engine's owner; the questions about hazards by
// any thread. Making one fails with what the kernel said; nothing else fails: what has no room is
// not on the board, and peers use packets.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"

#include "verbs/soft_nic/link/unique_fd.h"
#include "verbs/soft_nic/local/board_layout.h"

namespace sumac::soft_nic {

class Board {
 public:
  static absl::StatusOr<std::unique_ptr<Board>> Create();
  ~Board();
  Board(const Board&) = delete;
  Board& operator=(const Board&) = delete;

  // A key that is there is changed.
  void PublishKey(const KeyRecord& record);
  void WithdrawKey(uint32_t key);
  // `index` is the queue pair's place: its number, counted from the device's first one.
  void PublishQueuePair(uint32_t index, const QueuePairRecord& record);
  // True when it was there.
  bool WithdrawQueuePair(uint32_t index);
  void WithdrawQueuePairs();

  // Whether the peer with this line is in the middle of using what was withdrawn.
  bool UsesKey(uint32_t line, uint32_t key) const {
    return static_cast<uint32_t>(InUse(line)) == key;
  }
  bool UsesQueuePair(uint32_t line, uint32_t qpn) const { return InUse(line) >> 32 == qpn; }
  // For a peer that is gone.
  void ClearLine(uint32_t line) { hazards_->lines[line].in_use.store(0); }

  const std::array<uint64_t, 2>& nonce() const { return nonce_; }
  const void* nonce_address() const { return nonce_.data(); }
  int board_fd() const { return board_fd_.get(); }  // can only be read
  int hazard_fd() const { return hazard_fd_.get(); }

 private:
  Board() = default;
  uint64_t InUse(uint32_t line) const {
    return hazards_->lines[line].in_use.load(std::memory_order_seq_cst);
  }

  std::array<uint64_t, 2> nonce_{};
  UniqueFd board_fd_;
  UniqueFd hazard_fd_;
  BoardLayout* board_ = nullptr;
  HazardLayout* hazards_ = nullptr;
};

}  // namespace sumac::soft_nic
