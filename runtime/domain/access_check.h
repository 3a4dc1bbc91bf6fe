// What a client can tell from a capability before it sends anything.
//
// Called by the one-sided operations. Pure functions; allocate only for an error. They give typed
// errors early; they protect nobody: the guard is the target's NIC (docs/isolation.md).
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "runtime/capability.h"
#include "transport/endpoint.h"

namespace sumac::runtime {

// Which incarnation of which domain: what tells a capability that outlived its owner.
struct DomainIdentity {
  uint64_t node_epoch = 0;  // never 0: drawn at random when the domain is created
  uint32_t domain = 0;      // of the process: 0, 1, ...
  uint32_t generation = 1;

  std::string Serialize() const;
  static absl::StatusOr<DomainIdentity> Parse(absl::string_view bytes);
};

// `right` on [offset, offset + length) of the capability. InvalidArgument: no such rank in a job of
// `ranks`, or nonsense that Parse would have refused. PermissionDenied: not that right. OutOfRange.
absl::Status CheckAccess(const Capability& target, uint32_t right, uint64_t offset, uint64_t length,
                         int ranks);

// The word of an atomic operation lies on a multiple of 8 (IBTA 9.4.5.1).
absl::Status CheckAligned(const Capability& target, uint64_t offset);

// FailedPrecondition: the capability is not of the domain that is there now.
absl::Status CheckIdentity(const Capability& target, const DomainIdentity& now);

// InvalidArgument for what Slice() gives when asked for bytes outside its memory.
absl::Status CheckSlice(const transport::LocalSlice& slice);

}  // namespace sumac::runtime
