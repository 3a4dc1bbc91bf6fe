// A capability: the right to touch one range of one domain's memory, as another domain holds and
// passes it.
//
// A plain value. Serialised it is a fixed-size little-endian record with a version and a checksum;
// Parse refuses anything else. The fields say {node epoch, domain, generation, region, range,
// rights, rkey}. Client-side checks use them to give a typed error before any packet is sent; the
// real guard is at the target: every grant is its own memory registration with exactly this range
// and these rights, so a forged or stretched capability is refused by the NIC and changes no byte.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sumac::runtime {

enum Rights : uint32_t {
  kRightGet = 1u << 0,
  kRightPut = 1u << 1,
  kRightAtomic = 1u << 2,
};
inline constexpr uint32_t kAllRights = kRightGet | kRightPut | kRightAtomic;
// "put+get"
std::string RightsToString(uint32_t rights);

struct Capability {
  int32_t rank = -1;        // whose memory
  uint64_t node_epoch = 0;  // start of the owner's process: tells incarnations of a rank apart
  uint32_t domain = 0;
  uint32_t generation = 0;  // of the domain
  uint32_t region = 0;      // the owner's number for the grant
  uint32_t rights = 0;
  uint64_t base = 0;  // address of the first byte, in the owner's address space
  uint64_t length = 0;
  uint32_t rkey = 0;

  std::string Serialize() const;
  // InvalidArgument: wrong size, version, checksum, rights or range.
  static absl::StatusOr<Capability> Parse(absl::string_view bytes);
  // "put+get on 4096 bytes of rank 1, domain 0.2, region 7"
  std::string ToString() const;
};

}  // namespace sumac::runtime
