// What a perf program prints: nccl-tests' table, or the same as JSON.
//
// Used by rank 0 only. Each row is flushed as it comes: the table is the progress display.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "cli/perf/options.h"
#include "cli/perf/problem.h"
#include "nlohmann/json.hpp"

namespace sumac::cli {

struct Measurement {
  double microseconds = 0;  // an operation
  int64_t wrong = -1;       // -1: not checked
};

struct RankInfo {
  std::string host;
  int pid = 0;
  std::string device;
};

class Report {
 public:
  Report(const PerfOptions& options, Collective collective)
      : options_(options), collective_(collective) {}

  void Begin(const std::vector<RankInfo>& ranks, bool host_memory);
  void Row(const Problem& problem, const Measurement& out_of_place, const Measurement& in_place);
  // Prints the footer, writes the JSON. An error when the file can't be written.
  absl::Status End();
  int64_t wrong() const { return wrong_; }

 private:
  const PerfOptions& options_;
  const Collective collective_;
  nlohmann::ordered_json json_;
  double bus_bandwidth_sum_ = 0;
  int bus_bandwidth_count_ = 0;
  int64_t wrong_ = 0;
};

}  // namespace sumac::cli
