// Plays one case of a script against a device: posts, injects, waits, and compares (README.md has
// the grammar).
//
// Strict: at the end of a case no packet and no completion may be left that the script did not
// expect, and no byte of memory may have changed that it did not name.
//
// Against a device in real time a time is a bound: nothing comes much earlier, nor a second later.
// One thread.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "tests/conformance/device.h"
#include "tests/conformance/packet_text.h"
#include "tests/conformance/script.h"

namespace sumac::conformance {

using MakeDevice = std::function<std::unique_ptr<Device>(const Setup&)>;

struct Outcome {
  enum Kind { kPassed, kFailed, kNotApplicable };
  Kind kind = kPassed;
  std::string why;  // failed: script, line, what was expected, what came
};

Outcome Play(const Case& script, const MakeDevice& make);

}  // namespace sumac::conformance
