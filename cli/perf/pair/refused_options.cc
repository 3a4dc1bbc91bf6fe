#include "cli/perf/pair/refused_options.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace sumac::cli {
namespace {

struct Refused {
  const char* names;
  bool takes_value;
  const char* why;
};

constexpr Refused kRefused[] = {
    {"-i,--ib-port", true, "use --device NAME:PORT"},
    {"-c,--connection", true, "connections are always RC"},
    {"-I,--inline_size", true, "the transport chooses what goes inline"},
    {"-r,--rx-depth", true, "messages go under credits; there is no receive queue to size"},
    {"-e,--events", false,
     "waiting polls, then sleeps; for a target that sleeps: --passive-target"},
    {"-l,--post_list", true, "a put is one work request; for more at once: --tx-depth"},
    {"-Q,--cq-mod", true, "every operation is signalled"},
    {"-N,--noPeak", false, "the peak costs nothing here"},
    {"-o,--outs", true, "for operations in flight: --tx-depth"},
    {"-g,--mcg", false, "there is no multicast"},
    {"-T,--tos", true, "use --tclass"},
    {"-C,--report-cycles", false, "times are microseconds"},
    {"-H,--report-histogram", false, "use --json: it has the percentiles"},
    {"-U,--report-unsorted", false, "use --json: it has the percentiles"},
    {"-f,--margin", true, "use --warmup"},
    {"-W,--report-counters", true, "use sumac devices --counters"},
    {"-z,--com_rdma_cm", false, "the two sides meet by the bootstrap; for queue pairs: -R"},
    {"-L,--hop_limit", true, "it is always 64"},
    {"--output", true, "use --json"},
    {"--run_infinitely", false, "use -D SECONDS"},
    {"--cpu_util", false, "it is not measured"},
    {"--odp", false, "memory is always registered"},
    {"--use_hugepages", false, "memory is the domain's own"},
    {"--mmap", true, "memory is the domain's own"},
    {"--use_cuda", true, "host memory only"},
};

}  // namespace

void AddRefusedOptions(CLI::App& command) {
  for (const Refused& each : kRefused) {
    // CLI11 does not name what it does not show.
    const std::string why = absl::StrCat(each.names, " is perftest's, but not here: ", each.why);
    CLI::Option* option = nullptr;
    if (each.takes_value) {
      option = command.add_option(each.names)->expected(1);
      option->check([why](const std::string&) { return why; });
    } else {
      option = command.add_flag_callback(each.names, [why] { throw CLI::ValidationError(why); });
    }
    option->group("");  // not shown
  }
  // Scripts always pass it.
  command.add_flag_callback(
      "-F,--CPU-freq", [] {}, "accepted: nothing here looks at the CPU's frequency");
}

}  // namespace sumac::cli
