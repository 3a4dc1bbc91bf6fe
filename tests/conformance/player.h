// Plays one case of a script against a device: posts, injects, waits, and compares (README.md has
// the grammar).
//
// Strict: at the end of a case no packet and no completion may be left that the script did not
// expect, and no byte of memory may have changed that it did not name. One thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/conformance/device.h"
#include "tests/conformance/packet_text.h"
#include "tests/conformance/script.h"

namespace sumac::conformance {

using MakeDevice = std::function<std::unique_ptr<Device>(const Setup&)>;

// Why a case failed: script, line, what was expected, what came. Nothing: it passed.
std::optional<std::string> Play(const Case& script, const MakeDevice& make);

}  // namespace sumac::conformance
