#include "collectives/reduce/reduce.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace sumac::collectives {
namespace {

constexpr DataType kTypes[] = {DataType::kFloat32,  DataType::kFloat64, DataType::kFloat16,
                               DataType::kBfloat16, DataType::kInt32,   DataType::kInt64};
constexpr ReduceOp kOps[] = {ReduceOp::kSum, ReduceOp::kProd, ReduceOp::kMin, ReduceOp::kMax,
                             ReduceOp::kAvg};

// --- A reference that goes through double and rounds by arithmetic, not by bits.
struct Format {
  int significand;  // bits, the hidden one included
  int exponent_min;
  int exponent_max;
};
constexpr Format kHalf{11, -14, 15};
constexpr Format kBfloat{8, -126, 127};

double Decode(uint16_t bits, const Format& f) {
  const int stored = f.significand - 1;
  const int exponent = (bits & 0x7fff) >> stored;
  const double fraction = bits & ((1 << stored) - 1);
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  if (exponent == f.exponent_max - f.exponent_min + 2) {
    return fraction != 0 ? std::numeric_limits<double>::quiet_NaN() : sign * INFINITY;
  }
  if (exponent == 0) return sign * std::ldexp(fraction, f.exponent_min - stored);
  return sign * std::ldexp(fraction + (1 << stored), exponent - 1 + f.exponent_min - stored);
}

uint16_t Encode(double value, const Format& f) {
  const int stored = f.significand - 1;
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const auto infinity = static_cast<uint16_t>((f.exponent_max - f.exponent_min + 2) << stored);
  if (std::isnan(value)) return infinity | 1;
  if (std::isinf(value)) return sign | infinity;
  const double magnitude = std::fabs(value);
  int exponent = magnitude == 0 ? f.exponent_min : std::max(std::ilogb(magnitude), f.exponent_min);
  const double units = std::nearbyint(std::ldexp(magnitude, stored - exponent));  // ties to even
  // Units below 2^stored are subnormal; 2^(stored+1) carries into the exponent by itself.
  const double bits = units + std::ldexp(exponent - f.exponent_min, stored);
  return bits >= infinity ? sign | infinity : sign | static_cast<uint16_t>(bits);
}

double Apply(double a, double b, ReduceOp op) {
  if (op == ReduceOp::kSum || op == ReduceOp::kAvg) return a + b;
  if (op == ReduceOp::kProd) return a * b;
  if (std::isnan(a) || std::isnan(b)) return NAN;
  if (a == b) return std::signbit(a) == (op == ReduceOp::kMin) ? a : b;
  return (op == ReduceOp::kMin) == (a < b) ? a : b;
}

// Wrapping integers, done in 128 bits.
template <class T>
T ApplyInt(T a, T b, ReduceOp op) {
  const __int128 x = a, y = b;
  if (op == ReduceOp::kMin) return std::min(a, b);
  if (op == ReduceOp::kMax) return std::max(a, b);
  const __int128 exact = op == ReduceOp::kProd ? x * y : x + y;
  return static_cast<T>(static_cast<std::make_unsigned_t<T>>(exact));
}

template <class T>
T Get(const std::vector<std::byte>& from, size_t i) {
  T value;
  std::memcpy(&value, from.data() + i * sizeof(T), sizeof(T));
  return value;
}

// Is element i of `got` = a op b?
bool Right(const std::vector<std::byte>& got, const std::vector<std::byte>& a,
           const std::vector<std::byte>& b, size_t i, DataType type, ReduceOp op) {
  switch (type) {
    case DataType::kInt32:
      return Get<int32_t>(got, i) == ApplyInt(Get<int32_t>(a, i), Get<int32_t>(b, i), op);
    case DataType::kInt64:
      return Get<int64_t>(got, i) == ApplyInt(Get<int64_t>(a, i), Get<int64_t>(b, i), op);
    case DataType::kFloat32: {
      // Rounding the exact (to 53 bits) result to 24 is right for + and *: 53 >= 2 * 24 + 2.
      const auto want = static_cast<float>(Apply(Get<float>(a, i), Get<float>(b, i), op));
      const auto have = Get<float>(got, i);
      return std::isnan(want) ? std::isnan(have) : std::memcmp(&want, &have, 4) == 0;
    }
    case DataType::kFloat64: {
      const double want = Apply(Get<double>(a, i), Get<double>(b, i), op);
      const auto have = Get<double>(got, i);
      return std::isnan(want) ? std::isnan(have) : std::memcmp(&want, &have, 8) == 0;
    }
    case DataType::kFloat16:
    case DataType::kBfloat16: {
      const Format& f = type == DataType::kFloat16 ? kHalf : kBfloat;
      const auto exact = Apply(Decode(Get<uint16_t>(a, i), f), Decode(Get<uint16_t>(b, i), f), op);
      const uint16_t want = Encode(static_cast<float>(exact), f);
      const auto have = Get<uint16_t>(got, i);
      return std::isnan(Decode(want, f)) ? std::isnan(Decode(have, f)) : want == have;
    }
  }
  return false;
}

// Random bits: all magnitudes, subnormals, infinities and NaNs occur; plus zeros of both signs.
std::vector<std::byte> RandomBits(size_t bytes, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::byte> out(bytes);
  for (size_t i = 0; i < bytes; i += 8) {
    uint64_t bits = random();
    if (random() % 8 == 0) bits = random() % 2 != 0 ? 0x8000800080008000 : 0;
    if (random() % 8 == 0) bits &= 0x8000000080000000;
    std::memcpy(out.data() + i, &bits, std::min<size_t>(8, bytes - i));
  }
  return out;
}

class Kernels : public ::testing::TestWithParam<ReduceKernels> {
 protected:
  void SetUp() override {
    if (!GetParam().supported()) GTEST_SKIP() << "this CPU has no " << GetParam().name;
  }
};

TEST_P(Kernels, MatchTheReference) {
  for (const DataType type : kTypes) {
    for (const ReduceOp op : kOps) {
      const size_t count = 20'011;
      const auto a = RandomBits(count * SizeOf(type), 1);
      const auto b = RandomBits(count * SizeOf(type), 2);
      std::vector<std::byte> got(a.size());
      GetParam().reduce(got.data(), a.data(), b.data(), count, type, op);
      for (size_t i = 0; i < count; ++i) {
        ASSERT_TRUE(Right(got, a, b, i, type, op))
            << NameOf(type) << " " << NameOf(op) << " element " << i << " "
            << (SizeOf(type) == 2 ? Get<uint16_t>(a, i) : Get<uint32_t>(a, i)) << " "
            << (SizeOf(type) == 2 ? Get<uint16_t>(b, i) : Get<uint32_t>(b, i));
      }
    }
  }
}

// Each half with zero and with one: covers the conversions from end to end.
TEST_P(Kernels, EveryShortFloat) {
  for (const DataType type : {DataType::kFloat16, DataType::kBfloat16}) {
    std::vector<std::byte> a(65536 * 2), got(a.size());
    for (int other : {0x0000, 0x8000, 0x3c00, 0x0001, 0x7bff}) {
      std::vector<std::byte> b(a.size());
      for (int i = 0; i < 65536; ++i) {
        const auto x = static_cast<uint16_t>(i), y = static_cast<uint16_t>(other);
        std::memcpy(a.data() + 2 * i, &x, 2);
        std::memcpy(b.data() + 2 * i, &y, 2);
      }
      for (const ReduceOp op : kOps) {
        GetParam().reduce(got.data(), a.data(), b.data(), 65536, type, op);
        for (int i = 0; i < 65536; ++i) {
          ASSERT_TRUE(Right(got, a, b, i, type, op)) << NameOf(type) << NameOf(op) << " " << i;
        }
      }
    }
  }
}

// Odd counts and addresses, dst the same as a or b, nothing written outside.
TEST_P(Kernels, AnyCountAddressAndAliasing) {
  for (const DataType type : kTypes) {
    for (size_t count = 0; count < 80; ++count) {
      const size_t bytes = count * SizeOf(type);
      const auto a = RandomBits(bytes + 8, 3), b = RandomBits(bytes + 8, 4);
      std::vector<std::byte> want(bytes + 1);
      GetParam().reduce(want.data(), a.data() + 1, b.data() + 3, count, type, ReduceOp::kMax);
      for (const int alias : {0, 1, 2}) {
        std::vector<std::byte> x = a, y = b, z(bytes + 8, std::byte{0x5a});
        std::byte* dst = alias == 0 ? z.data() + 2 : alias == 1 ? x.data() + 1 : y.data() + 3;
        const std::vector<std::byte> before(dst - 1, dst);
        const std::vector<std::byte> after(dst + bytes, dst + bytes + 1);
        GetParam().reduce(dst, x.data() + 1, y.data() + 3, count, type, ReduceOp::kMax);
        ASSERT_EQ(std::memcmp(dst, want.data(), bytes), 0) << NameOf(type) << count << alias;
        ASSERT_EQ(before[0], dst[-1]);
        ASSERT_EQ(after[0], dst[bytes]);
      }
    }
  }
}

// The portable build is what a foreign CPU runs: ranks of one job must get the same bits.
TEST_P(Kernels, AgreeWithThePortableBuildBitForBit) {
  for (const DataType type : kTypes) {
    const size_t count = 30'001;
    auto a = RandomBits(count * SizeOf(type), 5), b = RandomBits(count * SizeOf(type), 6);
    for (const ReduceOp op : kOps) {
      std::vector<std::byte> got(a.size()), want(a.size());
      GetParam().reduce(got.data(), a.data(), b.data(), count, type, op);
      AllReduceKernels()[0].reduce(want.data(), a.data(), b.data(), count, type, op);
      GetParam().divide(got.data(), count, type, 3);
      AllReduceKernels()[0].divide(want.data(), count, type, 3);
      const size_t size = SizeOf(type);
      for (size_t i = 0; i < count; ++i) {
        if (std::memcmp(&got[i * size], &want[i * size], size) == 0) continue;
        // Only a NaN may differ (in its payload): it fails any comparison with itself.
        const bool nan = type == DataType::kFloat32
                             ? std::isnan(Get<float>(got, i)) && std::isnan(Get<float>(want, i))
                         : type == DataType::kFloat64
                             ? std::isnan(Get<double>(got, i)) && std::isnan(Get<double>(want, i))
                         : type == DataType::kFloat16
                             ? std::isnan(Decode(Get<uint16_t>(got, i), kHalf)) &&
                                   std::isnan(Decode(Get<uint16_t>(want, i), kHalf))
                             : type == DataType::kBfloat16 &&
                                   std::isnan(Decode(Get<uint16_t>(got, i), kBfloat)) &&
                                   std::isnan(Decode(Get<uint16_t>(want, i), kBfloat));
        ASSERT_TRUE(nan) << NameOf(type) << " " << NameOf(op) << " " << i;
      }
    }
  }
}

TEST_P(Kernels, DivideTruncatesIntegers) {
  int32_t values[] = {7, -7, std::numeric_limits<int32_t>::min(), 2, -2, 0};
  GetParam().divide(values, 6, DataType::kInt32, 3);
  const int32_t want[] = {2, -2, -715827882, 0, 0, 0};
  EXPECT_EQ(std::memcmp(values, want, sizeof(want)), 0);
  int64_t wide[] = {std::numeric_limits<int64_t>::min(), -5};
  GetParam().divide(wide, 2, DataType::kInt64, 2);
  EXPECT_EQ(wide[0], std::numeric_limits<int64_t>::min() / 2);
  EXPECT_EQ(wide[1], -2);
}

bool IsNan(const std::vector<std::byte>& from, size_t i, DataType type) {
  switch (type) {
    case DataType::kFloat32:
      return std::isnan(Get<float>(from, i));
    case DataType::kFloat64:
      return std::isnan(Get<double>(from, i));
    case DataType::kFloat16:
      return std::isnan(Decode(Get<uint16_t>(from, i), kHalf));
    case DataType::kBfloat16:
      return std::isnan(Decode(Get<uint16_t>(from, i), kBfloat));
    default:
      return false;
  }
}

// Fused is the same as one input after the other, for the types that are not rounded in between;
// and for short floats with two inputs and no division.
TEST_P(Kernels, FusedIsOneAfterTheOther) {
  uint64_t seed = 10;
  for (const DataType type : kTypes) {
    const bool rounds = SizeOf(type) == 2;
    for (const ReduceOp op : kOps) {
      for (const int inputs : rounds ? std::vector<int>{1, 2} : std::vector<int>{1, 2, 3, 5}) {
        for (const int outputs : {1, 2, 3}) {
          for (const size_t count : {0, 1, 7, 64, 1025, 5000}) {
            const size_t bytes = count * SizeOf(type);
            const int divisor = op == ReduceOp::kAvg && !rounds ? inputs : 1;
            const bool stream = ++seed % 2 == 0;
            std::vector<std::vector<std::byte>> in, out;
            std::vector<const void*> from;
            std::vector<void*> to;
            for (int i = 0; i < inputs; ++i) in.push_back(RandomBits(bytes + 16, seed * 8 + i));
            for (int i = 0; i < outputs; ++i) out.emplace_back(bytes + 16, std::byte{0x5a});
            for (auto& each : in) from.push_back(each.data() + 3);
            for (auto& each : out) to.push_back(each.data() + 1 + to.size() * 2);
            std::vector<std::byte> want(in[0].begin() + 3, in[0].begin() + 3 + bytes);
            for (int i = 1; i < inputs; ++i) {
              GetParam().reduce(want.data(), want.data(), from[i], count, type, op);
            }
            if (divisor > 1) GetParam().divide(want.data(), count, type, divisor);
            // The last output is the last input: in place.
            to.back() = in.back().data() + 3;
            GetParam().reduce_fused(
                {from.data(), inputs, to.data(), outputs, count, type, op, divisor, stream});
            for (void* const each : to) {
              std::vector<std::byte> got(bytes + 1);
              std::memcpy(got.data(), each, bytes);
              for (size_t i = 0; i < count; ++i) {
                const size_t at = i * SizeOf(type);
                if (std::memcmp(&got[at], &want[at], SizeOf(type)) == 0) continue;
                ASSERT_TRUE(IsNan(got, i, type) && IsNan(want, i, type))
                    << NameOf(type) << " " << NameOf(op) << " " << inputs << " to " << outputs
                    << " count " << count << " element " << i << (stream ? " streamed" : "");
              }
            }
            for (int i = 0; i + 1 < outputs; ++i) {
              const size_t begin = 1 + static_cast<size_t>(i) * 2;
              ASSERT_EQ(out[i][begin - 1], std::byte{0x5a});
              ASSERT_EQ(out[i][begin + bytes], std::byte{0x5a});
            }
          }
        }
      }
    }
  }
}

// Short floats are summed in single precision and rounded once: 2048 + 1 + 1 in half is 2050, not
// 2048 as with a rounding after each step; and an average of large numbers does not overflow.
TEST_P(Kernels, FusedShortFloatsAreRoundedOnce) {
  const auto half = [](double value) { return Encode(value, kHalf); };
  const uint16_t a = half(2048), one = half(1), large = half(60000);
  uint16_t got = 0;
  void* to = &got;
  const void* small[] = {&a, &one, &one};
  GetParam().reduce_fused({small, 3, &to, 1, 1, DataType::kFloat16, ReduceOp::kSum, 1, false});
  EXPECT_EQ(Decode(got, kHalf), 2050);
  const void* big[] = {&large, &large, &large};
  GetParam().reduce_fused({big, 3, &to, 1, 1, DataType::kFloat16, ReduceOp::kAvg, 3, false});
  EXPECT_EQ(Decode(got, kHalf), 60000);
}

TEST_P(Kernels, CopiesAnyCountAndAddress) {
  const auto from = RandomBits(70'000, 9);
  for (const size_t bytes : {0, 1, 63, 64, 65, 200, 4099, 65'000}) {
    for (const size_t shift : {0, 1, 8, 63}) {
      std::vector<std::byte> to(bytes + 130, std::byte{0x5a});
      GetParam().copy_streaming(to.data() + shift + 1, from.data() + 5, bytes);
      ASSERT_EQ(std::memcmp(to.data() + shift + 1, from.data() + 5, bytes), 0);
      ASSERT_EQ(to[shift], std::byte{0x5a});
      ASSERT_EQ(to[shift + 1 + bytes], std::byte{0x5a});
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Builds, Kernels, ::testing::ValuesIn(AllReduceKernels()),
                         [](const auto& i) { return std::string(i.param.name); });

TEST(FinalizeReduction, OnlyDividesAverages) {
  for (const ReduceOp op : kOps) {
    float value = 6;
    FinalizeReduction(&value, 1, DataType::kFloat32, op, 4);
    EXPECT_EQ(value, op == ReduceOp::kAvg ? 1.5F : 6.0F) << NameOf(op);
  }
}

TEST(DataTypes, ParseWhatTheyPrint) {
  for (const DataType type : kTypes) EXPECT_EQ(ParseDataType(NameOf(type)).value(), type);
  for (const ReduceOp op : kOps) EXPECT_EQ(ParseReduceOp(NameOf(op)).value(), op);
  EXPECT_EQ(ParseDataType("bf16").value(), DataType::kBfloat16);
  EXPECT_NE(ParseDataType("f8").status().message().find("half (f16)"), std::string::npos);
  EXPECT_NE(ParseReduceOp("xor").status().message().find("sum, prod, min"), std::string::npos);
}

}  // namespace
}  // namespace sumac::collectives
