// One queue pair's way to the memory of its peer on the same host: checks as the peer's own engine
// makes them, then a copy by this thread.
//
// Every access names queue pair and key in this device's hazard line first, and then looks at the
// peer's board (board_layout.h): the peer's queue pair takes requests of this one, the key is of
// its protection domain, range and rights fit. Whatever is not so, or in doubt, is "no", and goes
// as packets: it is the peer that refuses.
//
// Owned by the device's queue pair. Engine's owner only. No allocation, no lock; system calls where
// the peer's memory is private, and where a region is used for the first time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "verbs/soft_nic/engine/ports.h"
#include "verbs/soft_nic/local/remote_process.h"

namespace sumac::soft_nic {

class DirectPath : public DirectMemory {
 public:
  DirectPath() = default;
  DirectPath(const DirectPath&) = delete;
  DirectPath& operator=(const DirectPath&) = delete;

  // Who the two ends are. `peer` may come up later, and go away. Null: nobody on this host.
  void Connect(std::shared_ptr<RemoteProcess> peer, const Gid& local, uint32_t local_qpn,
               uint32_t remote_qpn);
  void Disconnect() { peer_ = nullptr; }
  [[nodiscard]] bool up() const override { return peer_ != nullptr && peer_->up(); }

  [[nodiscard]] bool Write(const RemoteRange& range, uint64_t offset,
                           std::span<const iovec> pieces) override;
  [[nodiscard]] bool Read(const RemoteRange& range, uint64_t offset,
                          std::span<const iovec> pieces) override;
  [[nodiscard]] bool CompareSwap(uint32_t rkey, uint64_t addr, uint64_t compare, uint64_t swap,
                                 uint64_t* original) override;
  [[nodiscard]] bool FetchAdd(uint32_t rkey, uint64_t addr, uint64_t add,
                              uint64_t* original) override;

 private:
  class Access;

  void ForgetRecords();

  std::shared_ptr<RemoteProcess> peer_;
  Gid local_{};
  uint32_t local_qpn_ = 0;
  uint32_t remote_qpn_ = 0;
  uint64_t opening_ = 0;  // of the peer's board: which one the records are of
  Remembered<QueuePairRecord> queue_pair_;
  Remembered<KeyRecord> key_;  // the last one used
};

}  // namespace sumac::soft_nic
