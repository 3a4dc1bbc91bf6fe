// A protection domain: what ties registrations and queue pairs together (IBTA vol. 1, 10.2.3).
//
// Shared handle; keeps its device open. Any thread.
#pragma once

#include <infiniband/verbs.h>

#include <memory>

#include "absl/status/statusor.h"

#include "verbs/device.h"

namespace sumac::verbs {

class ProtectionDomain {
 public:
  static absl::StatusOr<std::shared_ptr<ProtectionDomain>> Create(std::shared_ptr<Device> device);
  ~ProtectionDomain();
  ProtectionDomain(const ProtectionDomain&) = delete;
  ProtectionDomain& operator=(const ProtectionDomain&) = delete;

  Device& device() const { return *device_; }
  ibv_pd* pd() const { return pd_; }

 private:
  ProtectionDomain(std::shared_ptr<Device> device, ibv_pd* pd)
      : device_(std::move(device)), pd_(pd) {}

  std::shared_ptr<Device> device_;
  ibv_pd* pd_;
};

}  // namespace sumac::verbs
