// Bytes that tell where they belong, and the count of those that are not what they must be.
//
// A byte depends on the salt and on its offset, so stale, shifted and missing data show. The salt
// says row, phase, writer, queue pair and slot: every phase leaves other bytes than the one before.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace sumac::cli {

struct Salt {
  uint64_t row = 0;
  int phase = 0;
  int writer = 0;
  size_t lane = 0;
  size_t slot = 0;
};

void FillPattern(std::span<std::byte> bytes, const Salt& salt);
// `bytes` begin at offset 0 of a filled range.
uint64_t CountWrong(std::span<const std::byte> bytes, const Salt& salt);

}  // namespace sumac::cli
