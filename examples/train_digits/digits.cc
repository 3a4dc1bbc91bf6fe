#include "examples/train_digits/digits.h"

#include <unistd.h>

#include <climits>
#include <cstdlib>
#include <fstream>
#include <numeric>
#include <random>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace sumac::examples {
namespace {

constexpr double kPixelMax = 16;
constexpr uint32_t kShuffleSeed = 7;

absl::Status AddLine(const std::string& line, Digits& digits) {
  const std::vector<std::string> fields = absl::StrSplit(line, ',');
  if (fields.size() != kPixels + 1) {
    return absl::InvalidArgumentError(absl::StrCat(fields.size(), " fields, not ", kPixels + 1));
  }
  for (int i = 0; i < kPixels; ++i) {
    int pixel = 0;
    if (!absl::SimpleAtoi(fields[static_cast<size_t>(i)], &pixel) || pixel < 0 ||
        pixel > kPixelMax) {
      return absl::InvalidArgumentError(
          absl::StrCat("pixel '", fields[static_cast<size_t>(i)], "'"));
    }
    digits.pixels.push_back(pixel / kPixelMax);
  }
  int label = 0;
  if (!absl::SimpleAtoi(fields.back(), &label) || label < 0 || label >= kClasses) {
    return absl::InvalidArgumentError(absl::StrCat("digit '", fields.back(), "'"));
  }
  digits.labels.push_back(label);
  return absl::OkStatus();
}

// The same order with every standard library, which std::shuffle does not promise.
std::vector<int> ShuffledOrder(int size) {
  std::vector<int> order(static_cast<size_t>(size));
  std::iota(order.begin(), order.end(), 0);
  std::mt19937 random(kShuffleSeed);
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
  return order;
}

}  // namespace

absl::StatusOr<DigitsSplit> LoadDigits(const std::string& file) {
  std::ifstream in(file);
  if (!in) {
    return absl::NotFoundError(
        absl::StrCat("can't read ", file,
                     ": fetch the data with examples/train_digits/fetch_data.sh FILE, and "
                     "name the file by --data or SUMAC_DIGITS"));
  }
  Digits all;
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    if (auto added = AddLine(line, all); !added.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat(file, " line ", number, ": ", added.message()));
    }
  }
  if (all.size() < 10) {
    return absl::InvalidArgumentError(absl::StrCat(file, " has only ", all.size(), " images"));
  }
  DigitsSplit split;
  const std::vector<int> order = ShuffledOrder(all.size());
  for (size_t i = 0; i < order.size(); ++i) {
    Digits& part = i < order.size() * 4 / 5 ? split.train : split.test;
    const double* image = all.image(order[i]);
    part.pixels.insert(part.pixels.end(), image, image + kPixels);
    part.labels.push_back(all.labels[static_cast<size_t>(order[i])]);
  }
  return split;
}

std::string FindDigits(const std::string& asked) {
  if (!asked.empty()) return asked;
  if (const char* named = std::getenv("SUMAC_DIGITS"); named != nullptr && *named != '\0')
    return named;
  char self[PATH_MAX] = "";
  const ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
  const std::string program(self, length > 0 ? static_cast<size_t>(length) : 0);
  return absl::StrCat(program.substr(0, program.rfind('/')), "/../share/sumac/digits.csv");
}

}  // namespace sumac::examples
