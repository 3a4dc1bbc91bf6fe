#include "verbs/soft_nic/local/direct_path.h"

#include <infiniband/verbs.h>

#include <atomic>
#include <utility>

#include "verbs/soft_nic/engine/dma.h"
#include "verbs/soft_nic/engine/placement.h"

namespace sumac::soft_nic {

// For its length the peer withdraws nothing that this queue pair or key stands for without waiting.
class DirectPath::Access {
 public:
  Access(DirectPath& path, const RemoteRange& range, int right) : hazard_(path.peer_->hazard()) {
    hazard_.exchange(HazardOf(path.remote_qpn_, range.rkey), std::memory_order_seq_cst);
    if (path.opening_ != path.peer_->opening()) path.ForgetRecords();
    granted_ = TakesRequests(path, right) && FindKey(path, range, right);
  }
  ~Access() { hazard_.store(0, std::memory_order_release); }
  Access(const Access&) = delete;
  Access& operator=(const Access&) = delete;

  bool granted() const { return granted_; }
  std::byte* mapped() const { return mapped_; }  // null: only the kernel gets there
  uint64_t place() const { return place_; }      // in the peer's memory

 private:
  bool TakesRequests(DirectPath& path, int right) {
    if (!path.queue_pair_.Read(path.peer_->queue_pair(path.remote_qpn_))) return false;
    const QueuePairRecord& peer = path.queue_pair_.record();
    domain_ = peer.domain;
    return peer.qpn == path.remote_qpn_ && peer.remote_qpn == path.local_qpn_ &&
           peer.remote_gid == path.local_ && (peer.access & right) != 0;
  }

  bool FindKey(DirectPath& path, const RemoteRange& range, int right) {
    Remembered<KeyRecord>& key = path.key_;
    const auto is_it = [&] { return key.record().key == range.rkey; };
    bool found = key.StillHolds() && is_it();
    for (uint32_t i = 0; i < kBoardKeyPlaces && !found; ++i) {
      found = key.Read(path.peer_->key(KeyPlace(range.rkey, i))) && is_it();
    }
    const KeyRecord& record = key.record();
    if (!found || record.key == 0 || record.domain != domain_ ||
        !record.Covers(range.addr, range.length, right)) {
      return false;
    }
    const uint64_t begin = range.addr - record.addr;
    place_ = record.place + begin;
    std::byte* const bytes = path.peer_->Map(record, key.sequence());
    mapped_ = bytes != nullptr ? bytes + begin : nullptr;
    return true;
  }

  std::atomic<uint64_t>& hazard_;
  bool granted_ = false;
  uint64_t domain_ = 0;
  std::byte* mapped_ = nullptr;
  uint64_t place_ = 0;
};

void DirectPath::Connect(std::shared_ptr<RemoteProcess> peer, const Gid& local, uint32_t local_qpn,
                         uint32_t remote_qpn) {
  peer_ = std::move(peer);
  local_ = local;
  local_qpn_ = local_qpn;
  remote_qpn_ = remote_qpn;
  opening_ = 0;  // of no board
}

void DirectPath::ForgetRecords() {
  opening_ = peer_->opening();
  queue_pair_.Forget();
  key_.Forget();
}

bool DirectPath::Write(const RemoteRange& range, uint64_t offset, std::span<const iovec> pieces) {
  if (!up()) return false;
  const Access access(*this, range, IBV_ACCESS_REMOTE_WRITE);
  if (!access.granted()) return false;
  if (access.mapped() == nullptr) return peer_->CopyTo(access.place() + offset, pieces);
  std::byte* to = access.mapped() + offset;
  for (const iovec& piece : pieces) {
    PlaceBytes(to, static_cast<const std::byte*>(piece.iov_base), piece.iov_len);
    to += piece.iov_len;
  }
  return true;
}

bool DirectPath::Read(const RemoteRange& range, uint64_t offset, std::span<const iovec> pieces) {
  if (!up()) return false;
  const Access access(*this, range, IBV_ACCESS_REMOTE_READ);
  if (!access.granted()) return false;
  if (access.mapped() == nullptr) return peer_->CopyFrom(access.place() + offset, pieces);
  const std::byte* from = access.mapped() + offset;
  for (const iovec& piece : pieces) {
    PlaceBytes(static_cast<std::byte*>(piece.iov_base), from, piece.iov_len);
    from += piece.iov_len;
  }
  return true;
}

bool DirectPath::CompareSwap(uint32_t rkey, uint64_t addr, uint64_t compare, uint64_t swap,
                             uint64_t* original) {
  if (!up()) return false;
  const Access access(*this, {rkey, addr, sizeof(uint64_t)}, IBV_ACCESS_REMOTE_ATOMIC);
  // The address as well as the bytes behind it, as in the responder.
  const auto at = reinterpret_cast<uintptr_t>(access.mapped());
  if (!access.granted() || at == 0 || (at | addr) % sizeof(uint64_t) != 0) return false;
  const ScopedDma dma;
  *original = compare;
  std::atomic_ref<uint64_t>(*reinterpret_cast<uint64_t*>(at))
      .compare_exchange_strong(*original, swap);
  return true;
}

bool DirectPath::FetchAdd(uint32_t rkey, uint64_t addr, uint64_t add, uint64_t* original) {
  if (!up()) return false;
  const Access access(*this, {rkey, addr, sizeof(uint64_t)}, IBV_ACCESS_REMOTE_ATOMIC);
  const auto at = reinterpret_cast<uintptr_t>(access.mapped());
  if (!access.granted() || at == 0 || (at | addr) % sizeof(uint64_t) != 0) return false;
  const ScopedDma dma;
  *original = std::atomic_ref<uint64_t>(*reinterpret_cast<uint64_t*>(at)).fetch_add(add);
  return true;
}

}  // namespace sumac::soft_nic
