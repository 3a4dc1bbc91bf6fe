#include "verbs/protection_domain.h"

#include <cerrno>

#include "verbs/log.h"
#include "verbs/status.h"

namespace sumac::verbs {

absl::StatusOr<std::shared_ptr<ProtectionDomain>> ProtectionDomain::Create(
    std::shared_ptr<Device> device) {
  ibv_pd* pd = device->provider().alloc_pd(device->context());
  if (pd == nullptr) return ErrnoStatus(errno, "ibv_alloc_pd", device->name());
  return std::shared_ptr<ProtectionDomain>(new ProtectionDomain(std::move(device), pd));
}

ProtectionDomain::~ProtectionDomain() {
  if (int error = device_->provider().dealloc_pd(pd_); error != 0) {
    Log().error("{}", ErrnoStatus(error, "ibv_dealloc_pd", device_->name()).ToString());
  }
}

}  // namespace sumac::verbs
