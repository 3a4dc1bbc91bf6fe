// The options of the perf programs: nccl-tests' letters and long names, checked.
//
// Pure but for usage text on standard output and errors on standard error.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"

#include "collectives/data_type.h"

namespace sumac::cli {

enum class Collective : uint8_t { kAllReduce, kAllGather, kReduceScatter, kBroadcast };

enum class TimeOf : uint8_t {
  kRank0,
  kAverage,
  kMin,
  kMax
};  // which ranks' time is shown (-a 0-3)

enum class BufferKind : uint8_t { kRegistered, kMalloc };

struct PerfOptions {
  uint64_t min_bytes = 32u << 20;
  uint64_t max_bytes = 32u << 20;
  uint64_t step_bytes = 1u << 20;
  uint64_t step_factor = 1;  // more than 1: multiply instead of adding step_bytes
  int iterations = 20;
  int warmup_iterations = 1;
  int aggregated = 1;  // operations a timed iteration
  std::vector<collectives::ReduceOp> ops = {collectives::ReduceOp::kSum};
  std::vector<collectives::DataType> types = {collectives::DataType::kFloat32};
  int root = 0;
  bool check = true;
  bool blocking = false;
  TimeOf time_of = TimeOf::kAverage;
  absl::Duration timeout = absl::Seconds(30);  // of each operation
  bool json = false;                           // to standard output instead of the table
  std::string json_file;                       // beside the table
  std::vector<std::string> path_variables;     // "SUMAC_DEVICE=rxe0" ..., from path_flags.h
  std::string algorithm;
  BufferKind buffers = BufferKind::kRegistered;
};

// The sizes of the sweep, in bytes, ascending.
std::vector<uint64_t> SizesOf(const PerfOptions& options);

// Either options, or the exit code of a run that ends here: --help (0), a bad option (2).
struct ParsedPerfOptions {
  PerfOptions options;
  bool run = false;
  int exit_code = 0;
};
ParsedPerfOptions ParsePerfOptions(Collective collective, int argc, char** argv);

}  // namespace sumac::cli
