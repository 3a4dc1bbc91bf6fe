#include "cli/perf/pair/perf.h"

#include <cstdio>
#include <new>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "cli/path_flags.h"
#include "cli/perf/pair/bandwidth.h"
#include "cli/perf/pair/latency.h"
#include "cli/perf/pair/report.h"
#include "cli/perf/pair/session.h"
#include "cli/run/launcher.h"

#include "transport/bootstrap/launch_environment.h"

namespace sumac::cli {
namespace {

constexpr int kInitiator = 0, kTarget = 1;

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "sumac perf: %s\n", status.ToString().c_str());
  return 1;
}

class Rows {
 public:
  Rows(Session& session, const PairOptions& options)
      : session_(session), options_(options), report_(options) {}

  absl::Status Run() {
    if (session_.initiator()) report_.Begin(session_);
    uint64_t row = 0;
    for (const uint64_t bytes : options_.sizes()) {
      Work work(session_, options_, bytes);
      Phase warmup{.row = row, .timed = false, .iterations = options_.warmup, .duration_s = 0};
      Phase timed{.row = row,
                  .timed = true,
                  .iterations = options_.IterationsOf(bytes),
                  .duration_s = options_.duration_s};
      warmup.iterations = std::min(warmup.iterations, timed.iterations);
      auto ran =
          options_.latency() ? LatencyRow(work, warmup, timed) : BandwidthRow(work, warmup, timed);
      if (!ran.ok()) return ran;
      ++row;
    }
    return session_.initiator() ? report_.End() : absl::OkStatus();
  }
  uint64_t wrong() const { return wrong_; }

 private:
  absl::Status LatencyRow(Work& work, const Phase& warmup, const Phase& timed) {
    work.Prepare(warmup);
    const auto warmed = RunLatency(session_, options_, work, warmup, nullptr);
    if (!warmed.ok()) return warmed.status();
    samples_.Clear();
    work.Prepare(timed);
    const auto done = RunLatency(session_, options_, work, timed, &samples_);
    if (!done.ok()) return done.status();
    const auto wrong = work.Verify(timed, {*done});
    if (!wrong.ok()) return wrong.status();
    wrong_ += *wrong;
    if (session_.initiator()) report_.Row(work.bytes(), samples_.Summarize(), *wrong);
    return absl::OkStatus();
  }

  absl::Status BandwidthRow(Work& work, const Phase& warmup, const Phase& timed) {
    work.Prepare(warmup);
    const auto warmed = RunBandwidth(session_, options_, work, warmup);
    if (!warmed.ok()) return warmed.status();
    work.Prepare(timed);
    const auto run = RunBandwidth(session_, options_, work, timed);
    if (!run.ok()) return run.status();
    const auto wrong = work.Verify(timed, run->done);
    if (!wrong.ok()) return wrong.status();
    wrong_ += *wrong;
    auto summary = Together(SummarizeRate(run->parts));
    if (!summary.ok()) return summary.status();
    if (session_.initiator()) report_.Row(work.bytes(), *summary, *wrong);
    return absl::OkStatus();
  }

  // Both directions, added up.
  absl::StatusOr<RateSummary> Together(RateSummary own) {
    if (!options_.bidirectional) return own;
    const auto text = session_.Swap(
        absl::StrCat(own.operations, " ", own.average, " ", own.peak, " ", own.median));
    if (!text.ok()) return text.status();
    const std::vector<std::string> fields = absl::StrSplit(*text, ' ');
    RateSummary peer;
    if (fields.size() != 4 || !absl::SimpleAtoi(fields[0], &peer.operations) ||
        !absl::SimpleAtod(fields[1], &peer.average) || !absl::SimpleAtod(fields[2], &peer.peak) ||
        !absl::SimpleAtod(fields[3], &peer.median)) {
      return absl::InternalError("the other side did not say how fast it was");
    }
    own.operations += peer.operations;
    own.average += peer.average;
    own.peak += peer.peak;
    own.median += peer.median;
    return own;
  }

  Session& session_;
  const PairOptions& options_;
  PairReport report_;
  LatencySamples samples_;
  uint64_t wrong_ = 0;
};

// Who this side is, and where it meets the other.
absl::StatusOr<transport::BootstrapOptions> FindMeeting(const PairOptions& options) {
  transport::BootstrapOptions meeting;
  meeting.size = 2;
  meeting.job = "sumac perf";
  if (!options.host.empty()) {
    meeting.rank = kInitiator;
    meeting.server = absl::StrCat(options.host, ":", options.port);
    return meeting;
  }
  const auto launch = transport::ReadLaunchEnvironment();
  if (!launch.ok()) return launch.status();
  if (launch->origin != "single process") {
    if (launch->bootstrap.size == 2) return launch->bootstrap;
    return absl::InvalidArgumentError(absl::StrCat("started with ", launch->bootstrap.size,
                                                   " ranks by ", launch->origin,
                                                   ": this is between two"));
  }
  meeting.rank = kTarget;
  meeting.server = absl::StrCat(options.listen, ":", options.port);
  meeting.serve = true;
  meeting.join_timeout = options.wait;
  const bool loopback = absl::StartsWith(options.listen, "127.") || options.listen == "localhost";
  std::fprintf(
      stderr,
      "sumac perf: waiting on %s%s for the other side, `sumac perf %s HOST`; or use --local "
      "for both here\n",
      meeting.server.c_str(), loopback ? " (this machine only: see --listen)" : "", options.test());
  return meeting;
}

int RunBothHere(const std::vector<std::string>& arguments) {
  LaunchOptions launch;
  launch.ranks = 2;
  launch.tag_output = false;
  launch.command = {"/proc/self/exe", "perf"};
  for (const std::string& each : arguments) {
    if (each != "--local") launch.command.push_back(each);
  }
  return Launch(launch);
}

}  // namespace

int RunPairPerf(const PairOptions& options, const std::vector<std::string>& arguments) {
  if (options.local) return RunBothHere(arguments);
  SetVariables(options.path_variables);
  const auto meeting = FindMeeting(options);
  if (!meeting.ok()) return Fail(meeting.status());
  const auto session = Session::Open(options, *meeting);
  if (!session.ok()) return Fail(session.status());
  try {
    Rows rows(**session, options);
    if (auto ran = rows.Run(); !ran.ok()) return Fail(ran);
    return rows.wrong() == 0 ? 0 : 1;
  } catch (const std::bad_alloc&) {
    return Fail(absl::ResourceExhaustedError("no memory for the samples"));
  }
}

}  // namespace sumac::cli
