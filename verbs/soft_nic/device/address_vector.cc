#include "verbs/soft_nic/device/address_vector.h"

#include <cstring>

#include "absl/strings/str_cat.h"

#include "verbs/soft_nic/link/address.h"

namespace sumac::soft_nic {
namespace {

constexpr uint8_t kHopLimit = 64;  // when none is asked for

Gid GidOf(const ibv_gid& raw) {
  Gid gid;
  std::memcpy(gid.data(), raw.raw, gid.size());
  return gid;
}

}  // namespace

absl::Status CheckAddressVector(const ibv_ah_attr& attr) {
  if (attr.is_global == 0) {
    return absl::InvalidArgumentError("ah_attr.is_global = 0: RoCE needs a GRH with GIDs");
  }
  if (attr.grh.sgid_index != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("sgid_index = ", attr.grh.sgid_index, ": the GID table has entry 0 only"));
  }
  return absl::OkStatus();
}

absl::Status CheckFamily(const ibv_ah_attr& attr, const Gid& local) {
  const Gid remote = GidOf(attr.grh.dgid);
  if (IsIpv4Mapped(remote) == IsIpv4Mapped(local)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the destination GID ", ToString(remote),
                                                 " is of another address family than ",
                                                 ToString(local)));
}

Path PathOf(const ibv_ah_attr& attr, const Gid& local) {
  Path path;
  path.source = local;
  path.destination = GidOf(attr.grh.dgid);
  path.traffic_class = attr.grh.traffic_class;
  path.hop_limit = attr.grh.hop_limit == 0 ? kHopLimit : attr.grh.hop_limit;
  path.flow_label = attr.grh.flow_label;
  return path;
}

}  // namespace sumac::soft_nic
