// Memory windows: which binds are lawful, and what is open through them (IBTA vol. 1, 10.6.7).
#include "verbs/soft_nic/device/key_table.h"
#include "verbs/soft_nic/device/limits.h"

namespace sumac::soft_nic {
namespace {

constexpr int kWrites = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC;
// Local rights have no meaning for a window, and harm none: pyverbs asks for one.
constexpr int kWindowAccess =
    kWrites | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_ZERO_BASED | IBV_ACCESS_LOCAL_WRITE;

}  // namespace

uint32_t KeyTable::AddWindow(const ibv_pd* pd, ibv_mw_type type) {
  if (windows_.size() >= kMemoryWindowsMax) return 0;
  // No key that a bind may choose must be one of a region, or have been one lately.
  const auto taken = [this](uint32_t index) {
    if (windows_.contains(index) || removed_windows_.Holds(index)) return true;
    for (uint32_t key = index << 8; key >> 8 == index; ++key) {
      if (regions_.contains(key) || removed_.Holds(key)) return true;
    }
    return false;
  };
  constexpr int kDraws = 64;
  for (int i = 0; i < kDraws; ++i) {
    const std::optional<uint32_t> key = DrawNumber();
    if (!key) return 0;
    const uint32_t index = *key >> 8;
    if (index == 0 || index == 0xffffff || taken(index)) continue;
    windows_.try_emplace(index, Window{.pd = pd, .type = type, .key = *key, .range = {}});
    return *key;
  }
  return 0;
}

void KeyTable::RemoveWindow(uint32_t key) {
  const auto found = windows_.find(key >> 8);
  if (found == windows_.end()) return;
  Close(found->second);
  removed_windows_.Add(found->first);
  windows_.erase(found);
}

void KeyTable::Close(Window& window) {
  if (window.region_key == 0) return;
  --regions_.find(window.region_key)->second.windows;
  window.region_key = window.qpn = 0;
}

bool KeyTable::Bind(const WindowBind& bind, const ibv_pd* pd, uint32_t qpn) {
  const auto found = windows_.find(bind.rkey >> 8);
  if (found == windows_.end() || found->second.pd != pd) return false;
  Window& window = found->second;
  const auto region = regions_.find(bind.region_key);
  const bool has_region = region != regions_.end();
  if (!MayBind(window, bind, has_region ? &region->second : nullptr)) return false;
  Close(window);
  window.key = bind.rkey;
  if (bind.length == 0) return true;
  const bool zero_based = (bind.access & IBV_ACCESS_ZERO_BASED) != 0;
  const uint64_t addr = zero_based ? 0 : bind.addr;
  window.range = {.pd = pd,
                  .addr = addr,
                  .length = bind.length,
                  .access = bind.access | (region->second.access & IBV_ACCESS_ON_DEMAND),
                  .offset = bind.addr - addr + region->second.offset};
  window.region_key = bind.region_key;
  if (window.type == IBV_MW_TYPE_2) window.qpn = qpn;
  ++region->second.windows;
  return true;
}

bool KeyTable::MayBind(const Window& window, const WindowBind& bind, const Region* region) const {
  // A window of type 2 must be invalidated before it is bound anew; one of type 1 may be moved, and
  // closed by a bind to nothing.
  const bool type_2 = window.type == IBV_MW_TYPE_2;
  if (type_2 && window.region_key != 0) return false;
  if (bind.length == 0) return !type_2;
  if (region == nullptr || region->pd != window.pd) return false;
  if ((bind.access & ~kWindowAccess) != 0) return false;
  const bool writes = (bind.access & kWrites) != 0;
  const int needed = IBV_ACCESS_MW_BIND | (writes ? IBV_ACCESS_LOCAL_WRITE : 0);
  return region->Covers(bind.addr, bind.length, needed);
}

bool KeyTable::Invalidate(uint32_t key, const ibv_pd* pd, uint32_t qpn) {
  const auto found = windows_.find(key >> 8);
  if (found == windows_.end()) return false;
  Window& window = found->second;
  if (window.type != IBV_MW_TYPE_2 || window.key != key || window.region_key == 0 ||
      window.pd != pd || window.qpn != qpn) {
    return false;
  }
  Close(window);
  return true;
}

void KeyTable::ReleaseWindowsOf(uint32_t qpn) {
  for (auto& [index, window] : windows_) {
    if (window.qpn == qpn) Close(window);
  }
}

std::byte* KeyTable::FindInWindow(uint32_t key, const ibv_pd* pd, uint32_t qpn, uint64_t addr,
                                  size_t length, int access) const {
  const auto found = windows_.find(key >> 8);
  if (found == windows_.end()) return nullptr;
  const Window& window = found->second;
  if (window.key != key || window.region_key == 0 || window.pd != pd ||
      (window.type == IBV_MW_TYPE_2 && window.qpn != qpn)) {
    return nullptr;
  }
  return window.range.Find(addr, length, access);
}

}  // namespace sumac::soft_nic
