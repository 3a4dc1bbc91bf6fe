// Elements of every data type as C++ values that convert from and to double, for filling and
// checking.
//
// Half and bfloat16 here are plain bit conversions of their own, apart from the collectives'
// kernels, so that a mistake there does not hide itself.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "collectives/data_type.h"

namespace sumac::cli {

struct Bfloat16 {
  uint16_t bits = 0;
  Bfloat16() = default;
  explicit(false) Bfloat16(double value)  // exact for the small whole numbers used here
      : bits(static_cast<uint16_t>(std::bit_cast<uint32_t>(static_cast<float>(value)) >> 16)) {}
  explicit operator double() const {
    return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
  }
};

struct Half {
  uint16_t bits = 0;
  Half() = default;
  explicit(false) Half(double value) {  // exact for positive numbers of at most 11 significant bits
    if (value == 0) return;
    int exponent = 0;
    const double fraction = std::frexp(value, &exponent);  // 0.5 <= fraction < 1
    const auto mantissa = static_cast<uint16_t>(std::ldexp(fraction, 11)) & 0x3ff;
    bits = static_cast<uint16_t>(((exponent + 14) << 10) | mantissa);
  }
  explicit operator double() const {
    const int exponent = (bits >> 10) & 0x1f;
    const int mantissa = bits & 0x3ff;
    double magnitude = 0;
    if (exponent == 0x1f) {
      magnitude = mantissa == 0 ? HUGE_VAL : NAN;
    } else if (exponent == 0) {
      magnitude = std::ldexp(mantissa, -24);
    } else {
      magnitude = std::ldexp(mantissa | 0x400, exponent - 25);
    }
    return (bits & 0x8000) != 0 ? -magnitude : magnitude;
  }
};

inline bool IsInteger(collectives::DataType type) {
  return type == collectives::DataType::kInt32 || type == collectives::DataType::kInt64;
}

// Half a unit in the last place, doubled for the two roundings of sum and division.
inline double RoundingOf(collectives::DataType type) {
  switch (type) {
    case collectives::DataType::kFloat64:
      return std::ldexp(1, -52);
    case collectives::DataType::kFloat32:
      return std::ldexp(1, -23);
    case collectives::DataType::kFloat16:
      return std::ldexp(1, -10);
    case collectives::DataType::kBfloat16:
      return std::ldexp(1, -7);
    default:
      return 0;
  }
}

// Calls `visit` with `memory` as a pointer to elements of `type`.
template <typename Visit>
void VisitElements(collectives::DataType type, void* memory, Visit visit) {
  switch (type) {
    case collectives::DataType::kFloat32:
      return visit(static_cast<float*>(memory));
    case collectives::DataType::kFloat64:
      return visit(static_cast<double*>(memory));
    case collectives::DataType::kFloat16:
      return visit(static_cast<Half*>(memory));
    case collectives::DataType::kBfloat16:
      return visit(static_cast<Bfloat16*>(memory));
    case collectives::DataType::kInt32:
      return visit(static_cast<int32_t*>(memory));
    case collectives::DataType::kInt64:
      return visit(static_cast<int64_t*>(memory));
  }
}

}  // namespace sumac::cli
