// `sumac run`: starts N ranks on this machine, follows them, and ends the job when one dies.
//
// It runs the job's bootstrap server itself, so ranks learn of a death at once, whichever it was.
// Single-threaded beside gRPC; signals are taken through a signalfd.
#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"

namespace sumac::cli {

struct LaunchOptions {
  static constexpr int kRanksMax = 1024;
  int ranks = 1;
  std::vector<std::string> command;      // program and arguments
  std::vector<std::string> environment;  // extra "NAME=value"
  bool tag_output = true;
  absl::Duration timeout = absl::InfiniteDuration();  // of the whole job
  absl::Duration grace = absl::Seconds(5);  // for survivors of a dead rank to report and end
};

// Runs the job. The exit code: 0, or the worst rank's (128 + n when signal n killed it), 124 when
// the timeout ended it, 130 or 143 when we were interrupted, 2 when it could not start.
int Launch(const LaunchOptions& options);

}  // namespace sumac::cli
