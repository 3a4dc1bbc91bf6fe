// The one source of chance in a simulated run: the same seed gives the same numbers on every
// machine (SplitMix64).
#pragma once

#include <cstdint>

namespace sumac::soft_nic::simulation {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t Next() {
    state_ += 0x9e3779b97f4a7c15;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  // [0, bound); the bias of the modulus does not matter here. 0 for bound 0.
  uint64_t Below(uint64_t bound) { return bound == 0 ? 0 : Next() % bound; }
  // [first, last]
  uint64_t Between(uint64_t first, uint64_t last) { return first + Below(last - first + 1); }
  bool Chance(uint32_t per_10000) { return Below(10000) < per_10000; }

 private:
  uint64_t state_;
};

}  // namespace sumac::soft_nic::simulation
