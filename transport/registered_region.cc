#include "transport/registered_region.h"

#include <utility>

#include "absl/strings/str_format.h"

#include "verbs/memory_region.h"

namespace sumac::transport {
namespace {

class RegisteredRegion final : public RegisteredMemory {
 public:
  explicit RegisteredRegion(std::unique_ptr<verbs::MemoryRegion> region)
      : region_(std::move(region)) {}
  void* addr() const override { return region_->addr(); }
  size_t length() const override { return region_->length(); }
  uint32_t lkey() const override { return region_->lkey(); }
  uint32_t rkey() const override { return region_->rkey(); }

 private:
  const std::unique_ptr<verbs::MemoryRegion> region_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RegisteredMemory>> RegisterRegion(
    std::shared_ptr<verbs::ProtectionDomain> pd, void* addr, size_t length,
    uint32_t remote_access) {
  constexpr uint32_t kWrites = kRemoteWrite | kRemoteAtomic;
  if ((remote_access & ~(kRemoteRead | kWrites)) != 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("0x%x is no set of RemoteAccess bits", remote_access));
  }
  int access = 0;
  if ((remote_access & kRemoteRead) != 0) access |= IBV_ACCESS_REMOTE_READ;
  if ((remote_access & kRemoteWrite) != 0) access |= IBV_ACCESS_REMOTE_WRITE;
  if ((remote_access & kRemoteAtomic) != 0) access |= IBV_ACCESS_REMOTE_ATOMIC;
  auto region = verbs::MemoryRegion::Register(pd, addr, length, access | IBV_ACCESS_LOCAL_WRITE);
  if (!region.ok() && (remote_access & kWrites) == 0) {
    // Perhaps it may only be read; then it can still be a source.
    auto read_only = verbs::MemoryRegion::Register(std::move(pd), addr, length, access);
    if (read_only.ok()) region = std::move(read_only);
  }
  if (!region.ok()) return region.status();
  return std::make_unique<RegisteredRegion>(*std::move(region));
}

}  // namespace sumac::transport
