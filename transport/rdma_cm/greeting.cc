#include "transport/rdma_cm/greeting.h"

#include <endian.h>

#include <cstring>

#include "absl/strings/str_cat.h"

namespace sumac::transport::rdma_cm {
namespace {

constexpr uint32_t kMagic = 0x53554d01;  // "SUM", version 1

}  // namespace

std::array<uint8_t, kGreetingBytes> Encode(const Greeting& greeting) {
  std::array<uint8_t, kGreetingBytes> bytes;
  const uint32_t words[3] = {htobe32(kMagic), htobe32(greeting.from), htobe32(greeting.to)};
  const uint64_t key = htobe64(greeting.key);
  std::memcpy(bytes.data(), words, sizeof words);
  std::memcpy(bytes.data() + sizeof words, &key, sizeof key);
  return bytes;
}

absl::StatusOr<Greeting> ParseGreeting(std::span<const uint8_t> bytes) {
  if (bytes.size() < kGreetingBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "private data of ", bytes.size(), " bytes, where a greeting has ", kGreetingBytes));
  }
  uint32_t words[3];
  uint64_t key;
  std::memcpy(words, bytes.data(), sizeof words);
  std::memcpy(&key, bytes.data() + sizeof words, sizeof key);
  if (be32toh(words[0]) != kMagic) {
    return absl::InvalidArgumentError(
        "private data that is no greeting; do all ranks run the same version?");
  }
  return Greeting{be32toh(words[1]), be32toh(words[2]), be64toh(key)};
}

}  // namespace sumac::transport::rdma_cm
