#include "verbs/soft_nic/link/icrc_checker.h"

#include <cstring>

namespace sumac::soft_nic {

IcrcChecker::Source& IcrcChecker::SourceOf(const Gid& gid) {
  uint64_t low;
  std::memcpy(&low, gid.data() + 8, sizeof(low));
  Source& source = sources_[(low * 0x9e3779b97f4a7c15u) >> 56];
  if (source.gid != gid) source = Source{gid, 0};
  return source;
}

IcrcChecker::Verdict IcrcChecker::Check(const IcrcHeaders& ip,
                                        std::span<const std::byte> udp_payload,
                                        uint16_t* identification) {
  const auto found = FindIdentification(ip, udp_payload);
  if (!found) return Verdict::kDamaged;
  if (identification != nullptr) *identification = *found;
  if (*found == 0) {
    if (IsIpv4Mapped(ip.source)) {
      Source& source = SourceOf(ip.source);
      if (source.zeros_in_a_row < kKnownAfter) ++source.zeros_in_a_row;
    }
    return Verdict::kIntact;
  }
  if (*found == ip.ipv4_identification) return Verdict::kIntact;
  if (*found < kSmallIdentification) return Verdict::kIntactByIdentification;
  Source& source = SourceOf(ip.source);
  if (source.zeros_in_a_row >= kKnownAfter) return Verdict::kDamaged;
  source.zeros_in_a_row = 0;
  return Verdict::kIntactByIdentification;
}

}  // namespace sumac::soft_nic
