// Mistakes on purpose, so that a test can show that the simulator finds such mistakes
// (tests/simulation/planted_bug_test.cc).
//
// No library and no program has them: Planted() is a constant false, and nothing of them is
// compiled, unless SUMAC_PLANTED_BUGS is defined. That test alone defines it, for the few engine
// sources that include this header, and chooses one mistake at run time.
#pragma once

#include <cstdint>

namespace sumac::soft_nic {

enum class PlantedBug : uint8_t {
  kNone,
  kPsnWithoutWrap,  // answers' PSNs are compared as if they never wrapped
  kAtomicTwice,     // a repeated fetch-and-add acts on memory again
  kGapUnseen,       // UC goes on with a message although a packet of it is missing
};

#ifdef SUMAC_PLANTED_BUGS
inline PlantedBug planted_bug = PlantedBug::kNone;
inline bool Planted(PlantedBug bug) { return planted_bug == bug; }
#else
constexpr bool Planted(PlantedBug) { return false; }
#endif

}  // namespace sumac::soft_nic
