#include "cli/perf/size.h"

#include <cctype>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace sumac::cli {
namespace {

constexpr uint64_t kBytesMax = uint64_t{1} << 40;

}  // namespace

absl::StatusOr<uint64_t> ParseSize(const std::string& text) {
  const auto bad = [&text] {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", text, "' is no size: a number with K, M, G or none behind it, at most 1024G"));
  };
  if (text.empty()) return bad();
  std::string digits = text;
  int shift = 0;
  switch (std::toupper(static_cast<unsigned char>(digits.back()))) {
    case 'K':
      shift = 10;
      break;
    case 'M':
      shift = 20;
      break;
    case 'G':
      shift = 30;
      break;
    default:
      break;
  }
  if (shift != 0) digits.pop_back();
  uint64_t number = 0;
  const bool is_number = !digits.empty() && std::isdigit(static_cast<unsigned char>(digits[0])) &&
                         absl::SimpleAtoi(digits, &number);
  if (!is_number || number > (kBytesMax >> shift)) return bad();
  return number << shift;
}

}  // namespace sumac::cli
