#include "runtime/capability.h"

#include <array>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "isa-l/crc.h"

namespace sumac::runtime {
namespace {

// The record, all little-endian:
//    0  magic "SCAP"     16  generation      48  rights
//    4  version (2 B)    20  region          52  rkey
//    6  zero (2 B)       24  node epoch (8)  56  CRC-32 of bytes 0 ... 55
//    8  rank             32  base (8)
//   12  domain           40  length (8)
constexpr uint32_t kMagic = 0x50414353;
constexpr uint16_t kVersion = 1;
constexpr size_t kRecordBytes = 60;
constexpr size_t kChecksumAt = 56;

template <typename T>
void Store(std::string& out, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) {
    out.push_back(static_cast<char>(static_cast<uint64_t>(value) >> (8 * i) & 0xff));
  }
}

template <typename T>
T Load(absl::string_view bytes, size_t at) {
  uint64_t value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) {
    value |= static_cast<uint64_t>(static_cast<unsigned char>(bytes[at + i])) << (8 * i);
  }
  return static_cast<T>(value);
}

// The Ethernet polynomial: finds every error of up to 32 adjacent bits. Against mistakes, not
// against forgers: the target's NIC is what stops those.
uint32_t Checksum(absl::string_view bytes) {
  return crc32_gzip_refl(0, reinterpret_cast<const unsigned char*>(bytes.data()), kChecksumAt);
}

absl::Status CheckFields(const Capability& c) {
  if (c.rank < 0) return absl::InvalidArgumentError(absl::StrCat("capability: rank ", c.rank));
  if (c.node_epoch == 0) return absl::InvalidArgumentError("capability: no node epoch");
  if (c.generation == 0) return absl::InvalidArgumentError("capability: no generation");
  if (c.rights == 0 || (c.rights & ~kAllRights) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("capability: rights 0x", absl::Hex(c.rights), " are none or unknown ones"));
  }
  if (c.length == 0 || c.base > std::numeric_limits<uint64_t>::max() - c.length) {
    return absl::InvalidArgumentError(
        absl::StrCat("capability: no range is ", c.length, " bytes from 0x", absl::Hex(c.base)));
  }
  return absl::OkStatus();
}

}  // namespace

std::string Capability::Serialize() const {
  std::string out;
  out.reserve(kRecordBytes);
  Store(out, kMagic);
  Store(out, kVersion);
  Store(out, uint16_t{0});
  Store(out, rank);
  Store(out, domain);
  Store(out, generation);
  Store(out, region);
  Store(out, node_epoch);
  Store(out, base);
  Store(out, length);
  Store(out, rights);
  Store(out, rkey);
  Store(out, Checksum(out));
  return out;
}

absl::StatusOr<Capability> Capability::Parse(absl::string_view bytes) {
  if (bytes.size() != kRecordBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("capability: ", bytes.size(), " bytes instead of ", kRecordBytes));
  }
  if (Load<uint32_t>(bytes, 0) != kMagic) {
    return absl::InvalidArgumentError("capability: these bytes are none (wrong first four)");
  }
  const auto version = Load<uint16_t>(bytes, 4);
  if (version != kVersion) {
    return absl::InvalidArgumentError(absl::StrCat("capability: version ", version, ", known is ",
                                                   kVersion, ": the peer runs another Sumac"));
  }
  if (Load<uint32_t>(bytes, kChecksumAt) != Checksum(bytes)) {
    return absl::InvalidArgumentError("capability: wrong checksum: damaged on its way");
  }
  if (Load<uint16_t>(bytes, 6) != 0) {
    return absl::InvalidArgumentError("capability: reserved bytes are not zero");
  }
  Capability c;
  c.rank = static_cast<int32_t>(Load<uint32_t>(bytes, 8));
  c.domain = Load<uint32_t>(bytes, 12);
  c.generation = Load<uint32_t>(bytes, 16);
  c.region = Load<uint32_t>(bytes, 20);
  c.node_epoch = Load<uint64_t>(bytes, 24);
  c.base = Load<uint64_t>(bytes, 32);
  c.length = Load<uint64_t>(bytes, 40);
  c.rights = Load<uint32_t>(bytes, 48);
  c.rkey = Load<uint32_t>(bytes, 52);
  if (absl::Status fields = CheckFields(c); !fields.ok()) return fields;
  return c;
}

std::string RightsToString(uint32_t rights) {
  struct Name {
    uint32_t bit;
    const char* name;
  };
  constexpr std::array<Name, 3> kNames = {
      {{kRightPut, "put"}, {kRightGet, "get"}, {kRightAtomic, "atomic"}}};
  std::string out;
  for (const Name& right : kNames) {
    if ((rights & right.bit) != 0) absl::StrAppend(&out, out.empty() ? "" : "+", right.name);
  }
  if ((rights & ~kAllRights) != 0) {
    absl::StrAppend(&out, out.empty() ? "0x" : "+0x", absl::Hex(rights & ~kAllRights));
  }
  return out.empty() ? "nothing" : out;
}

std::string Capability::ToString() const {
  return absl::StrCat(RightsToString(rights), " on ", length, " bytes of rank ", rank, ", domain ",
                      domain, ".", generation, ", region ", region);
}

}  // namespace sumac::runtime
