// Plays scripts of packets against the engine in virtual time, or against a device behind verbs.
//
//   conformance_player [--verbose] FILE.rdma...                    the engine
//   conformance_player --device soft0 FILE.rdma...                 the soft NIC over its UDP link
//   conformance_player --device rxe0 --peer 10.77.0.101 --peer-netns soft0 --differences FILE …
//
// Exit status 1: a case failed, or one that a list of known differences has did not; 2: no such
// script or device.
#include <cstdio>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"

#include "tests/conformance/differences.h"
#include "tests/conformance/engine_device.h"
#include "tests/conformance/player.h"
#include "tests/conformance/script.h"
#include "tests/conformance/verbs_device.h"

namespace sumac::conformance {
namespace {

struct Options {
  VerbsHost::Options host;
  std::string differences;
  std::vector<std::string> scripts;
  bool verbose = false;
  int tries = 3;  // in real time a machine that is busy elsewhere can make a case fail
};

Outcome PlayPatiently(const Case& script, const MakeDevice& make, Differences::Kind known,
                      int tries) {
  if (known == Differences::Kind::kCrashes) return {Outcome::kFailed, "not played"};
  if (known != Differences::Kind::kNone) tries = 1;
  Outcome outcome;
  for (int i = 0; i < tries; ++i) {
    outcome = Play(script, make);
    if (outcome.kind != Outcome::kFailed) break;
  }
  return outcome;
}

const char* NameOf(Outcome::Kind kind) {
  return kind == Outcome::kPassed ? "ok" : kind == Outcome::kFailed ? "differs" : "not applicable";
}

int Run(const Options& options) {
  std::unique_ptr<VerbsHost> host;
  MakeDevice make = [](const Setup& setup) { return std::make_unique<EngineDevice>(setup); };
  if (!options.host.device.empty()) {
    host = std::make_unique<VerbsHost>(options.host);
    make = [&host](const Setup& setup) { return std::make_unique<VerbsDevice>(*host, setup); };
  }
  Differences differences;
  if (!options.differences.empty()) differences = Differences(options.differences);
  size_t played = 0;
  size_t failed = 0;
  size_t not_applicable = 0;
  for (const std::string& file : options.scripts) {
    for (const Case& script : ReadScript(file)) {
      const Outcome outcome =
          PlayPatiently(script, make, differences.KindOf(script), host ? options.tries : 1);
      const std::string wrong = differences.Judge(script, outcome);
      ++played;
      if (outcome.kind == Outcome::kNotApplicable) ++not_applicable;
      if (!wrong.empty()) {
        ++failed;
        std::printf("%s\n", wrong.c_str());
      } else if (options.verbose) {
        std::printf("%s:%d: %s: %s\n", script.file.c_str(), script.line, script.name.c_str(),
                    NameOf(outcome.kind));
      }
      std::fflush(stdout);
    }
  }
  const std::string unused = differences.Unused();
  std::printf("%s%zu cases, %zu failed", unused.c_str(), played, failed);
  if (host) {
    std::printf(", %zu known to differ, %zu not applicable", differences.known(), not_applicable);
  }
  std::printf("\n");
  return failed == 0 && unused.empty() && played != 0 ? 0 : 1;
}

}  // namespace
}  // namespace sumac::conformance

int main(int argc, char** argv) try {
  sumac::conformance::Options options;
  CLI::App app("Plays scripts of packets against the engine, or against a device behind verbs.");
  app.add_option("scripts", options.scripts, "the scripts")->required();
  app.add_flag("--verbose", options.verbose, "name also the cases that pass");
  app.add_option("--device", options.host.device, "soft0, rxe0, …; without it: the engine");
  app.add_option("--peer", options.host.peer, "the peer's address; on loopback any free one");
  app.add_option("--peer-netns", options.host.peer_netns, "network namespace of that address");
  app.add_option("--differences", options.differences, "cases that the device is known to fail");
  app.add_option("--tries", options.tries, "of a case that fails on a device in real time");
  CLI11_PARSE(app, argc, argv);
  return sumac::conformance::Run(options);
} catch (const std::exception& error) {
  std::fprintf(stderr, "conformance_player: %s\n", error.what());
  return 2;
}
