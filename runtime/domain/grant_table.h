// The grants that a domain has given out and not revoked: what its own capabilities are held
// against.
//
// Peers' operations meet the NIC's key table; those of the domain on itself are plain copies, so
// they meet this one, which refuses the same things. Owned and used by Domain; one thread at a
// time.
#pragma once

#include <cstdint>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "runtime/capability.h"

namespace sumac::runtime {

class GrantTable {
 public:
  void Add(const Capability& grant) { grants_.emplace(grant.region, grant); }
  void Remove(uint32_t region) { grants_.erase(region); }
  size_t size() const { return grants_.size(); }

  // PermissionDenied unless [addr, addr + length) lies in the grant that has this key, and the
  // grant includes `right`. Both of them as the capability at hand says, which may lie.
  absl::Status Check(const Capability& used, uint32_t right, uint64_t addr, uint64_t length) const {
    const auto it = grants_.find(used.region);
    if (it != grants_.end()) {
      const Capability& grant = it->second;
      const bool inside = addr >= grant.base && addr - grant.base <= grant.length &&
                          length <= grant.length - (addr - grant.base);
      if (grant.rkey == used.rkey && (grant.rights & right) == right && inside) {
        return absl::OkStatus();
      }
    }
    return absl::PermissionDeniedError(
        absl::StrCat("refused by its owner: no grant in force covers ", used.ToString()));
  }

 private:
  absl::flat_hash_map<uint32_t, Capability> grants_;  // by region
};

}  // namespace sumac::runtime
