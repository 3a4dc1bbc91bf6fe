// The options of `sumac perf`: perftest's letters and long names where they mean something here;
// those that do not are refused with the reason.
//
// Pure: parsing reads no environment and prints nothing but what CLI11 prints.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/time/time.h"

namespace sumac::cli {

enum class PairOperation : uint8_t { kPut, kGet, kSend, kAtomic };
enum class PairMeasure : uint8_t { kLatency, kBandwidth };

// What a put's latency is the time of.
enum class PutLatency : uint8_t {
  kCompletion,  // put and flush: until the initiator knows that the bytes are in place
  kPingPong,    // half of a round trip, each side polling its memory, as ib_write_lat
  kSignal       // the same with a signal raised by the put, for which the other side waits
};

struct PairOptions {
  PairOperation operation = PairOperation::kPut;
  PairMeasure measure = PairMeasure::kLatency;
  PutLatency put_latency = PutLatency::kCompletion;
  bool compare_swap = false;  // atomics: else fetch-and-add

  uint64_t size = 0;        // bytes; 0: the test's default
  bool all_sizes = false;   // 2 B to 8 MiB
  uint64_t iterations = 0;  // 0: the default for test and size
  double duration_s = 0;    // more than 0: for so long instead
  uint64_t warmup = 100;
  int queue_pairs = 1;
  bool bidirectional = false;
  uint32_t tx_depth = 128;
  bool passive_target = false;  // the target sleeps outside of the library meanwhile
  absl::Duration timeout = absl::Seconds(30);

  bool gigabits = false;
  bool json = false;
  std::string json_file;
  std::vector<std::string> path_variables;

  bool local = false;     // start both ranks here
  std::vector<int> cpus;  // two: pins rank 0 and rank 1
  std::string host;       // of the side that waits; empty: wait, or a launcher says
  std::string listen = "127.0.0.1";
  uint16_t port = 18515;
  absl::Duration wait = absl::Minutes(10);  // for the client

  bool latency() const { return measure == PairMeasure::kLatency; }
  // Both ranks send all the time.
  bool ping_pong() const {
    return latency() &&
           (operation == PairOperation::kSend ||
            (operation == PairOperation::kPut && put_latency != PutLatency::kCompletion));
  }
  const char* test() const;  // "put_lat"
  std::vector<uint64_t> sizes() const;
  // How many operations a queue pair are timed when no duration is given.
  uint64_t IterationsOf(uint64_t bytes) const;
  // What both sides must agree in, as text.
  std::string Agreement() const;
};

// Adds everything to `command`; `options` must outlive its parsing. Afterwards CheckPairOptions.
void AddPairOptions(CLI::App& command, PairOptions* options);
// Throws CLI::ValidationError for what does not go together.
void CheckPairOptions(const PairOptions& options);

}  // namespace sumac::cli
