#include "cli/perf/pair/pattern.h"

#include <algorithm>
#include <cstring>

namespace sumac::cli {
namespace {

uint64_t Mix(uint64_t value) {  // splitmix64's finalizer
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

uint64_t SeedOf(const Salt& salt) {
  return Mix((salt.row << 32) ^ (static_cast<uint64_t>(salt.slot) << 20) ^
             (static_cast<uint64_t>(salt.lane) << 10) ^ (static_cast<uint64_t>(salt.phase) << 1) ^
             static_cast<uint64_t>(salt.writer) ^ 0x5bd1e995) |
         1;
}

constexpr size_t kWord = sizeof(uint64_t);

}  // namespace

void FillPattern(std::span<std::byte> bytes, const Salt& salt) {
  const uint64_t seed = SeedOf(salt);
  for (size_t at = 0; at < bytes.size(); at += kWord) {
    const uint64_t word = Mix(seed + at);
    std::memcpy(bytes.data() + at, &word, std::min(kWord, bytes.size() - at));
  }
}

uint64_t CountWrong(std::span<const std::byte> bytes, const Salt& salt) {
  const uint64_t seed = SeedOf(salt);
  uint64_t wrong = 0;
  for (size_t at = 0; at < bytes.size(); at += kWord) {
    const uint64_t word = Mix(seed + at);
    const size_t length = std::min(kWord, bytes.size() - at);
    if (std::memcmp(bytes.data() + at, &word, length) == 0) continue;
    std::byte expected[kWord];
    std::memcpy(expected, &word, kWord);
    for (size_t i = 0; i < length; ++i) wrong += bytes[at + i] != expected[i] ? 1 : 0;
  }
  return wrong;
}

}  // namespace sumac::cli
