#include "cli/perf/pair/options.h"

#include <algorithm>
#include <array>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "cli/path_flags.h"
#include "cli/perf/pair/refused_options.h"
#include "cli/perf/size.h"

namespace sumac::cli {
namespace {

constexpr uint64_t kSizeMax = uint64_t{1} << 30;
constexpr uint64_t kIterationsMax = 1'000'000'000;
constexpr uint64_t kLatencyIterations = 1000;  // perftest's
constexpr uint64_t kBandwidthIterations = 5000;
// Without -n large sizes are repeated less often, so that a row takes a second or so.
constexpr uint64_t kBytesARow = uint64_t{1} << 30;
constexpr uint64_t kIterationsMin = 20;
constexpr int kSmallestShift = 1, kLargestShift = 23;  // -a: 2 B to 8 MiB

struct Test {
  const char* name;
  PairOperation operation;
  PairMeasure measure;
};

constexpr std::array<Test, 8> kTests = {{
    {"put_lat", PairOperation::kPut, PairMeasure::kLatency},
    {"put_bw", PairOperation::kPut, PairMeasure::kBandwidth},
    {"get_lat", PairOperation::kGet, PairMeasure::kLatency},
    {"get_bw", PairOperation::kGet, PairMeasure::kBandwidth},
    {"send_lat", PairOperation::kSend, PairMeasure::kLatency},
    {"send_bw", PairOperation::kSend, PairMeasure::kBandwidth},
    {"atomic_lat", PairOperation::kAtomic, PairMeasure::kLatency},
    {"atomic_bw", PairOperation::kAtomic, PairMeasure::kBandwidth},
}};

std::string TakeTest(const std::string& text, PairOptions* options) {
  const auto found = std::find_if(kTests.begin(), kTests.end(),
                                  [&](const Test& test) { return text == test.name; });
  if (found == kTests.end()) {
    return absl::StrCat("'", text, "' is no test: one of ",
                        absl::StrJoin(kTests, ", ", [](std::string* out, const Test& test) {
                          absl::StrAppend(out, test.name);
                        }));
  }
  options->operation = found->operation;
  options->measure = found->measure;
  return {};
}

std::string TakeSize(const std::string& text, uint64_t* out) {
  const auto size = ParseSize(text);
  if (!size.ok()) return std::string(size.status().message());
  if (*size == 0 || *size > kSizeMax) return absl::StrCat(text, ": must be 1 to 1G");
  *out = *size;
  return {};
}

void AddMeasuring(CLI::App& command, PairOptions* options) {
  command
      .add_option_function<std::string>(
          "-s,--size", [](const std::string&) {},
          "bytes an operation (8, 64K, 1M); default: 2 for latency, 64K for bandwidth")
      ->check([options](const std::string& text) { return TakeSize(text, &options->size); });
  command.add_flag("-a,--all", options->all_sizes, "every power of two from 2 B to 8 MiB");
  command
      .add_option("-n,--iters", options->iterations,
                  "operations timed, a queue pair; default 1000 for latency, 5000 for bandwidth, "
                  "fewer where that is more than 1 GiB")
      ->check(CLI::Range(uint64_t{5}, kIterationsMax));
  command
      .add_option("-D,--duration", options->duration_s, "seconds to measure a size, instead of -n")
      ->check(CLI::Range(0.001, 3600.0));
  command.add_option("--warmup", options->warmup, "operations before that; default 100")
      ->check(CLI::Range(uint64_t{0}, kIterationsMax));
  command
      .add_option("-q,--qp", options->queue_pairs,
                  "bandwidth: queue pairs, each a domain's; default 1")
      ->check(CLI::Range(1, 64));
  command.add_flag("-b,--bidirectional", options->bidirectional,
                   "bandwidth: in both directions at once");
  command
      .add_option("-t,--tx-depth", options->tx_depth,
                  "bandwidth: operations in flight, a queue pair; default 128")
      ->check(CLI::Range(1, 8192));
  command.add_flag_callback(
      "--ping-pong", [options] { options->put_latency = PutLatency::kPingPong; },
      "put_lat: half of a round trip, each side polling the last byte, as ib_write_lat; default: "
      "the time of a put and its flush");
  command.add_flag_callback(
      "--signal", [options] { options->put_latency = PutLatency::kSignal; },
      "put_lat: half of a round trip, each side waiting for the put's signal");
  command
      .add_option_function<std::string>(
          "-A,--atomic_type",
          [options](const std::string& text) { options->compare_swap = text == "CMP_AND_SWAP"; },
          "FETCH_AND_ADD (default) or CMP_AND_SWAP")
      ->check(CLI::IsMember({"FETCH_AND_ADD", "CMP_AND_SWAP"}));
  command.add_flag(
      "--passive-target", options->passive_target,
      "the target sleeps outside of the library; default: it calls Progress, as a rank "
      "does that waits for something");
}

void AddMeeting(CLI::App& command, PairOptions* options) {
  command.add_option("host", options->host,
                     "where the other side waits; without it this side does");
  command.add_flag("--local", options->local, "start both sides on this machine");
  command
      .add_option("--cpus", options->cpus, "pin the initiator and the target to these CPUs (0,1)")
      ->delimiter(',')
      ->expected(2)
      ->check(CLI::Range(0, 4095));
  command.add_option("-p,--port", options->port, "TCP port to meet at; default 18515")
      ->check(CLI::Range(1, 65535));
  command.add_option(
      "--listen", options->listen,
      "address to wait at; default 127.0.0.1, only for this machine; 0.0.0.0 for all");
  command
      .add_option_function<double>(
          "--wait", [options](double s) { options->wait = absl::Seconds(s); },
          "seconds to wait for the other side; default 600")
      ->check(CLI::PositiveNumber);
  command
      .add_option_function<double>(
          "--timeout", [options](double s) { options->timeout = absl::Seconds(s); },
          "seconds until an operation fails; default 30")
      ->check(CLI::PositiveNumber);
}

void Refuse(bool wrong, const std::string& why) {
  if (wrong) throw CLI::ValidationError(why);
}

}  // namespace

const char* PairOptions::test() const {
  for (const Test& each : kTests) {
    if (each.operation == operation && each.measure == measure) return each.name;
  }
  return "";
}

std::vector<uint64_t> PairOptions::sizes() const {
  if (operation == PairOperation::kAtomic) return {8};
  if (!all_sizes) return {size != 0 ? size : (latency() ? 2 : uint64_t{64} << 10)};
  std::vector<uint64_t> all;
  for (int shift = kSmallestShift; shift <= kLargestShift; ++shift)
    all.push_back(uint64_t{1} << shift);
  return all;
}

uint64_t PairOptions::IterationsOf(uint64_t bytes) const {
  if (iterations != 0) return iterations;
  const uint64_t usual = latency() ? kLatencyIterations : kBandwidthIterations;
  return std::max(std::min(usual, kBytesARow / bytes), kIterationsMin);
}

std::string PairOptions::Agreement() const {
  return absl::StrCat(test(), " size ", size, all_sizes ? " (all)" : "", " put_latency ",
                      static_cast<int>(put_latency), " qp ", queue_pairs, " bidirectional ",
                      bidirectional, " passive-target ", passive_target, " warmup ", warmup,
                      " compare-swap ", compare_swap);
}

void AddPairOptions(CLI::App& command, PairOptions* options) {
  command
      .add_option("test",
                  "put_lat, put_bw, get_lat, get_bw, send_lat, send_bw, atomic_lat, atomic_bw")
      ->required()
      ->check([options](const std::string& text) { return TakeTest(text, options); });
  AddMeasuring(command, options);
  AddMeeting(command, options);
  command.add_flag("--report_gbits", options->gigabits, "Gb/s (10^9 bits) instead of MiB/s");
  command.add_flag("--json,--out_json", options->json, "print JSON instead of the table");
  command.add_option("-J,--output_file,--out_json_file", options->json_file,
                     "also write the results to this file, as JSON");
  AddPathFlags(command, &options->path_variables, PathFlagNames::kWithPerftest);
  command
      .add_flag_callback(
          "-R,--rdma_cm",
          [options] { options->path_variables.emplace_back("SUMAC_CONNECT=rdma_cm"); },
          "the same as --connect rdma_cm")
      ->group("Device and path");
  AddRefusedOptions(command);
}

void CheckPairOptions(const PairOptions& options) {
  const bool put_lat = options.operation == PairOperation::kPut && options.latency();
  const bool send = options.operation == PairOperation::kSend;
  const bool atomic = options.operation == PairOperation::kAtomic;
  Refuse(options.put_latency != PutLatency::kCompletion && !put_lat,
         "--ping-pong and --signal are for put_lat; send_lat always is a ping-pong");
  Refuse(atomic && (options.all_sizes || (options.size != 0 && options.size != 8)),
         "--size: atomics are 8 bytes");
  Refuse(options.compare_swap && !atomic, "--atomic_type is for atomic_lat and atomic_bw");
  Refuse(options.latency() && (options.queue_pairs != 1 || options.bidirectional),
         "--qp and --bidirectional are for bandwidth");
  Refuse(send && options.bidirectional,
         "--bidirectional: large messages wait until the other side takes them; use put_bw -b");
  Refuse(options.passive_target && (options.ping_pong() || send || options.bidirectional),
         "--passive-target: in this test both sides have work to do");
  Refuse(options.all_sizes && options.size != 0, "--all and --size exclude each other");
  Refuse(options.local && !options.host.empty(), "--local needs no host");
}

}  // namespace sumac::cli
