// Random collective calls, checked against a reference of their own; for tests.
//
// All ranks draw the calls from one seed; each draws for itself where its buffers are: registered
// or on the heap, aligned or not, freed and allocated anew in between. The data are small whole
// numbers that every type holds exactly, so a result is right or wrong; averages may be off by a
// rounding. The reference is plain arithmetic on doubles and knows nothing of the kernels.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "collectives/communicator.h"
#include "collectives/schedule/schedule.h"

namespace sumac::collectives {

// --- Elements as doubles
inline void PutNumber(std::byte* at, DataType type, double value) {
  const auto put = [at](auto element) { std::memcpy(at, &element, sizeof element); };
  const auto single = std::bit_cast<uint32_t>(static_cast<float>(value));
  switch (type) {
    case DataType::kFloat32:
      return put(single);
    case DataType::kFloat64:
      return put(value);
    case DataType::kBfloat16:
      return put(static_cast<uint16_t>(single >> 16));
    case DataType::kFloat16:  // rebias the exponent; exact for the numbers used here
      return put(static_cast<uint16_t>(
          value == 0 ? 0
                     : (single >> 16 & 0x8000) | (((single & 0x7fffffff) >> 13) - (112 << 10))));
    case DataType::kInt32:
      return put(static_cast<int32_t>(value));
    case DataType::kInt64:
      return put(static_cast<int64_t>(value));
  }
}

inline double GetNumber(const std::byte* at, DataType type) {
  const auto get = [at](auto element) {
    std::memcpy(&element, at, sizeof element);
    return element;
  };
  switch (type) {
    case DataType::kFloat32:
      return get(float{});
    case DataType::kFloat64:
      return get(double{});
    case DataType::kBfloat16:
      return std::bit_cast<float>(static_cast<uint32_t>(get(uint16_t{})) << 16);
    case DataType::kFloat16: {
      const uint16_t bits = get(uint16_t{});
      const int exponent = bits >> 10 & 0x1f;
      const int fraction = bits & 0x3ff;
      const double magnitude = exponent == 0    ? std::ldexp(fraction, -24)
                               : exponent == 31 ? NAN
                                                : std::ldexp(fraction | 0x400, exponent - 25);
      return (bits & 0x8000) != 0 ? -magnitude : magnitude;
    }
    case DataType::kInt32:
      return get(int32_t{});
    case DataType::kInt64:
      return static_cast<double>(get(int64_t{}));
  }
  return NAN;
}

// Half a unit in the last place, relative.
inline double HalfUnit(DataType type) {
  switch (type) {
    case DataType::kFloat16:
      return std::ldexp(1, -11);
    case DataType::kBfloat16:
      return std::ldexp(1, -8);
    case DataType::kFloat32:
      return std::ldexp(1, -24);
    default:
      return 0;
  }
}

// --- One call
struct RandomCall {
  Collective collective = Collective::kAllReduce;
  int ranks = 1;
  int root = 0;
  size_t count = 0;  // as the caller gives it
  DataType type = DataType::kFloat32;
  ReduceOp op = ReduceOp::kSum;
  bool in_place = false;
  uint32_t salt = 0;

