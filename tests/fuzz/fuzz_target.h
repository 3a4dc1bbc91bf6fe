// What a fuzz target is: seeds to start from, and one function that holds an input to its promises.
//
// A target is one .cc file that defines both functions below. It is linked twice: with driver.cc,
// which mutates the seeds deterministically for a bounded number of runs (every build; CTest label
// fuzz), and, in the preset `fuzz` (clang), with libFuzzer. Single-threaded. A broken promise ends
// the process through SUMAC_FUZZ_CHECK.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace sumac::fuzz {

using Bytes = std::vector<uint8_t>;

// Well-formed inputs; mutations of them reach deeper than noise.
std::vector<Bytes> Seeds();

// Reads numbers off the front of an input; zeros when it has run out.
class InputReader {
 public:
  InputReader(const uint8_t* data, size_t size) : data_(data), left_(size) {}

  bool empty() const { return left_ == 0; }
  size_t left() const { return left_; }
  uint8_t Byte() {
    if (left_ == 0) return 0;
    --left_;
    return *data_++;
  }
  uint32_t Word() {
    uint32_t word = 0;
    for (int i = 0; i < 4; ++i) word = word << 8 | Byte();
    return word;
  }

 private:
  const uint8_t* data_;
  size_t left_;
};

}  // namespace sumac::fuzz

// libFuzzer's name for it.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

#define SUMAC_FUZZ_CHECK(condition)                                                        \
  do {                                                                                     \
    if (!(condition)) {                                                                    \
      std::fprintf(stderr, "%s:%d: broken promise: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                        \
    }                                                                                      \
  } while (false)
