#include "verbs/memory_region.h"

#include <cerrno>

#include "absl/strings/str_cat.h"

#include "verbs/log.h"
#include "verbs/status.h"

namespace sumac::verbs {

absl::StatusOr<std::unique_ptr<MemoryRegion>> MemoryRegion::Register(
    std::shared_ptr<ProtectionDomain> pd, void* addr, size_t length, int access) {
  constexpr int kNeedLocalWrite = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC;
  if (addr == nullptr || length == 0) {
    return absl::InvalidArgumentError("registering an empty range of memory");
  }
  if ((access & kNeedLocalWrite) != 0 && (access & IBV_ACCESS_LOCAL_WRITE) == 0) {
    return absl::InvalidArgumentError(
        "remote write or atomic access needs IBV_ACCESS_LOCAL_WRITE as well");
  }
  Device& device = pd->device();
  ibv_mr* mr = device.provider().reg_mr(pd->pd(), addr, length, access);
  if (mr == nullptr) {
    return ErrnoStatus(errno, absl::StrCat("ibv_reg_mr of ", length, " bytes"), device.name());
  }
  return std::unique_ptr<MemoryRegion>(new MemoryRegion(std::move(pd), mr));
}

MemoryRegion::~MemoryRegion() {
  Device& device = pd_->device();
  if (int error = device.provider().dereg_mr(mr_); error != 0) {
    Log().error("{}", ErrnoStatus(error, "ibv_dereg_mr", device.name()).ToString());
  }
}

}  // namespace sumac::verbs