  // What rank `rank` gives at element i of its input.
  double Given(int rank, size_t i) const {
    const auto mixed = static_cast<uint32_t>(i + (i >> 9) + salt) + static_cast<uint32_t>(rank) * 5;
    if (op == ReduceOp::kProd) return mixed % 3 == 0 ? 2 : mixed % 3 == 1 ? -1 : 1;
    return static_cast<double>(mixed % 27) - 13;
  }
  double Reduced(size_t i) const {
    double result = Given(0, i);
    for (int rank = 1; rank < ranks; ++rank) {
      const double next = Given(rank, i);
      switch (op) {
        case ReduceOp::kSum:
        case ReduceOp::kAvg:
          result += next;
          break;
        case ReduceOp::kProd:
          result *= next;
          break;
        case ReduceOp::kMin:
          result = std::min(result, next);
          break;
        case ReduceOp::kMax:
          result = std::max(result, next);
          break;
      }
    }
    if (op != ReduceOp::kAvg) return result;
    const bool integer = type == DataType::kInt32 || type == DataType::kInt64;
    return integer ? std::trunc(result / ranks) : result / ranks;
  }
  // Element i of the output of `rank`.
  double Wanted(int rank, size_t i) const {
    switch (collective) {
      case Collective::kAllReduce:
        return Reduced(i);
      case Collective::kReduceScatter:
        return Reduced(static_cast<size_t>(rank) * count + i);
      case Collective::kAllGather:
        return Given(static_cast<int>(i / count), i % count);
      default:
        return Given(root, i);
    }
  }
  size_t InputCount() const {
    return collective == Collective::kReduceScatter ? count * static_cast<size_t>(ranks) : count;
  }
  size_t OutputCount() const {
    return collective == Collective::kAllGather ? count * static_cast<size_t>(ranks) : count;
  }
  std::string ToString() const {
    return absl::StrCat(NameOf(collective), " n=", ranks, " root=", root, " count=", count, " ",
                        NameOf(type), " ", NameOf(op), in_place ? " in place" : "", " salt=", salt);
  }
};

// --- One rank's memory
class RandomMemory {
 public:
  RandomMemory(Communicator& communicator, size_t bytes_max, uint64_t seed)
      : communicator_(communicator), bytes_max_(bytes_max), random_(seed) {}

  // Two places that don't overlap, of so many bytes, with guards around the second.
  std::string Choose(size_t input_bytes, size_t output_bytes) {
    for (size_t i = 0; i < 2; ++i) {
      Place& place = places_[i];
      const size_t bytes = i == 0 ? input_bytes : output_bytes;
      if (random_() % 16 == 0) place.registered.reset();  // freed; allocated again when chosen
      if (random_() % 2 == 0) {
        if (!place.registered) {
          auto made = communicator_.Allocate(bytes_max_ + kRoom);
          if (!made.ok()) return made.status().ToString();
          place.registered = *std::move(made);
        }
        place.at = place.registered->data();
      } else {
        place.heap.resize(std::max(place.heap.size(), bytes + kRoom));
        place.at = place.heap.data();
      }
      place.at += kGuard + (random_() % 3 == 0 ? random_() % 64 : 0);
    }
    std::memset(output() - kGuard, kFill, output_bytes + 2 * kGuard);
    return "";
  }
  std::byte* input() { return places_[0].at; }
  std::byte* output() { return places_[1].at; }
  bool GuardsHold(size_t output_bytes) {
    const std::byte* const begin = output();
    const auto kept = [](std::byte b) { return b == std::byte{kFill}; };
    return std::all_of(begin - kGuard, begin, kept) &&
           std::all_of(begin + output_bytes, begin + output_bytes + kGuard, kept);
  }

