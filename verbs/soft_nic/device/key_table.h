// Registered memory by key: who may touch which bytes, and how.
//
// Keys are 32 random bits from the kernel, so that neither a neighbour's key nor a former one can
// be guessed from another (docs/isolation.md). One key serves as lkey and rkey of a region.
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
  int access = 0;       // IBV_ACCESS_*
  uint64_t offset = 0;  // added to such an address: where the byte is here (modulo 2^64)
};

class KeyTable {
 public:
  // A new key for `region`; 0 when no more can be held.
  uint32_t Add(const Region& region);
  void Remove(uint32_t key);
  // What a key that Add gave stands for, to look at or to change. Until the next Add or Remove.
  Region& at(uint32_t key) { return regions_.find(key)->second; }
  // The bytes, or null: unknown key, another protection domain, outside the region, or not all of
  // `access` granted.
  std::byte* Find(uint32_t key, const ibv_pd* pd, uint64_t addr, size_t length, int access) const;
  size_t size() const { return regions_.size(); }

 private:
  static constexpr size_t kQuarantined = 16384;

  absl::flat_hash_map<uint32_t, Region> regions_;
  Quarantine removed_{kQuarantined};
};

// The key table as one protection domain's queue pairs see it.
class ProtectedMemory : public Memory {
 public:
  ProtectedMemory(const KeyTable& keys, const ibv_pd* pd) : keys_(keys), pd_(pd) {}
  std::byte* Local(uint32_t lkey, uint64_t addr, size_t length, bool write) override {
    return keys_.Find(lkey, pd_, addr, length, write ? IBV_ACCESS_LOCAL_WRITE : 0);
  }
  std::byte* Remote(uint32_t rkey, uint64_t addr, size_t length, int access) override {
    return keys_.Find(rkey, pd_, addr, length, access);
  }
  // Only memory windows can be invalidated by a peer (IBTA vol. 1, 10.6.7.2); there are none yet.
  bool Invalidate(uint32_t) override { return false; }

 private:
  const KeyTable& keys_;
  const ibv_pd* pd_;
};

}  // namespace sumac::soft_nic
