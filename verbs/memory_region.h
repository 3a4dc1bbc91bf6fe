// Registered memory: bytes that the device may touch, with the keys that name them.
//
// The caller owns the bytes and keeps them mapped while the region lives. Keeps its protection
// domain alive. Any thread. InvalidArgument for an empty range or remote rights that need
// IBV_ACCESS_LOCAL_WRITE and lack it (IBTA vol. 1, 10.6.3.1).
#pragma once

#include <infiniband/verbs.h>

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"

#include "verbs/protection_domain.h"

namespace sumac::verbs {

class MemoryRegion {
 public:
  // `access`: IBV_ACCESS_* bits.
  static absl::StatusOr<std::unique_ptr<MemoryRegion>> Register(
      std::shared_ptr<ProtectionDomain> pd, void* addr, size_t length, int access);
  ~MemoryRegion();
  MemoryRegion(const MemoryRegion&) = delete;
  MemoryRegion& operator=(const MemoryRegion&) = delete;

  void* addr() const { return mr_->addr; }
  size_t length() const { return mr_->length; }
  uint32_t lkey() const { return mr_->lkey; }
  uint32_t rkey() const { return mr_->rkey; }

 private:
  MemoryRegion(std::shared_ptr<ProtectionDomain> pd, ibv_mr* mr) : pd_(std::move(pd)), mr_(mr) {}

  std::shared_ptr<ProtectionDomain> pd_;
  ibv_mr* mr_;
};

}  // namespace sumac::verbs
