#include "cli/perf/options.h"

#include <cstdio>
#include <limits>
#include <map>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "cli/path_flags.h"
#include "cli/perf/size.h"

namespace sumac::cli {
namespace {

constexpr int kIterationsMax = 1'000'000'000;

const char* ProgramOf(Collective collective) {
  switch (collective) {
    case Collective::kAllReduce:
      return "all_reduce_perf";
    case Collective::kAllGather:
      return "all_gather_perf";
    case Collective::kReduceScatter:
      return "reduce_scatter_perf";
    case Collective::kBroadcast:
      return "broadcast_perf";
  }
  return "";
}

// What the texts of size, type and operation options mean, filled while CLI11 checks them.
std::string TakeSize(const std::string& text, uint64_t* out) {
  const auto size = ParseSize(text);
  if (!size.ok()) return std::string(size.status().message());
  *out = *size;
  return {};
}

std::string TakeTypes(const std::string& text, std::vector<collectives::DataType>* out) {
  using collectives::DataType;
  if (text == "all") {
    *out = {DataType::kFloat32,  DataType::kFloat64, DataType::kFloat16,
            DataType::kBfloat16, DataType::kInt32,   DataType::kInt64};
    return {};
  }
  const auto type = collectives::ParseDataType(text);
  if (!type.ok()) return std::string(type.status().message());
  *out = {*type};
  return {};
}

std::string TakeOps(const std::string& text, std::vector<collectives::ReduceOp>* out) {
  using collectives::ReduceOp;
  if (text == "all") {
    *out = {ReduceOp::kSum, ReduceOp::kProd, ReduceOp::kMin, ReduceOp::kMax, ReduceOp::kAvg};
    return {};
  }
  const auto op = collectives::ParseReduceOp(text);
  if (!op.ok()) return std::string(op.status().message());
  *out = {*op};
  return {};
}

std::string CheckTogether(const PerfOptions& options) {
  if (options.max_bytes < options.min_bytes) {
    return absl::StrCat("--maxbytes ", options.max_bytes, " is less than --minbytes ",
                        options.min_bytes);
  }
  if (options.step_factor < 2 && options.step_bytes == 0) {
    return "--stepbytes 0 with no --stepfactor: the sweep would not end";
  }
  return {};
}

}  // namespace

std::vector<uint64_t> SizesOf(const PerfOptions& options) {
  std::vector<uint64_t> sizes;
  uint64_t size = options.min_bytes;
  while (size <= options.max_bytes) {
    sizes.push_back(size);
    // A sweep by a factor from zero goes on with one.
    const uint64_t next = options.step_factor > 1
                              ? std::max<uint64_t>(size * options.step_factor, 1)
                              : size + options.step_bytes;
    if (next <= size) break;
    size = next;
  }
  return sizes;
}

ParsedPerfOptions ParsePerfOptions(Collective collective, int argc, char** argv) {
  ParsedPerfOptions parsed;
  PerfOptions& options = parsed.options;
  CLI::App app(
      absl::StrCat(ProgramOf(collective), ": time and check a collective, as nccl-tests does"),
      ProgramOf(collective));
  std::string min_text, max_text, step_text, type_text, op_text, buffers_text;
  int threads = 1, gpus = 1, average = 1, check = 1, blocking = 0;
  double timeout_s = 30;
  const auto iterations = CLI::Range(0, kIterationsMax);

  app.add_option("-b,--minbytes", min_text, "smallest size (8, 64K, 1M, 2G); default 32M")
      ->check([&](const std::string& text) { return TakeSize(text, &options.min_bytes); });
  app.add_option("-e,--maxbytes", max_text, "largest size; default: --minbytes, or 32M")
      ->check([&](const std::string& text) { return TakeSize(text, &options.max_bytes); });
  app.add_option("-i,--stepbytes", step_text, "add this to a size for the next; default 1M")
      ->check([&](const std::string& text) { return TakeSize(text, &options.step_bytes); });
  app.add_option("-f,--stepfactor", options.step_factor,
                 "multiply a size by this for the next instead")
      ->check(CLI::Range(2, 1 << 30));
  app.add_option("-n,--iters", options.iterations, "timed iterations; default 20")
      ->check(CLI::Range(1, kIterationsMax));
  app.add_option("-w,--warmup_iters", options.warmup_iterations, "iterations before; default 1")
      ->check(iterations);
  app.add_option("-m,--agg_iters", options.aggregated, "operations an iteration; default 1")
      ->check(CLI::Range(1, kIterationsMax));
  if (collective == Collective::kAllReduce || collective == Collective::kReduceScatter) {
    app.add_option("-o,--op", op_text, "sum, prod, min, max, avg or all; default sum")
        ->check([&](const std::string& text) { return TakeOps(text, &options.ops); });
  }
  app.add_option("-d,--datatype", type_text,
                 "float, double, half, bfloat16, int32, int64 or all; default float")
      ->check([&](const std::string& text) { return TakeTypes(text, &options.types); });
  if (collective == Collective::kBroadcast) {
    app.add_option("-r,--root", options.root, "the rank that broadcasts; default 0")
        ->check(CLI::NonNegativeNumber);
  }
  app.add_option("-c,--check", check, "check the results: 1 (default) or 0")
      ->check(CLI::Range(0, 1));
  app.add_option("-z,--blocking", blocking, "accepted; every operation here blocks")
      ->check(CLI::Range(0, 1));
  app.add_option("-a,--average", average,
                 "time shown: 0 rank 0's, 1 average (default), 2 smallest, 3 largest")
      ->check(CLI::Range(0, 3));
  app.add_option("-t,--nthreads", threads, "threads a rank: only 1; start more ranks instead")
      ->check(CLI::Range(1, 1));
  app.add_option("-g,--ngpus", gpus, "devices a thread: only 1; start more ranks instead")
      ->check(CLI::Range(1, 1));
  app.add_option("-T,--timeout", timeout_s, "seconds until an operation fails; default 30")
      ->check(CLI::PositiveNumber);
  app.add_option("-J,--output_file", options.json_file,
                 "also write the results to this file, as JSON");
  app.add_flag("--json", options.json, "print JSON instead of the table");
  AddPathFlags(app, &options.path_variables);
  app.add_option("--buffers", buffers_text,
                 "registered (default): allocated from the communicator; malloc: heap memory")
      ->check(CLI::IsMember({"registered", "malloc"}));
  app.add_option("--algorithm", options.algorithm, "force one; see the error for the names");
  app.footer(absl::StrCat("\nExample:\n  sumac run -n 4 -- ", ProgramOf(collective),
                          " -b 8 -e 64M -f 2\n\nAlso starts under torchrun, mpirun and srun."));
  try {
    app.parse(argc, argv);
    if (max_text.empty() && !min_text.empty()) options.max_bytes = options.min_bytes;
    if (min_text.empty() && !max_text.empty()) {
      options.min_bytes = std::min(options.min_bytes, options.max_bytes);
    }
    if (const std::string wrong = CheckTogether(options); !wrong.empty()) {
      throw CLI::ValidationError(wrong);
    }
  } catch (const CLI::ParseError& error) {
    parsed.exit_code = app.exit(error) == 0 ? 0 : 2;
    return parsed;
  }
  options.check = check != 0;
  if (buffers_text == "malloc") options.buffers = BufferKind::kMalloc;
  options.blocking = blocking != 0;
  options.time_of = static_cast<TimeOf>(average);
  options.timeout = absl::Seconds(timeout_s);
  parsed.run = true;
  return parsed;
}

}  // namespace sumac::cli
