// What `sumac perf` prints: perftest's columns, or the same as JSON.
//
// Used by the initiator only. A row is printed as it comes, and never with figures for wrong data.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "cli/perf/pair/options.h"
#include "cli/perf/pair/session.h"
#include "cli/perf/pair/statistics.h"
#include "nlohmann/json.hpp"

namespace sumac::cli {

class PairReport {
 public:
  explicit PairReport(const PairOptions& options) : options_(options) {}

  void Begin(const Session& session);
  void Row(uint64_t bytes, const LatencySummary& summary, uint64_t wrong);
  // `summary` is of both directions together.
  void Row(uint64_t bytes, const RateSummary& summary, uint64_t wrong);
  // Prints the footer, writes the JSON. An error when the file can't be written.
  absl::Status End();
  uint64_t wrong() const { return wrong_; }

 private:
  bool Wrong(uint64_t bytes, uint64_t iterations, uint64_t wrong);

  const PairOptions& options_;
  nlohmann::ordered_json json_;
  uint64_t wrong_ = 0;
};

}  // namespace sumac::cli
