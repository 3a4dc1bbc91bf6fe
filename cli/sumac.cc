// The `sumac` command: run, devices, soft, perf.

#include <cstring>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "cli/counters.h"
#include "cli/devices.h"
#include "cli/path_flags.h"
#include "cli/perf/pair/perf.h"
#include "cli/run/launcher.h"
#include "cli/run/rank_process.h"
#include "cli/soft.h"

namespace {

constexpr const char* kRunFooter = R"(
Examples:
  sumac run -n 4 -- ./build/bin/all_reduce_perf -b 8 -e 64M -f 2
  sumac run -n 2 --env SUMAC_LOG=info -- ./build/bin/put_get
  sumac run -n 4 --device mlx5_0,mlx5_1 --traffic-class 106 -- ./build/bin/all_reduce_perf

Ranks get SUMAC_RANK, SUMAC_SIZE, SUMAC_LOCAL_RANK, SUMAC_LOCAL_SIZE, SUMAC_BOOTSTRAP and SUMAC_JOB.
Their standard input is empty. The exit code is the worst rank's (128 + n when signal n killed it),
124 after --timeout, 130 after Ctrl-C.)";

constexpr const char* kSoftFooter = R"(
Examples:
  sumac soft -- ibv_devinfo
  sumac soft -- ib_write_bw -d soft0 -x 0 -F & sumac soft -- ib_write_bw -d soft0 -x 0 -F 127.0.0.1
  sumac soft --interface eth0 -- ibv_rc_pingpong -g 0

The program sees the soft NIC (soft0) beside this machine's RDMA devices. It need not be built for it:
it loads this libibverbs.so.1 in place of the system's, whose devices keep working. Not for programs
that are linked statically or set-uid.)";

constexpr const char* kPerfFooter = R"(
Examples:
  sumac perf put_lat --local                                both sides on this machine
  sumac run -n 2 -- sumac perf put_bw -a                    the two ranks of a job
  sumac perf put_bw & sumac perf put_bw 127.0.0.1           as perftest: wait, and connect

The initiator is rank 0 (the side that names a HOST); it prints. Data are verified after every row,
and no figure is shown for wrong data.)";

int Main(int argc, char** argv) {
  CLI::App app("Sumac: RDMA / RoCE v2 messaging, on any machine", "sumac");
  app.set_version_flag("--version", "sumac " SUMAC_VERSION);
  app.require_subcommand(1);

  CLI::App* run = app.add_subcommand("run", "start N ranks of a program on this machine");
  sumac::cli::LaunchOptions launch;
  double timeout_s = 0;
  run->add_option("-n,--ranks", launch.ranks, "how many ranks")
      ->required()
      ->check(CLI::Range(1, sumac::cli::LaunchOptions::kRanksMax));
  run->add_option("--timeout", timeout_s, "end the job after this many seconds")
      ->check(CLI::PositiveNumber);
  run->add_option("--env", launch.environment, "NAME=value for every rank; may be repeated")
      ->allow_extra_args(false)
      ->check([](const std::string& text) {
        return text.find('=') == 0 || text.find('=') == std::string::npos
                   ? "'" + text + "' is not NAME=value"
                   : std::string();
      });
  std::vector<std::string> path_variables;
  sumac::cli::AddPathFlags(*run, &path_variables);
  run->add_flag("--tag-output,!--no-tag-output", launch.tag_output,
                "put [rank] before each line of output (default: yes, with more than one rank)");
  run->add_option("command", launch.command, "the program and its arguments, after --")->required();
  run->positionals_at_end();
  run->footer(kRunFooter);

  CLI::App* devices = app.add_subcommand("devices", "list RDMA devices: hardware, rxe, soft NIC");
  sumac::cli::DevicesOptions device_options;
  devices->add_flag("--json", device_options.json, "as JSON");
  devices->add_flag("-v,--verbose", device_options.verbose,
                    "with the devices' limits; with --counters: also counters that are zero");
  bool counters = false;
  devices->add_flag("--counters", counters,
                    "what their ports have counted instead (the soft NIC: in running programs)");

  CLI::App* soft = app.add_subcommand("soft", "run any verbs program with the soft NIC");
  sumac::cli::SoftOptions soft_options;
  soft->add_option("-i,--interface", soft_options.interface,
                   "network interface at whose address the soft NIC listens (default: loopback)");
  soft->add_flag("--print-preload", soft_options.print_preload,
                 "print what it puts into LD_PRELOAD, to do so by hand");
  soft->add_option("command", soft_options.command, "the program and its arguments, after --");
  soft->positionals_at_end();
  soft->footer(kSoftFooter);

  CLI::App* perf =
      app.add_subcommand("perf", "measure put, get, send and atomics between two ranks");
  sumac::cli::PairOptions perf_options;
  sumac::cli::AddPairOptions(*perf, &perf_options);
  perf->footer(kPerfFooter);

  try {
    app.parse(argc, argv);
    if (*perf) sumac::cli::CheckPairOptions(perf_options);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (*devices && counters) {
    return sumac::cli::PrintCounters(device_options.json, device_options.verbose);
  }
  if (*devices) return sumac::cli::PrintDevices(device_options);
  if (*perf) {
    return sumac::cli::RunPairPerf(perf_options, std::vector<std::string>(argv + 2, argv + argc));
  }
  if (*soft) return sumac::cli::RunOnSoftNic(soft_options);
  // The first of two equal names is the one that a program sees.
  launch.environment.insert(launch.environment.begin(), path_variables.begin(),
                            path_variables.end());
  if (timeout_s > 0) launch.timeout = absl::Seconds(timeout_s);
  return sumac::cli::Launch(launch);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 2 && std::strcmp(argv[1], sumac::cli::kBecomeRank) == 0) {
    return sumac::cli::BecomeRank(argv + 2);
  }
  return Main(argc, argv);
}
