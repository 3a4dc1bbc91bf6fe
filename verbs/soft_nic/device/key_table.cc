#include "verbs/soft_nic/device/key_table.h"

#include "verbs/soft_nic/device/limits.h"

namespace sumac::soft_nic {

uint32_t KeyTable::Add(const Region& region) {
  if (regions_.size() >= kMemoryRegionsMax) return 0;
  // At the limit one draw in 4096 collides, so this ends soon; 0 and ~0 stay invalid for programs
  // that test for them.
  constexpr int kDraws = 64;
  for (int i = 0; i < kDraws; ++i) {
    const std::optional<uint32_t> key = DrawNumber();
    if (!key) return 0;
    if (*key == 0 || *key == ~0u || removed_.Holds(*key)) continue;
    if (windows_.contains(*key >> 8) || removed_windows_.Holds(*key >> 8)) continue;
    if (regions_.try_emplace(*key, region).second) return *key;
  }
  return 0;
}

void KeyTable::Remove(uint32_t key) {
  if (regions_.erase(key) != 0) removed_.Add(key);
}

std::byte* KeyTable::Find(uint32_t key, const ibv_pd* pd, uint64_t addr, size_t length,
                          int access) const {
  const auto found = regions_.find(key);
  if (found == regions_.end()) return nullptr;
  const Region& region = found->second;
  return region.pd == pd ? region.Find(addr, length, access) : nullptr;
}

}  // namespace sumac::soft_nic
