// rc_peer: two processes, each with a device of its own, check each other's reliable connections
// byte by byte. See README.md beside it.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <random>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"

#include "tests/interop/rc_peer/cases.h"
#include "tests/interop/rc_peer/counters.h"

namespace sumac::interop {
namespace {

struct Case {
  const char* name;
  uint64_t (*run)(Context&);
  bool clean;  // nothing is lost or refused, so nothing may be sent again
};
constexpr Case kCases[] = {
    {"sizes", Sizes, true},
    {"pieces", Pieces, true},
    {"atomics", Atomics, true},
    {"receiver not ready", ReceiverNotReady, false},
    {"invalidate", Invalidate, false},
    {"refusals", Refusals, false},
    {"wrong ICRC", WrongIcrc, false},
    {"ACK timer", AckTimer, false},
    {"random", RandomOperations, true},
};

constexpr uint8_t kLossyTimeout =
    16;  // 268 ms: longer than an emulated host takes for the READs in flight

struct Options {
  std::string listen, connect, device = "soft0";
  uint64_t operations = 100'000;
  uint64_t seed = 0;
  bool lossy = false;
  std::vector<std::string> cases;  // empty: all
};

int Run(const Options& options) {
  const bool first = !options.listen.empty();
  Channel channel = first ? Channel::Listen(options.listen) : Channel::Connect(options.connect);
  End end(options.device, channel);
  // One seed and one count for both: the listener's.
  struct Common {
    uint64_t seed, operations;
  };
  Common common{options.seed != 0 ? options.seed : std::random_device()(), options.operations};
  const Common theirs = channel.Swap(common);
  if (!first) common = theirs;
  std::printf("%s: seed %llu\n", options.device.c_str(),
              static_cast<unsigned long long>(common.seed));
  if (options.lossy) end.set_timeout(kLossyTimeout);
  bool probed = false;  // by the end of the case before: the answer may come during this one
  for (const Case& each : kCases) {
    const auto& wanted = options.cases;
    if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), each.name) == wanted.end()) {
      continue;
    }
    for (const bool listener_requests : {true, false}) {
      Context c{channel, end, listener_requests == first, common.seed, common.operations / 2};
      const char* role = c.requester ? "requester" : "responder";
      std::string failure;
      uint64_t count = 0;
      const auto before = UnwelcomeEvents(end.device());
      const uint64_t probes_before = TailProbes(end.device());
      try {
        count = each.run(c);
        channel.Sync();
        const uint64_t probes = TailProbes(end.device()) - probes_before;
        const bool probed_now = probes + channel.Swap(probes) != 0;
        const std::string grown =
            Growth(before, UnwelcomeEvents(end.device()), probed || probed_now);
        probed = probed_now;
        if (each.clean && !options.lossy && !grown.empty()) failure = "not clean:" + grown;
      } catch (const std::exception& error) {
        failure = error.what() + Growth(before, UnwelcomeEvents(end.device()), false);
      }
      std::printf("%s as %s: %s: %llu operations%s%s\n", options.device.c_str(), role, each.name,
                  static_cast<unsigned long long>(count),
                  failure.empty() ? "" : ": FAILED: ", failure.c_str());
      std::fflush(stdout);
      if (!failure.empty()) return 1;
    }
  }
  return 0;
}

}  // namespace
}  // namespace sumac::interop

int main(int argc, char** argv) {
  sumac::interop::Options options;
  CLI::App app(
      "checks reliable connections between two devices; one process listens, one connects");
  auto* where = app.add_option_group("where");
  where->add_option("--listen", options.listen, "ADDRESS:PORT at which the other process connects");
  where->add_option("--connect", options.connect, "ADDRESS:PORT of the process that listens");
  where->require_option(1);
  app.add_option("--device", options.device, "the device of this end")->capture_default_str();
  app.add_option("--operations", options.operations, "of the random case, both roles together")
      ->check(CLI::Range(2, 1'000'000'000))
      ->capture_default_str();
  app.add_option("--seed", options.seed, "of the random case and all data; 0: one that is printed");
  app.add_option("--cases", options.cases, "only these; the same on both ends")->delimiter(',');
  app.add_flag("--lossy", options.lossy,
               "the link loses packets: there is an ACK timeout, and retries are no failure");
  CLI11_PARSE(app, argc, argv);
  try {
    return sumac::interop::Run(options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", options.device.c_str(), error.what());
    return 1;
  }
}
