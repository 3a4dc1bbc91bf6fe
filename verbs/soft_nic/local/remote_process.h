// A device of another process on this host (or of this one), as seen by its board: who it is,
// whether it lives, what it has published, and the way to its bytes.
//
// Bytes in a file that can't shrink are mapped, each region at its first use; all others are copied
// by the kernel (process_vm_readv(2) and its sibling) where this process may do that; else they
// can't be reached. Up to kMappingsMax regions are mapped; one more takes the place of another.
//
// Made by HostPeers when it connects, shared with the queue pairs that are connected to it.
// Engine's owner only. Once it is Close()d nothing of it is mapped and nothing can be reached.
// Allocates when it opens; afterwards it makes system calls where a region is used for the first
// time, and none for mapped ones.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"

#include "verbs/soft_nic/link/unique_fd.h"
#include "verbs/soft_nic/local/board_layout.h"

namespace sumac::soft_nic {

// How a device introduces itself to a peer (host_peers.h); its descriptors come along.
struct Introduction {
  uint32_t first_qpn = 0;
  uint32_t line = 0;  // of the hazard page: the peer's
  std::array<uint64_t, 2> nonce{};
  uint64_t nonce_address = 0;
};

class RemoteProcess {
 public:
  static constexpr size_t kMappingsMax = 1024;

  RemoteProcess(pid_t pid, UniqueFd life) : pid_(pid), life_(std::move(life)) {}
  ~RemoteProcess() { Close(); }
  RemoteProcess(const RemoteProcess&) = delete;
  RemoteProcess& operator=(const RemoteProcess&) = delete;

  // Maps board and hazard page. FailedPrecondition when they are not what they should be.
  absl::Status Open(const Introduction& introduction, int board_fd, int hazard_fd);
  void Close();
  bool up() const { return board_ != nullptr; }
  uint64_t opening() const { return opening_; }  // 1, 2, ...: which Open that is
  // False once the process has ended; a system call.
  bool alive() const;
  int life_fd() const { return life_.get(); }  // a pidfd

  // --- Only while up ---
  const Published<QueuePairRecord>& queue_pair(uint32_t qpn) const {
    return board_->queue_pairs[(qpn - first_qpn_) % kBoardQueuePairs];
  }
  const Published<KeyRecord>& key(uint32_t place) const { return board_->keys[place]; }
  std::atomic<uint64_t>& hazard() { return *hazard_; }

  // Where the region's bytes can be touched, or null: they can only be copied.
  std::byte* Map(const KeyRecord& record, uint64_t sequence) {
    Mapping& mapping = mappings_[record.key >> 8 & (kMappingsMax - 1)];
    if (mapping.key == record.key && mapping.sequence == sequence) return mapping.bytes;
    return MapAnew(mapping, record, sequence);
  }
  // Copies to or from its memory at `place`. False when not all was copied.
  bool CopyTo(uint64_t place, std::span<const iovec> pieces);
  bool CopyFrom(uint64_t place, std::span<const iovec> pieces);
  // Gives back what is mapped of regions that are there no more.
  void Sweep();

 private:
  struct Mapping {
    uint64_t sequence = 0;
    uint32_t key = 0;
    std::byte* bytes = nullptr;  // of the region
    void* start = nullptr;       // what is mapped
    size_t size = 0;
  };

  std::byte* MapAnew(Mapping& mapping, const KeyRecord& record, uint64_t sequence);
  static void Unmap(Mapping& mapping);
  bool Copyable() const { return copyable_ && alive(); }

  const pid_t pid_;
  const UniqueFd life_;
  bool is_this_process_ = false;
  bool copyable_ = false;  // by the kernel
  uint32_t first_qpn_ = 0;
  uint64_t opening_ = 0;
  const BoardLayout* board_ = nullptr;
  HazardLayout* hazards_ = nullptr;
  std::atomic<uint64_t>* hazard_ = nullptr;
  std::vector<Mapping> mappings_;
};

}  // namespace sumac::soft_nic
