#include "cli/perf/runner.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "cli/path_flags.h"
#include "cli/perf/problem.h"
#include "cli/perf/report.h"

#include "collectives/communicator.h"

namespace sumac::cli {
namespace {

using collectives::DataType;
using collectives::ReduceOp;
using Clock = std::chrono::steady_clock;

class Runner {
 public:
  Runner(const PerfOptions& options, Collective collective, collectives::Communicator& communicator,
         Buffers buffers)
      : options_(options),
        collective_(collective),
        communicator_(communicator),
        buffers_(std::move(buffers)),
        report_(options, collective) {}

  absl::Status Run() {
    if (options_.root >= communicator_.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--root ", options_.root, ": the job has ", communicator_.size(), " ranks"));
    }
    const auto ranks = GatherRanks();
    if (!ranks.ok()) return ranks.status();
    if (IsPrinter()) report_.Begin(*ranks, communicator_.uses_host_memory());
    for (const DataType type : options_.types) {
      for (const ReduceOp op : options_.ops) {
        for (const uint64_t bytes : SizesOf(options_)) {
          if (auto row = RunRow(type, op, bytes); !row.ok()) return row;
        }
      }
    }
    return IsPrinter() ? report_.End() : absl::OkStatus();
  }

  int64_t wrong() const { return wrong_; }

 private:
  bool IsPrinter() const { return communicator_.rank() == 0; }

  absl::StatusOr<std::vector<RankInfo>> GatherRanks() {
    char host[256] = "";
    gethostname(host, sizeof(host) - 1);
    auto& domain = communicator_.domain();
    const auto values = domain.worker().bootstrap().Exchange(
        "perf/ranks", absl::StrCat(host, " ", getpid(), " ", domain.device_name()),
        options_.timeout);
    if (!values.ok()) return values.status();
    std::vector<RankInfo> ranks;
    for (const std::string& value : *values) {
      const std::vector<std::string> fields = absl::StrSplit(value, ' ');
      RankInfo info;
      if (fields.size() == 3 && absl::SimpleAtoi(fields[1], &info.pid)) {
        info.host = fields[0];
        info.device = fields[2];
      }
      ranks.push_back(info);
    }
    return ranks;
  }

  absl::Status RunRow(DataType type, ReduceOp op, uint64_t bytes) {
    const Problem problem =
        SizedProblem(collective_, type, op, options_.root, communicator_, bytes);
    Measurement measured[2];
    for (const bool in_place : {false, true}) {
      auto result = Measure(problem, in_place);
      if (!result.ok()) return result.status();
      measured[in_place ? 1 : 0] = *result;
      wrong_ += std::max<int64_t>(result->wrong, 0);
    }
    if (IsPrinter()) report_.Row(problem, measured[0], measured[1]);
    return absl::OkStatus();
  }

  absl::StatusOr<Measurement> Measure(const Problem& problem, bool in_place) {
    Fill(problem, buffers_, in_place, ++salt_);
    for (int i = 0; i < options_.warmup_iterations; ++i) {
      if (auto ran = cli::Run(problem, communicator_, buffers_, in_place); !ran.ok()) return ran;
    }
    if (auto together = communicator_.Barrier(); !together.ok()) return together;
    const Clock::time_point start = Clock::now();
    for (int i = 0; i < options_.iterations * options_.aggregated; ++i) {
      if (auto ran = cli::Run(problem, communicator_, buffers_, in_place); !ran.ok()) return ran;
    }
    const std::chrono::duration<double, std::micro> spent = Clock::now() - start;
    Measurement measurement;
    measurement.microseconds = spent.count() / options_.iterations / options_.aggregated;
    if (auto combined = CombineTimes(measurement); !combined.ok()) return combined;
    if (!options_.check) return measurement;
    Fill(problem, buffers_, in_place, ++salt_);
    if (auto ran = cli::Run(problem, communicator_, buffers_, in_place); !ran.ok()) return ran;
    auto wrong = static_cast<int64_t>(CountWrong(problem, buffers_, in_place, salt_));
    auto summed =
        communicator_.AllReduce(&wrong, &measurement.wrong, 1, DataType::kInt64, ReduceOp::kSum);
    if (!summed.ok()) return summed;
    return measurement;
  }

  absl::Status CombineTimes(Measurement& measurement) {
    static constexpr ReduceOp kOps[] = {ReduceOp::kSum, ReduceOp::kAvg, ReduceOp::kMin,
                                        ReduceOp::kMax};
    if (options_.time_of == TimeOf::kRank0) {
      return communicator_.Broadcast(&measurement.microseconds, &measurement.microseconds, 1,
                                     DataType::kFloat64, 0);
    }
    return communicator_.AllReduce(&measurement.microseconds, &measurement.microseconds, 1,
                                   DataType::kFloat64, kOps[static_cast<size_t>(options_.time_of)]);
  }

  const PerfOptions& options_;
  const Collective collective_;
  collectives::Communicator& communicator_;
  Buffers buffers_;
  Report report_;
  uint32_t salt_ = 0;
  int64_t wrong_ = 0;
};

int Fail(int rank, const absl::Status& status) {
  const std::string who = rank >= 0 ? absl::StrCat("rank ", rank, ": ") : "";
  std::fprintf(stderr, "%s%s\n", who.c_str(), status.ToString().c_str());
  return 1;
}

}  // namespace

int PerfMain(Collective collective, int argc, char** argv) {
  const ParsedPerfOptions parsed = ParsePerfOptions(collective, argc, argv);
  if (!parsed.run) return parsed.exit_code;
  SetVariables(parsed.options.path_variables);
  collectives::CommunicatorOptions options;
  options.algorithm = parsed.options.algorithm;
  options.timeout = parsed.options.timeout;
  auto communicator = collectives::Communicator::FromEnvironment(options);
  if (!communicator.ok()) return Fail(-1, communicator.status());
  const int rank = (*communicator)->rank();
  try {
    auto buffers = Buffers::Make(**communicator, parsed.options.buffers, parsed.options.max_bytes);
    if (!buffers.ok()) return Fail(rank, buffers.status());
    Runner runner(parsed.options, collective, **communicator, *std::move(buffers));
    if (auto ran = runner.Run(); !ran.ok()) return Fail(rank, ran);
    return runner.wrong() == 0 ? 0 : 1;
  } catch (const std::bad_alloc&) {
    return Fail(rank, absl::ResourceExhaustedError(absl::StrCat(
                          "no memory for two buffers of ", parsed.options.max_bytes, " bytes")));
  }
}

}  // namespace sumac::cli
