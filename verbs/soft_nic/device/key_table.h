// Registered memory by key: who may touch which bytes, and how.
//
// Keys are 32 random bits from the kernel, so that neither a neighbour's key nor a former one can
// be guessed from another (docs/isolation.md). One key serves as lkey and rkey of a region.
//
// Memory windows (key_table_windows.cc) are keys beside those of the regions that they are bound
// to: 24 random bits, which stay, and 8 that every bind chooses anew (IBTA vol. 1, 10.6.7). A
// window of type 1 is open to all queue pairs of its protection domain, one of type 2 to the queue
// pair that bound it (type 2B).
//
// Owned by the device context. Used only while the engine is owned: by the engine's owner on the
// data path (no lock, no allocation) and by control calls that entered exclusively.
#pragma once

#include <infiniband/verbs.h>

#include <cstddef>
#include <cstdint>

#include "absl/container/flat_hash_map.h"

#include "verbs/soft_nic/device/quarantine.h"
#include "verbs/soft_nic/engine/ports.h"

namespace sumac::soft_nic {

struct Region {
  const ibv_pd* pd = nullptr;
  uint64_t addr = 0;  // as work requests and peers name it
  uint64_t length = 0;
  int access = 0;        // IBV_ACCESS_*
  uint64_t offset = 0;   // added to such an address: where the byte is here (modulo 2^64)
  uint32_t windows = 0;  // bound to it

  // Whether the range lies inside, and all of `rights` are granted.
  bool Covers(uint64_t from, size_t bytes, int rights) const {
    // No sum of the peer's numbers: they may wrap.
    if ((access & rights) != rights || from < addr) return false;
    const uint64_t begin = from - addr;
    return begin <= length && bytes <= length - begin;
  }
  std::byte* Place(uint64_t from) const { return reinterpret_cast<std::byte*>(from + offset); }
  // The bytes, there to be used, or null: not covered, or memory that can't be had.
  std::byte* Find(uint64_t from, size_t bytes, int rights) const {
    // One test for both: other regions pay nothing for on-demand ones.
    if ((access & (rights | IBV_ACCESS_ON_DEMAND)) != rights) {
      return FindOnDemand(from, bytes, rights);
    }
    return Covers(from, bytes, rights) ? Place(from) : nullptr;
  }

 private:
  std::byte* FindOnDemand(uint64_t from, size_t bytes, int rights) const;  // on_demand.cc
};

struct Window {
  const ibv_pd* pd = nullptr;
  ibv_mw_type type = IBV_MW_TYPE_1;
  uint32_t key = 0;
  uint32_t qpn = 0;         // type 2: whose it is while bound
  uint32_t region_key = 0;  // 0: not bound, and closed
  Region range;             // what is open while bound
};

class KeyTable {
 public:
  // A new key for `region`; 0 when no more can be held.
  uint32_t Add(const Region& region);
  // Of a region without windows.
  void Remove(uint32_t key);
  // What a key that Add gave stands for, to look at or to change. Until the next Add or Remove.
  Region& at(uint32_t key) { return regions_.find(key)->second; }
  // The same for any number; null when it is no key of a region.
  const Region* find(uint32_t key) const {
    const auto found = regions_.find(key);
    return found != regions_.end() ? &found->second : nullptr;
  }
  // The bytes, or null: unknown key, another protection domain, outside the region, not all of
  // `access` granted, or memory that is not there (on_demand.h).
  std::byte* Find(uint32_t key, const ibv_pd* pd, uint64_t addr, size_t length, int access) const;
  size_t size() const { return regions_.size(); }

  // A new window, not bound; 0 when no more can be held.
  uint32_t AddWindow(const ibv_pd* pd, ibv_mw_type type);
  // Closes it first. Any of its keys will do, here and below.
  void RemoveWindow(uint32_t key);
  // By a queue pair of `pd`. False, and nothing changed, when a rule forbids it.
  bool Bind(const WindowBind& bind, const ibv_pd* pd, uint32_t qpn);
  // Closes a window of type 2 by its present key. False: there is none, or not for this queue pair.
  bool Invalidate(uint32_t key, const ibv_pd* pd, uint32_t qpn);
  // Closes the windows of a queue pair that is being destroyed: its number may come again.
  void ReleaseWindowsOf(uint32_t qpn);
  // As Find, through a window and for the peer of `qpn`.
  std::byte* FindInWindow(uint32_t key, const ibv_pd* pd, uint32_t qpn, uint64_t addr,
                          size_t length, int access) const;
  size_t window_count() const { return windows_.size(); }

 private:
  static constexpr size_t kQuarantined = 16384;

  bool MayBind(const Window& window, const WindowBind& bind, const Region* region) const;
  void Close(Window& window);

  absl::flat_hash_map<uint32_t, Region> regions_;
  absl::flat_hash_map<uint32_t, Window> windows_;  // by the upper 24 bits of the key
  Quarantine removed_{kQuarantined};
  Quarantine removed_windows_{kQuarantined};  // likewise by the upper 24 bits
};

// The key table as one queue pair sees it.
class ProtectedMemory : public Memory {
 public:
  // `qpn` 0: of no queue pair, for which windows are closed.
  ProtectedMemory(KeyTable& keys, const ibv_pd* pd, uint32_t qpn = 0)
      : keys_(keys), pd_(pd), qpn_(qpn) {}
  std::byte* Local(uint32_t lkey, uint64_t addr, size_t length, bool write) override {
    return keys_.Find(lkey, pd_, addr, length, write ? IBV_ACCESS_LOCAL_WRITE : 0);
  }
  std::byte* Remote(uint32_t rkey, uint64_t addr, size_t length, int access) override {
    std::byte* const bytes = keys_.Find(rkey, pd_, addr, length, access);
    if (bytes != nullptr) return bytes;
    return keys_.FindInWindow(rkey, pd_, qpn_, addr, length, access);
  }
  // Only memory windows can be invalidated (IBTA vol. 1, 10.6.7.2).
  bool Invalidate(uint32_t rkey) override { return keys_.Invalidate(rkey, pd_, qpn_); }
  bool Bind(const WindowBind& bind) override { return keys_.Bind(bind, pd_, qpn_); }
  const ibv_pd* pd() const { return pd_; }

 private:
  KeyTable& keys_;
  const ibv_pd* pd_;
  const uint32_t qpn_;
};

}  // namespace sumac::soft_nic
