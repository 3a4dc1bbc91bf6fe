// RegisteredMemory over a verbs memory region.
//
// Used by WorkerImpl. Any thread.
#pragma once

#include <memory>

#include "absl/status/statusor.h"

#include "transport/endpoint.h"
#include "verbs/protection_domain.h"

namespace sumac::transport {

// `remote_access`: a set of RemoteAccess bits.
absl::StatusOr<std::unique_ptr<RegisteredMemory>> RegisterRegion(
    std::shared_ptr<verbs::ProtectionDomain> pd, void* addr, size_t length, uint32_t remote_access);

}  // namespace sumac::transport
