#include "cli/run/launcher.h"

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/run/rank_process.h"

#include "transport/bootstrap/server.h"

namespace sumac::cli {
namespace {

constexpr int kExitUsage = 2;
constexpr int kExitTimeout = 124;
constexpr absl::Duration kKillAfter = absl::Seconds(2);  // from SIGTERM to SIGKILL
constexpr absl::Duration kDrain =
    absl::Milliseconds(500);  // for output that grandchildren still hold

template <typename... Args>
void Say(const Args&... args) {
  const std::string line = absl::StrCat("sumac run: ", args..., "\n");
  std::fputs(line.c_str(), stderr);
}

std::string HostName() {
  char name[256] = "";
  gethostname(name, sizeof(name) - 1);
  return name;
}

std::string RandomJobName() {
  std::random_device random;
  return absl::StrFormat("%08x%08x%08x%08x", random(), random(), random(), random());
}

class Job {
 public:
  explicit Job(const LaunchOptions& options) : options_(options) {}

  absl::Status Start() {
    TakeSignals();
    auto program = FindProgram(options_.command.front());
    if (!program.ok()) return program.status();
    transport::BootstrapServerOptions serving;
    serving.job = RandomJobName();
    serving.size = options_.ranks;
    auto server = transport::BootstrapServer::Start(serving);
    if (!server.ok()) return server.status();
    server_ = *std::move(server);
    RankCommand command;
    command.arguments = options_.command;
    command.arguments.front() = *program;
    for (int rank = 0; rank < options_.ranks; ++rank) {
      command.rank = rank;
      command.environment = EnvironmentOf(rank, serving.job);
      command.prefix =
          options_.tag_output && options_.ranks > 1 ? absl::StrCat("[", rank, "] ") : "";
      auto process = RankProcess::Start(command);
      if (!process.ok()) return process.status();
      ranks_.push_back(*std::move(process));
    }
    return absl::OkStatus();
  }

  int Run() {
    const absl::Time deadline = absl::Now() + options_.timeout;
    while (AnyRunning()) {
      WaitForSomething(std::min({deadline, terminate_at_, kill_at_}));
      const absl::Time now = absl::Now();
      if (now >= deadline && forced_exit_ == 0) {
        Say("the job did not end in ", absl::FormatDuration(options_.timeout), ": ending it");
        forced_exit_ = kExitTimeout;
        terminate_at_ = now;
      }
      if (now >= terminate_at_) Terminate();
      if (now >= kill_at_) {
        SignalAll(SIGKILL);
        kill_at_ = now + kKillAfter;
      }
    }
    SignalAll(SIGKILL);  // what ranks started and left behind in their groups
    const absl::Time drained = absl::Now() + kDrain;
    while (AnyOutput() && absl::Now() < drained) WaitForSomething(drained);
    return ExitCode();
  }

 private:
  void TakeSignals() {
    sigset_t handled;
    sigemptyset(&handled);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&handled, signal);
    sigprocmask(SIG_BLOCK, &handled, nullptr);  // before gRPC starts threads, which inherit it
    signals_ = signalfd(-1, &handled, SFD_CLOEXEC | SFD_NONBLOCK);
  }

  std::vector<std::string> EnvironmentOf(int rank, const std::string& job) const {
    std::vector<std::string> ours = {absl::StrCat("SUMAC_RANK=", rank),
                                     absl::StrCat("SUMAC_SIZE=", options_.ranks),
                                     absl::StrCat("SUMAC_LOCAL_RANK=", rank),
                                     absl::StrCat("SUMAC_LOCAL_SIZE=", options_.ranks),
                                     absl::StrCat("SUMAC_BOOTSTRAP=", server_->address()),
                                     absl::StrCat("SUMAC_JOB=", job),
                                     "SUMAC_BOOTSTRAP_SERVE=0"};
    ours.insert(ours.end(), options_.environment.begin(), options_.environment.end());
    for (char** inherited = environ; *inherited != nullptr; ++inherited) {
      const char* equals = std::strchr(*inherited, '=');
      if (equals == nullptr) continue;
      const std::string name(*inherited, static_cast<size_t>(equals - *inherited) + 1);
      const bool replaced = std::any_of(ours.begin(), ours.end(), [&name](const std::string& each) {
        return each.compare(0, name.size(), name) == 0;
      });
      if (!replaced) ours.emplace_back(*inherited);
    }
    return ours;
  }

