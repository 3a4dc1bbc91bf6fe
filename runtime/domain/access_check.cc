#include "runtime/domain/access_check.h"

#include <limits>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace sumac::runtime {

std::string DomainIdentity::Serialize() const {
  return absl::StrCat(node_epoch, " ", domain, " ", generation);
}

absl::StatusOr<DomainIdentity> DomainIdentity::Parse(absl::string_view bytes) {
  const std::vector<absl::string_view> parts = absl::StrSplit(bytes, ' ');
  DomainIdentity identity;
  if (parts.size() != 3 || !absl::SimpleAtoi(parts[0], &identity.node_epoch) ||
      !absl::SimpleAtoi(parts[1], &identity.domain) ||
      !absl::SimpleAtoi(parts[2], &identity.generation)) {
    return absl::InternalError("malformed domain record at the bootstrap server");
  }
  return identity;
}

absl::Status CheckAccess(const Capability& target, uint32_t right, uint64_t offset, uint64_t length,
                         int ranks) {
  if (target.rank < 0 || target.rank >= ranks) {
    return absl::InvalidArgumentError(
        absl::StrCat("capability of rank ", target.rank, " in a job of ", ranks));
  }
  if (target.base > std::numeric_limits<uint64_t>::max() - target.length) {
    return absl::InvalidArgumentError(absl::StrCat("capability: no range is ", target.length,
                                                   " bytes from 0x", absl::Hex(target.base)));
  }
  if ((target.rights & right) != right) {
    return absl::PermissionDeniedError(absl::StrCat(
        RightsToString(right), " needs the right to: ", "the capability is ", target.ToString()));
  }
  if (offset > target.length || length > target.length - offset) {
    return absl::OutOfRangeError(absl::StrCat(length, " bytes at offset ", offset,
                                              " are outside the capability ", target.ToString()));
  }
  return absl::OkStatus();
}

absl::Status CheckAligned(const Capability& target, uint64_t offset) {
  if ((target.base + offset) % 8 == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("atomics work on aligned 8-byte words; offset ", offset, " of ",
                   target.ToString(), " is at address 0x", absl::Hex(target.base + offset)));
}

absl::Status CheckIdentity(const Capability& target, const DomainIdentity& now) {
  if (target.node_epoch == now.node_epoch && target.domain == now.domain &&
      target.generation == now.generation) {
    return absl::OkStatus();
  }
  const char* why = target.node_epoch != now.node_epoch ? "an earlier start of that rank"
                    : target.domain != now.domain       ? "another domain of that rank"
                                                        : "an earlier generation of the domain";
  return absl::FailedPreconditionError(
      absl::StrCat("stale or foreign capability: ", target.ToString(), " belongs to ", why,
                   " (there is domain ", now.domain, ".", now.generation, " now)"));
}

absl::Status CheckSlice(const transport::LocalSlice& slice) {
  // LocalSlice{} means no bytes; a key without an address is what a bad Slice() gives.
  if (slice.addr != nullptr || (slice.length == 0 && slice.lkey == 0)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "local slice without an address: was Slice() asked for bytes outside its memory?");
}

}  // namespace sumac::runtime
