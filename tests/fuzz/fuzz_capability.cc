// Fuzzes the record that a capability travels as.
//
// Promises: Parse says yes or InvalidArgument; what it took serialises back to the same bytes, has
// a range that does not wrap, and only known rights. Each input goes in as it is and with its
// checksum made right, or nothing would ever get past that.
#include <algorithm>
#include <limits>
#include <string>

#include "absl/status/status.h"
#include "isa-l/crc.h"

#include "runtime/capability.h"
#include "tests/fuzz/fuzz_target.h"

namespace sumac::fuzz {
namespace {

using runtime::Capability;

constexpr size_t kChecksumAt = 56;  // as runtime/capability.cc lays it out

void Check(const std::string& record) {
  const auto parsed = Capability::Parse(record);
  if (!parsed.ok()) {
    SUMAC_FUZZ_CHECK(parsed.status().code() == absl::StatusCode::kInvalidArgument);
    SUMAC_FUZZ_CHECK(!parsed.status().message().empty());
    return;
  }
  SUMAC_FUZZ_CHECK(parsed->Serialize() == record);
  SUMAC_FUZZ_CHECK(parsed->rank >= 0);
  SUMAC_FUZZ_CHECK(parsed->length > 0);
  SUMAC_FUZZ_CHECK(parsed->base <= std::numeric_limits<uint64_t>::max() - parsed->length);
  SUMAC_FUZZ_CHECK(parsed->rights != 0 && (parsed->rights & ~runtime::kAllRights) == 0);
  SUMAC_FUZZ_CHECK(!parsed->ToString().empty());
}

}  // namespace

std::vector<Bytes> Seeds() {
  std::vector<Bytes> seeds;
  for (const uint32_t rights : {1u, 2u, 4u, 7u}) {
    Capability capability;
    capability.rank = static_cast<int32_t>(rights);
    capability.node_epoch = 0x0123456789abcdef;
    capability.domain = 3;
    capability.generation = 1;
    capability.region = 9;
    capability.rights = rights;
    capability.base = 0x7f0000001000;
    capability.length = 4096;
    capability.rkey = 0xfeedbeef;
    const std::string record = capability.Serialize();
    SUMAC_FUZZ_CHECK(Capability::Parse(record).ok());
    seeds.emplace_back(record.begin(), record.end());
  }
  return seeds;
}

}  // namespace sumac::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string record(reinterpret_cast<const char*>(data), size);
  sumac::fuzz::Check(record);
  if (size < sumac::fuzz::kChecksumAt + 4) return 0;
  const uint32_t checksum = crc32_gzip_refl(0, data, sumac::fuzz::kChecksumAt);
  for (size_t i = 0; i < 4; ++i) {
    record[sumac::fuzz::kChecksumAt + i] = static_cast<char>(checksum >> 8 * i);
  }
  sumac::fuzz::Check(record);
  return 0;
}
