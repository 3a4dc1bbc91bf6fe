// The handwritten digits: 1797 images of 8x8 pixels, each labelled 0 to 9.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace sumac::examples {

inline constexpr int kPixels = 64;
inline constexpr int kClasses = 10;

struct Digits {
  std::vector<double> pixels;  // images x kPixels, 0 to 1
  std::vector<int> labels;
  int size() const { return static_cast<int>(labels.size()); }
  const double* image(int index) const { return &pixels[static_cast<size_t>(index) * kPixels]; }
};

struct DigitsSplit {
  Digits train;
  Digits test;
};

// Reads the CSV (a line an image: 64 pixels from 0 to 16, then the digit) and deals it, shuffled by
// a fixed seed, into four fifths for training and the rest for testing. Errors name file and line.
absl::StatusOr<DigitsSplit> LoadDigits(const std::string& file);

// `asked` if not empty, else SUMAC_DIGITS, else ../share/sumac/digits.csv beside the program's
// folder.
std::string FindDigits(const std::string& asked);

}  // namespace sumac::examples
