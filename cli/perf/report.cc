#include "cli/perf/report.h"

#include <cstdio>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/perf/machine.h"

namespace sumac::cli {
namespace {

constexpr const char* kNames[] = {"all_reduce", "all_gather", "reduce_scatter", "broadcast"};

// Gigabytes a second: bytes over microseconds, divided by a thousand.
double GigabytesPerSecond(uint64_t bytes, double microseconds) {
  return microseconds > 0 ? static_cast<double>(bytes) / microseconds / 1000 : 0;
}

bool Reduces(Collective collective) {
  return collective == Collective::kAllReduce || collective == Collective::kReduceScatter;
}

// nccl-tests keeps seven characters for a time, with fewer decimals the longer it is.
std::string Time(double microseconds) {
  if (microseconds >= 100'000) return absl::StrFormat("%7.0f", microseconds);
  if (microseconds >= 1'000) return absl::StrFormat("%7.1f", microseconds);
  return absl::StrFormat("%7.2f", microseconds);
}

std::string Columns(const Measurement& measured, uint64_t bytes, double bus_factor) {
  const double algbw = GigabytesPerSecond(bytes, measured.microseconds);
  const std::string wrong = measured.wrong < 0 ? "N/A" : absl::StrCat(measured.wrong);
  return absl::StrFormat("  %s  %6.2f  %6.2f  %5s", Time(measured.microseconds), algbw,
                         algbw * bus_factor, wrong);
}

}  // namespace

void Report::Begin(const std::vector<RankInfo>& ranks, bool host_memory) {
  const char* const buffers = options_.buffers == BufferKind::kMalloc ? "malloc" : "registered";
  json_["collective"] = kNames[static_cast<size_t>(collective_)];
  json_["ranks"] = nlohmann::ordered_json::array();
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    json_["ranks"].push_back({{"rank", rank},
                              {"host", ranks[rank].host},
                              {"pid", ranks[rank].pid},
                              {"device", ranks[rank].device}});
  }
  Machine machine = ReadMachine();
  const CpuPair cpus = AllowedCpus();
  MeasureDistance(machine, cpus.first, cpus.second);
  json_["machine"] = machine.ToJson();
  json_["iterations"] = options_.iterations;
  json_["warmup_iterations"] = options_.warmup_iterations;
  json_["host_memory"] = host_memory;
  json_["buffers"] = buffers;
  json_["results"] = nlohmann::ordered_json::array();
  if (options_.json) return;
  const std::string step = options_.step_factor > 1 ? absl::StrCat(options_.step_factor, "(factor)")
                                                    : absl::StrCat(options_.step_bytes, "(bytes)");
  std::printf(
      "# nThread 1 nGpus 0 minBytes %llu maxBytes %llu step: %s warmup iters: %d iters: %d agg "
      "iters: %d validation: %d\n#\n# Using devices\n",
      static_cast<unsigned long long>(options_.min_bytes),
      static_cast<unsigned long long>(options_.max_bytes), step.c_str(), options_.warmup_iterations,
      options_.iterations, options_.aggregated, options_.check ? 1 : 0);
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    std::printf("#  Rank %2zu Pid %6d on %10s device %s\n", rank, ranks[rank].pid,
                ranks[rank].host.c_str(), ranks[rank].device.c_str());
  }
  std::printf("# Machine: %s\n", machine.ToText().c_str());
  std::printf("#\n# Path: %s, buffers: %s\n", host_memory ? "in host memory" : "over the device",
              buffers);
  std::printf(
      "#\n"
      "#                                                           out-of-place                    "
      " "
      "  in-place\n"
      "#       size         count      type   redop    root     time   algbw   busbw #wrong     "
      "time "
      "  algbw   busbw #wrong\n"
      "#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            "
      "(us) "
      " (GB/s)  (GB/s)\n");
  std::fflush(stdout);
}

void Report::Row(const Problem& problem, const Measurement& out_of_place,
                 const Measurement& in_place) {
  const uint64_t bytes = problem.total_bytes();
  const double factor = problem.bus_factor();
  const char* op = Reduces(collective_) ? collectives::NameOf(problem.op) : "none";
  const int root = collective_ == Collective::kBroadcast ? problem.root : -1;
  nlohmann::ordered_json row = {{"size", bytes},
                                {"count", problem.count},
                                {"type", collectives::NameOf(problem.type)},
                                {"redop", op},
                                {"root", root}};
  for (const auto& [name, measured] :
       {std::pair{"out_of_place", &out_of_place}, {"in_place", &in_place}}) {
    const double algbw = GigabytesPerSecond(bytes, measured->microseconds);
    row[name] = {{"time", measured->microseconds}, {"algbw", algbw}, {"busbw", algbw * factor}};
    row[name]["wrong"] = measured->wrong < 0 ? nlohmann::ordered_json(nullptr)
                                             : nlohmann::ordered_json(measured->wrong);
    bus_bandwidth_sum_ += algbw * factor;
    ++bus_bandwidth_count_;
    if (measured->wrong > 0) wrong_ += measured->wrong;
  }
  json_["results"].push_back(std::move(row));
  if (options_.json) return;
  std::printf("%12llu  %12zu  %8s  %6s  %6d%s%s\n", static_cast<unsigned long long>(bytes),
              problem.count, collectives::NameOf(problem.type), op, root,
              Columns(out_of_place, bytes, factor).c_str(),
              Columns(in_place, bytes, factor).c_str());
  std::fflush(stdout);
}

absl::Status Report::End() {
  const double average = bus_bandwidth_count_ > 0 ? bus_bandwidth_sum_ / bus_bandwidth_count_ : 0;
  json_["out_of_bounds"] = wrong_;
  json_["average_busbw"] = average;
  if (options_.json) {
    std::printf("%s\n", json_.dump(2).c_str());
  } else {
    std::printf("# Out of bounds values : %lld %s\n# Avg bus bandwidth    : %g\n#\n",
                static_cast<long long>(wrong_), wrong_ == 0 ? "OK" : "FAILED", average);
  }
  std::fflush(stdout);
  if (options_.json_file.empty()) return absl::OkStatus();
  std::ofstream file(options_.json_file);
  file << json_.dump(2) << "\n";
  file.close();
  if (!file) return absl::UnavailableError(absl::StrCat("can't write ", options_.json_file));
  return absl::OkStatus();
}

}  // namespace sumac::cli
