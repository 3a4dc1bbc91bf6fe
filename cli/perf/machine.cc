#include "cli/perf/machine.h"

#include <pthread.h>
#include <sched.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"

namespace sumac::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kRounds = 9;
constexpr int kRoundTrips = 2000;
// A partner that got no CPU for this long ends the measurement.
constexpr std::chrono::seconds kPatience(5);

std::string CpuModel() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(':');
    const bool names = line.rfind("model name", 0) == 0 || line.rfind("Processor", 0) == 0;
    if (names && colon != std::string::npos) {
      return std::string(absl::StripAsciiWhitespace(line.substr(colon + 1)));
    }
  }
  return "unknown CPU";
}

bool Pin(int cpu) {
  if (cpu < 0 || cpu >= CPU_SETSIZE) return false;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  return pthread_setaffinity_np(pthread_self(), sizeof(set), &set) == 0;
}

// One cache line that two threads pass to and fro; negative: one of them goes away.
struct alignas(128) Line {
  std::atomic<int> turn{0};
};

// Waits until the line says `turn`. False: the other has gone, or does not come.
bool Await(const Line& line, int turn) {
  Clock::time_point started{};
  for (uint32_t spins = 1;; ++spins) {
    const int now = line.turn.load(std::memory_order_acquire);
    if (now == turn) return true;
    if (now < 0) return false;
    if (spins % 65536 != 0) continue;
    if (started == Clock::time_point{}) started = Clock::now();
    if (Clock::now() - started > kPatience) return false;
  }
}

void Answer(Line& line, int cpu, std::atomic<bool>& pinned) {
  pinned.store(Pin(cpu));
  line.turn.store(pinned.load() ? 0 : -1, std::memory_order_release);
  for (int i = 1; pinned.load() && Await(line, i); i += 2) {
    line.turn.store(i + 1, std::memory_order_release);
  }
}

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<long>(values.size() / 2),
                   values.end());
  return values[values.size() / 2];
}

double ClockReadNs() {
  constexpr int kReads = 2000;
  const Clock::time_point start = Clock::now();
  Clock::time_point last = start;
  for (int i = 0; i < kReads; ++i) last = Clock::now();
  return std::chrono::duration<double, std::nano>(last - start).count() / kReads;
}

}  // namespace

std::string Machine::ToText() const {
  std::string text = absl::StrCat(cpu_model, ", ", cpus, cpus == 1 ? " CPU, " : " CPUs, ", kernel);
  if (core_one_way_ns > 0) {
    absl::StrAppendFormat(&text, "; CPUs %d and %d: %.0f ns core to core one way", cpu_a, cpu_b,
                          core_one_way_ns);
  } else {
    absl::StrAppend(&text, "; core to core: not measured");
  }
  return absl::StrCat(text, absl::StrFormat("; clock read %.0f ns", clock_read_ns));
}

nlohmann::ordered_json Machine::ToJson() const {
  nlohmann::ordered_json json = {{"cpu_model", cpu_model}, {"cpus", cpus}, {"kernel", kernel}};
  json["cpu_pair"] = {cpu_a, cpu_b};
  json["core_one_way_ns"] =
      core_one_way_ns > 0 ? nlohmann::ordered_json(core_one_way_ns) : nlohmann::ordered_json();
  json["clock_read_ns"] = clock_read_ns;
  return json;
}

Machine ReadMachine() {
  Machine machine;
  machine.cpu_model = CpuModel();
  machine.cpus = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  utsname names{};
  if (uname(&names) == 0) machine.kernel = absl::StrCat(names.sysname, " ", names.release);
  machine.clock_read_ns = ClockReadNs();
  return machine;
}

absl::StatusOr<double> CoreOneWayNs(int cpu_a, int cpu_b) {
  if (cpu_a == cpu_b) {
    return absl::FailedPreconditionError(absl::StrCat("CPU ", cpu_a, " twice"));
  }
  Line line;
  line.turn.store(1 << 30);  // until both are where they belong
  std::atomic<bool> b_pinned{false};
  bool a_pinned = false;
  bool together = true;
  std::vector<double> rounds;
  std::thread b(Answer, std::ref(line), cpu_b, std::ref(b_pinned));
  std::thread a([&] {
    a_pinned = Pin(cpu_a);
    together = a_pinned && Await(line, 0);
    int turn = 0;
    for (int round = 0; together && round < kRounds; ++round) {
      const Clock::time_point start = Clock::now();
      for (int i = 0; together && i < kRoundTrips; ++i, turn += 2) {
        line.turn.store(turn + 1, std::memory_order_release);
        together = Await(line, turn + 2);
      }
      const std::chrono::duration<double, std::nano> spent = Clock::now() - start;
      rounds.push_back(spent.count() / kRoundTrips / 2);
    }
    line.turn.store(-1, std::memory_order_release);
  });
  a.join();
  // Once more: the answer may have overwritten the word that ends it.
  line.turn.store(-1, std::memory_order_release);
  b.join();
  if (!a_pinned || !b_pinned.load()) {
    return absl::FailedPreconditionError(
        absl::StrCat("this process may not run on CPU ", a_pinned ? cpu_b : cpu_a));
  }
  if (!together) return absl::UnavailableError("the two CPUs were not both free for five seconds");
  return Median(rounds);
}

void MeasureDistance(Machine& machine, int cpu_a, int cpu_b) {
  machine.cpu_a = cpu_a;
  machine.cpu_b = cpu_b;
  machine.core_one_way_ns = cpu_a >= 0 && cpu_b >= 0 ? CoreOneWayNs(cpu_a, cpu_b).value_or(0) : 0;
}

CpuPair AllowedCpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return {sched_getcpu(), -1};
  CpuPair pair;
  for (int cpu = 0; cpu < CPU_SETSIZE && pair.second < 0; ++cpu) {
    if (!CPU_ISSET(cpu, &set)) continue;
    (pair.first < 0 ? pair.first : pair.second) = cpu;
  }
  return pair;
}

}  // namespace sumac::cli
