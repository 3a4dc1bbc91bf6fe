#include "cli/run/rank_process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace sumac::cli {
namespace {

bool IsRunnable(const std::string& path) {
  struct stat info {};
  return stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) && access(path.c_str(), X_OK) == 0;
}

std::vector<char*> Pointers(const std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (const std::string& each : strings) pointers.push_back(const_cast<char*>(each.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

}  // namespace

absl::StatusOr<std::string> FindProgram(const std::string& program) {
  if (program.empty()) return absl::InvalidArgumentError("no program to run");
  if (program.find('/') != std::string::npos) {
    if (IsRunnable(program)) return program;
    if (access(program.c_str(), F_OK) != 0) {
      return absl::NotFoundError(absl::StrCat("no such program: ", program));
    }
    return absl::PermissionDeniedError(absl::StrCat(program, " is not an executable file"));
  }
  const char* path = std::getenv("PATH");
  for (const absl::string_view folder : absl::StrSplit(path != nullptr ? path : "", ':')) {
    const std::string candidate = absl::StrCat(folder.empty() ? "." : folder, "/", program);
    if (IsRunnable(candidate)) return candidate;
  }
  return absl::NotFoundError(absl::StrCat("no program '", program, "' in PATH"));
}

int BecomeRank(char** arguments) {
  const pid_t parent = getppid();
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (parent == 1 || getppid() != parent) return 127;  // the launcher died in between
  execv(arguments[0], arguments);
  std::fprintf(stderr, "sumac run: can't start %s: %s\n", arguments[0], std::strerror(errno));
  return 127;
}

RankProcess::RankProcess(const RankCommand& command)
    : rank_(command.rank),
      writers_{LineWriter(STDOUT_FILENO, command.prefix),
               LineWriter(STDERR_FILENO, command.prefix)} {}

absl::StatusOr<std::unique_ptr<RankProcess>> RankProcess::Start(const RankCommand& command) {
  std::unique_ptr<RankProcess> process(new RankProcess(command));
  if (auto spawned = process->Spawn(command); !spawned.ok()) return spawned;
  return process;
}

absl::Status RankProcess::Spawn(const RankCommand& command) {
  int write_ends[2] = {-1, -1};
  for (int i = 0; i < 2; ++i) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return absl::ErrnoToStatus(errno, "pipe");
    pipes_[i] = ends[0];
    write_ends[i] = ends[1];
    fcntl(pipes_[i], F_SETFL, O_NONBLOCK);
  }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  // A rank is in a background process group: reading the terminal would stop it.
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, write_ends[0], STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, write_ends[1], STDERR_FILENO);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);  // the launcher blocks what it handles
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);

  std::vector<std::string> arguments = {"sumac", kBecomeRank};
  arguments.insert(arguments.end(), command.arguments.begin(), command.arguments.end());
  const int error = posix_spawn(&pid_, "/proc/self/exe", &actions, &attributes,
                                Pointers(arguments).data(), Pointers(command.environment).data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  for (const int end : write_ends) close(end);
  if (error != 0) {
    pid_ = -1;
    return absl::ErrnoToStatus(error, absl::StrCat("starting rank ", rank_));
  }
  running_ = true;
  pidfd_ = static_cast<int>(syscall(SYS_pidfd_open, pid_, 0));
  if (pidfd_ < 0) return absl::ErrnoToStatus(errno, "pidfd_open (needs Linux 5.3)");
  fcntl(pidfd_, F_SETFD, FD_CLOEXEC);
  return absl::OkStatus();
}

RankProcess::~RankProcess() {
  if (running_) {
    Signal(SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  for (const int fd : {pidfd_, pipes_[0], pipes_[1]}) {
    if (fd >= 0) close(fd);
  }
}

void RankProcess::ReadOutput(bool error) {
  const int i = error ? 1 : 0;
  char buffer[16384];
  const ssize_t got = read(pipes_[i], buffer, sizeof(buffer));
  if (got > 0) {
    writers_[i].Write({buffer, static_cast<size_t>(got)});
  } else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
    writers_[i].Finish();
    close(pipes_[i]);
    pipes_[i] = -1;
  }
}

void RankProcess::Reap() {
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) != pid_) return;
  running_ = false;
  if (WIFSIGNALED(status)) signal_ = WTERMSIG(status);
  exit_code_ = signal_ != 0 ? 128 + signal_ : WEXITSTATUS(status);
}

void RankProcess::Signal(int signal) {
  if (pid_ > 0) kill(-pid_, signal);
}

std::string RankProcess::HowItEnded() const {
  if (signal_ != 0)
    return absl::StrCat("killed by signal ", signal_, " (", strsignal(signal_), ")");
  return absl::StrCat("exit code ", exit_code_);
}

}  // namespace sumac::cli
