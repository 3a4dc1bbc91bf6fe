// Plays scripts of packets against the engine in virtual time.
//
//   conformance_player [--verbose] FILE.rdma...     exit status 1: a case failed; 2: no such script
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <vector>

#include "tests/conformance/engine_device.h"
#include "tests/conformance/player.h"
#include "tests/conformance/script.h"

namespace sumac::conformance {
namespace {

int Run(int argc, char** argv) {
  const MakeDevice make = [](const Setup& setup) { return std::make_unique<EngineDevice>(setup); };
  bool verbose = false;
  size_t played = 0;
  size_t failed = 0;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--verbose") == 0) {
      verbose = true;
      continue;
    }
    for (const Case& script : ReadScript(argv[i])) {
      ++played;
      const Outcome outcome = Play(script, make);
      if (outcome.kind != Outcome::kPassed) {
        ++failed;
        std::printf("%s\n", outcome.why.c_str());
      } else if (verbose) {
        std::printf("%s:%d: %s: ok\n", script.file.c_str(), script.line, script.name.c_str());
      }
    }
  }
  std::printf("%zu cases, %zu failed\n", played, failed);
  return failed == 0 && played != 0 ? 0 : 1;
}

}  // namespace
}  // namespace sumac::conformance

int main(int argc, char** argv) try {
  return sumac::conformance::Run(argc, argv);
} catch (const std::exception& error) {
  std::fprintf(stderr, "conformance_player: %s\n", error.what());
  return 2;
}
