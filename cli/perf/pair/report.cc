#include "cli/perf/pair/report.h"

#include <cstdio>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace sumac::cli {
namespace {

constexpr double kMebi = 1 << 20;
const std::string kRule(108, '-');

const char* TitleOf(const PairOptions& options) {
  if (!options.latency()) return "";
  switch (options.operation) {
    case PairOperation::kPut:
      if (options.put_latency == PutLatency::kPingPong)
        return "half of a round trip, polling memory";
      if (options.put_latency == PutLatency::kSignal)
        return "half of a round trip, put with signal";
      return "a put and its flush";
    case PairOperation::kGet:
      return "a get and its flush";
    case PairOperation::kSend:
      return "half of a round trip";
    case PairOperation::kAtomic:
      return options.compare_swap ? "a compare-and-swap" : "a fetch-and-add";
  }
  return "";
}

std::string Column(const std::optional<double>& value) {
  return value.has_value() ? absl::StrFormat("%.2f", *value) : "-";
}

nlohmann::ordered_json OrNull(const std::optional<double>& value) {
  return value.has_value() ? nlohmann::ordered_json(*value) : nlohmann::ordered_json();
}

void Print(const std::string& text) {
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
}

}  // namespace

void PairReport::Begin(const Session& session) {
  json_["test"] = options_.test();
  json_["measures"] = TitleOf(options_);
  json_["machine"] = session.machine().ToJson();
  json_["ranks"] = nlohmann::ordered_json::array();
  for (size_t rank = 0; rank < 2; ++rank) {
    json_["ranks"].push_back({{"rank", rank},
                              {"host", session.hosts()[rank]},
                              {"pid", session.pids()[rank]},
                              {"device", session.devices()[rank]}});
  }
  json_["queue_pairs"] = options_.queue_pairs;
  json_["bidirectional"] = options_.bidirectional;
  json_["tx_depth"] = options_.latency() ? 1 : options_.tx_depth;
  json_["target"] = options_.passive_target ? "sleeps" : "polls";
  json_["results"] = nlohmann::ordered_json::array();
  if (options_.json) return;
  const std::string what =
      *TitleOf(options_) != '\0' ? absl::StrCat(" (", TitleOf(options_), ")") : "";
  std::string text = absl::StrCat(kRule, "\n", std::string(20, ' '), options_.test(), what, "\n");
  absl::StrAppendFormat(&text, " Devices         : %-16s Initiator      : rank 0, pid %d on %s\n",
                        absl::StrCat(session.devices()[0], ", ", session.devices()[1]),
                        session.pids()[0], session.hosts()[0]);
  absl::StrAppendFormat(&text,
                        " Number of qps   : %-16d Target         : rank 1, pid %d on %s, %s\n",
                        options_.queue_pairs, session.pids()[1], session.hosts()[1],
                        options_.passive_target ? "sleeps" : "polls");
  absl::StrAppendFormat(&text, " Connection type : %-16s TX depth       : %d\n", "RC",
                        options_.latency() ? 1 : options_.tx_depth);
  absl::StrAppendFormat(&text,
                        " Directions      : %-16d Data           : verified after every row\n",
                        options_.bidirectional ? 2 : 1);
  absl::StrAppend(&text, " Machine         : ", session.machine().ToText(), "\n", kRule, "\n");
  if (options_.latency()) {
    absl::StrAppend(
        &text,
        " #bytes   #iterations   t_min[usec]   t_max[usec]  t_typical[usec]  t_avg[usec]  "
        "t_stdev[usec]  99%[usec]  99.9%[usec]\n");
  } else {
    const char* unit = options_.gigabits ? "Gb/sec" : "MiB/sec";
    absl::StrAppendFormat(&text,
                          " #bytes   #iterations   BW peak[%s]   BW average[%s]   MsgRate[Mpps]\n",
                          unit, unit);
  }
  Print(text);
}

bool PairReport::Wrong(uint64_t bytes, uint64_t iterations, uint64_t wrong) {
  wrong_ += wrong;
  if (wrong == 0) return false;
  json_["results"].push_back({{"bytes", bytes}, {"iterations", iterations}, {"wrong", wrong}});
  if (!options_.json) {
    Print(absl::StrFormat(" %-8d %-13d WRONG DATA: %d bytes or counters are not what was sent\n",
                          bytes, iterations, wrong));
  }
  return true;
}

void PairReport::Row(uint64_t bytes, const LatencySummary& summary, uint64_t wrong) {
  if (Wrong(bytes, summary.count, wrong)) return;
  json_["results"].push_back({{"bytes", bytes},
                              {"iterations", summary.count},
                              {"t_min_us", summary.min_us},
                              {"t_max_us", summary.max_us},
                              {"t_typical_us", summary.typical_us},
                              {"t_avg_us", summary.average_us},
                              {"t_stdev_us", summary.deviation_us},
                              {"p99_us", OrNull(summary.p99_us)},
                              {"p99_9_us", OrNull(summary.p99_9_us)},
                              {"wrong", 0}});
  if (options_.json) return;
  Print(absl::StrFormat(" %-8d %-13d %-13.2f %-12.2f %-16.2f %-12.2f %-14.2f %-10s %s\n", bytes,
                        summary.count, summary.min_us, summary.max_us, summary.typical_us,
                        summary.average_us, summary.deviation_us, Column(summary.p99_us),
                        Column(summary.p99_9_us)));
}

void PairReport::Row(uint64_t bytes, const RateSummary& summary, uint64_t wrong) {
  if (Wrong(bytes, summary.operations, wrong)) return;
  const auto size = static_cast<double>(bytes);
  const double unit = options_.gigabits ? 8 * size / 1e9 : size / kMebi;
  const char* suffix = options_.gigabits ? "gb_per_s" : "mib_per_s";
  json_["results"].push_back({{"bytes", bytes},
                              {"iterations", summary.operations},
                              {absl::StrCat("bw_peak_", suffix), summary.peak * unit},
                              {absl::StrCat("bw_average_", suffix), summary.average * unit},
                              {absl::StrCat("bw_median_", suffix), summary.median * unit},
                              {"msg_rate_mpps", summary.average / 1e6},
                              {"seconds", summary.seconds},
                              {"wrong", 0}});
  if (options_.json) return;
  Print(absl::StrFormat(" %-8d %-13d %-18.2f %-21.2f %.6f\n", bytes, summary.operations,
                        summary.peak * unit, summary.average * unit, summary.average / 1e6));
}

absl::Status PairReport::End() {
  json_["wrong"] = wrong_;
  Print(options_.json ? json_.dump(2) + "\n" : kRule + "\n");
  if (options_.json_file.empty()) return absl::OkStatus();
  std::ofstream file(options_.json_file);
  file << json_.dump(2) << "\n";
  file.close();
  if (!file) return absl::UnavailableError(absl::StrCat("can't write ", options_.json_file));
  return absl::OkStatus();
}

}  // namespace sumac::cli
