// Known differences of a device: the cases that it is known to fail, and why.
//
// A file of them has one case a line, `#` begins a comment:
//
//   differs rc/gap.rdma | after the gap is filled the rest is taken | why
//   varies rc/retry.rdma | timeout code 1 | why        now so, now so: either is right
//   crashes rc/length.rdma | WRITE_ONLY with … | why   takes the machine down: is not played
//
// The cases that it fails are then just these: one that is not listed must pass, and one that is
// must fail. Throws ScriptError for a file that can't be understood.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>

#include "tests/conformance/player.h"
#include "tests/conformance/script.h"

namespace sumac::conformance {

class Differences {
 public:
  Differences() = default;
  explicit Differences(const std::string& file);

  enum class Kind { kNone, kDiffers, kVaries, kCrashes };
  Kind KindOf(const Case& script) const;
  // What is wrong with this outcome, or "". Of a known difference, nothing.
  std::string Judge(const Case& script, const Outcome& outcome);
  // Lines for which there was no case among those judged.
  std::string Unused() const;
  size_t known() const { return known_; }  // failures that the file lists

 private:
  using Name = std::pair<std::string, std::string>;  // "rc/gap.rdma", case

  std::string file_;
  std::map<Name, Kind> kinds_;
  std::set<Name> judged_;
  size_t known_ = 0;
};

}  // namespace sumac::conformance