  void WaitForSomething(absl::Time until) {
    std::vector<pollfd> events = {{signals_, POLLIN, 0}};
    for (const auto& rank : ranks_) {
      events.push_back({rank->pidfd(), POLLIN, 0});
      events.push_back({rank->output_fd(false), POLLIN, 0});
      events.push_back({rank->output_fd(true), POLLIN, 0});
    }
    const auto left = absl::ToInt64Milliseconds(
        std::clamp(until - absl::Now(), absl::ZeroDuration(), absl::Seconds(60)));
    if (poll(events.data(), events.size(), static_cast<int>(left) + 1) <= 0) return;
    if (events[0].revents != 0) OnSignal();
    for (size_t i = 0; i < ranks_.size(); ++i) {
      RankProcess& rank = *ranks_[i];
      // Output first: what a rank said before it died comes before the news of its death.
      if (events[3 * i + 2].revents != 0) rank.ReadOutput(false);
      if (events[3 * i + 3].revents != 0) rank.ReadOutput(true);
      if (events[3 * i + 1].revents != 0) OnExit(rank);
    }
  }

  void OnSignal() {
    signalfd_siginfo info{};
    if (read(signals_, &info, sizeof(info)) != sizeof(info)) return;
    const auto signal = static_cast<int>(info.ssi_signo);
    if (forced_exit_ != 0) {
      SignalAll(SIGKILL);  // asked twice
      return;
    }
    Say(strsignal(signal), ": ending ", options_.ranks, " rank", options_.ranks == 1 ? "" : "s");
    forced_exit_ = 128 + signal;
    terminate_at_ = absl::Now();
  }

  void OnExit(RankProcess& rank) {
    rank.Reap();
    if (rank.running() || rank.exit_code() == 0) return;
    // Ranks that we ended ourselves say nothing about the job.
    if (!terminating_) worst_ = std::max(worst_, rank.exit_code());
    const std::string how = rank.HowItEnded();
    server_->DeclareFailed(rank.rank(), how);
    if (first_failed_ >= 0 || forced_exit_ != 0) return;
    first_failed_ = rank.rank();
    Say("rank ", rank.rank(), " (pid ", rank.pid(), ", host ", HostName(), ") died: ", how,
        "; the other ranks have ", absl::FormatDuration(options_.grace), " to report and end");
    terminate_at_ = std::min(terminate_at_, absl::Now() + options_.grace);
  }

  void Terminate() {
    terminate_at_ = absl::InfiniteFuture();
    terminating_ = true;
    SignalAll(SIGTERM);
    kill_at_ = absl::Now() + kKillAfter;
  }

  void SignalAll(int signal) {
    for (const auto& rank : ranks_) rank->Signal(signal);
  }
  bool AnyRunning() const {
    return std::any_of(ranks_.begin(), ranks_.end(),
                       [](const auto& rank) { return rank->running(); });
  }
  bool AnyOutput() const {
    return std::any_of(ranks_.begin(), ranks_.end(), [](const auto& rank) {
      return rank->output_fd(false) >= 0 || rank->output_fd(true) >= 0;
    });
  }
  int ExitCode() const { return forced_exit_ != 0 ? forced_exit_ : worst_; }

  const LaunchOptions& options_;
  int signals_ = -1;
  std::unique_ptr<transport::BootstrapServer> server_;
  std::vector<std::unique_ptr<RankProcess>> ranks_;
  int first_failed_ = -1;
  int forced_exit_ = 0;  // the job was ended from outside
  int worst_ = 0;
  bool terminating_ = false;
  absl::Time terminate_at_ = absl::InfiniteFuture();
  absl::Time kill_at_ = absl::InfiniteFuture();
};

}  // namespace

int Launch(const LaunchOptions& options) {
  Job job(options);
  if (auto started = job.Start(); !started.ok()) {
    Say(std::string(started.message()));
    return kExitUsage;
  }
  return job.Run();
}

}  // namespace sumac::cli