 private:
  static constexpr size_t kGuard = 32;
  static constexpr size_t kRoom = 64 + 2 * kGuard;
  static constexpr unsigned char kFill = 0xa5;
  struct Place {
    std::optional<RegisteredBuffer> registered;
    std::vector<std::byte> heap;
    std::byte* at = nullptr;
  };
  Communicator& communicator_;
  const size_t bytes_max_;
  std::mt19937_64 random_;
  Place places_[2];
};

// Makes one call and checks what came of it. Empty: all is right.
inline std::string MakeCall(Communicator& communicator, const RandomCall& call,
                            RandomMemory& memory) {
  const int rank = communicator.rank();
  const size_t element = SizeOf(call.type);
  const size_t inputs = call.InputCount(), outputs = call.OutputCount();
  // In place, the one place takes the larger of the two.
  const size_t larger = std::max(inputs, outputs) * element;
  const size_t shift = static_cast<size_t>(rank) * call.count * element;
  if (std::string wrong = memory.Choose(larger, call.in_place ? larger : outputs * element);
      !wrong.empty()) {
    return wrong;
  }
  std::byte* input = memory.input();
  std::byte* output = memory.output();
  if (call.in_place) {
    input = output + (call.collective == Collective::kAllGather ? shift : 0);
    output += call.collective == Collective::kReduceScatter ? shift : 0;
  }
  const bool gives = call.collective != Collective::kBroadcast || rank == call.root;
  for (size_t i = 0; gives && i < inputs; ++i) {
    PutNumber(input + i * element, call.type, call.Given(rank, i));
  }
  absl::Status status;
  switch (call.collective) {
    case Collective::kAllReduce:
      status = communicator.AllReduce(input, output, call.count, call.type, call.op);
      break;
    case Collective::kReduceScatter:
      status = communicator.ReduceScatter(input, output, call.count, call.type, call.op);
      break;
    case Collective::kAllGather:
      status = communicator.AllGather(input, output, call.count, call.type);
      break;
    case Collective::kBroadcast:
      status = communicator.Broadcast(input, output, call.count, call.type, call.root);
      break;
    case Collective::kBarrier:
      status = communicator.Barrier();
      break;
  }
  if (!status.ok()) return absl::StrCat(call.ToString(), ": ", status.ToString());
  const double tolerance = call.op == ReduceOp::kAvg ? HalfUnit(call.type) : 0;
  for (size_t i = 0; call.collective != Collective::kBarrier && i < outputs; ++i) {
    const double want = call.Wanted(rank, i), got = GetNumber(output + i * element, call.type);
    if (!(std::abs(got - want) <= tolerance * std::abs(want))) {
      return absl::StrCat(call.ToString(), ": rank ", rank, " element ", i, " is ", got, ", not ",
                          want);
    }
  }
  for (size_t i = 0; gives && !call.in_place && i < inputs; ++i) {
    if (GetNumber(input + i * element, call.type) != call.Given(rank, i)) {
      return absl::StrCat(call.ToString(), ": rank ", rank, " changed its input");
    }
  }
  if (!memory.GuardsHold(call.in_place ? larger : outputs * element)) {
    return absl::StrCat(call.ToString(), ": rank ", rank, " wrote outside its buffer");
  }
  return "";
}

// `calls` random calls of up to `bytes_max` a buffer. Empty: all were right.
inline std::string MakeRandomCalls(Communicator& communicator, uint64_t seed, int calls,
                                   size_t bytes_max) {
  std::mt19937_64 random(seed);
  RandomMemory memory(communicator, bytes_max,
                      seed * 1000 + static_cast<uint64_t>(communicator.rank()));
  const auto n = static_cast<size_t>(communicator.size());
  for (int i = 0; i < calls; ++i) {
    RandomCall call;
    call.ranks = communicator.size();
    call.salt = static_cast<uint32_t>(i) * 11;
    const uint64_t kind = random() % 16;
    call.collective = kind < 7    ? Collective::kAllReduce
                      : kind < 10 ? Collective::kReduceScatter
                      : kind < 12 ? Collective::kAllGather
                      : kind < 15 ? Collective::kBroadcast
                                  : Collective::kBarrier;
    call.root = static_cast<int>(random() % n);
    call.type = static_cast<DataType>(random() % 6);
    call.op = static_cast<ReduceOp>(random() % 5);
    call.in_place = random() % 2 == 0;
    // Sizes: none, a few, about the inline limit, about a slot, a chunk or some, anything.
    const size_t around[] = {0, 2, 12, 1024, 40'000, bytes_max / 8};
    const size_t middle = around[random() % 6];
    size_t count = middle < 4 ? random() % 4 : middle + random() % 5 - 2;
    if (random() % 4 == 0) count = random() % (middle + 1);
    if (call.collective == Collective::kBroadcast && random() % 3 == 0) count *= 4;
    const size_t room = bytes_max / SizeOf(call.type);
    const bool shared =
        call.collective == Collective::kReduceScatter || call.collective == Collective::kAllGather;
    call.count = std::min(count, shared ? room / n : room);
    if (std::string wrong = MakeCall(communicator, call, memory); !wrong.empty()) {
      return absl::StrCat("call ", i, " of seed ", seed, ": ", wrong);
    }
  }
  return "";
}

}  // namespace sumac::collectives
