#include "tests/support/multi_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <stdexcept>
#include <system_error>

#include "gtest/gtest.h"

namespace sumac::test_support {
namespace {

constexpr size_t kOutputBytesMax = 1 << 20;
constexpr int kThrew = 3;

#ifdef __SANITIZE_THREAD__
constexpr size_t kThreadsAtRest = 2;  // ThreadSanitizer keeps one of its own
#else
constexpr size_t kThreadsAtRest = 1;
#endif

[[noreturn]] void RunChild(int rank, int write_fd, pid_t parent,
                           const std::function<void(int rank)>& body) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(kThrew);  // it died before the line above
  dup2(write_fd, STDOUT_FILENO);
  dup2(write_fd, STDERR_FILENO);
  close(write_fd);
  int code = 0;
  try {
    body(rank);
    code = testing::Test::HasFailure() ? 1 : 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "rank %d threw: %s\n", rank, error.what());
    code = kThrew;
  }
  std::fflush(nullptr);
  _exit(code);  // not exit(): what the parent registered with atexit is not the child's to run
}

std::system_error Failed(const char* what) {
  return std::system_error(errno, std::generic_category(), what);
}

}  // namespace

bool SingleThreaded() {
  const std::filesystem::directory_iterator tasks("/proc/self/task");
  return static_cast<size_t>(std::distance(begin(tasks), end(tasks))) <= kThreadsAtRest;
}

std::string RankOutcome::ToString() const {
  std::string text = "rank " + std::to_string(rank);
  text += signal != 0 ? " was ended by signal " + std::to_string(signal)
                      : " ended with exit code " + std::to_string(exit_code);
  if (timed_out) text += " (past its deadline)";
  return text + "; it wrote:\n" + output;
}

ForkedRanks::ForkedRanks(int size, const std::function<void(int rank)>& body) {
  if (!SingleThreaded()) {
    throw std::logic_error("ForkedRanks: this process has threads already; fork before them");
  }
  children_.reserve(static_cast<size_t>(size));
  const pid_t parent = getpid();
  std::fflush(nullptr);  // or the children would print the parent's buffers once more
  for (int rank = 0; rank < size; ++rank) {
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) throw Failed("pipe2");
    const pid_t pid = fork();
    if (pid < 0) throw Failed("fork");
    if (pid == 0) {
      for (const Child& earlier : children_) {
        close(earlier.output_fd);
        close(earlier.pid_fd);
      }
      close(fds[0]);
      RunChild(rank, fds[1], parent, body);
    }
    close(fds[1]);
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    Child& child = children_.emplace_back();
    child.pid = pid;
    child.output_fd = fds[0];
    child.outcome.rank = rank;
    child.pid_fd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
    if (child.pid_fd < 0) throw Failed("pidfd_open");
  }
}

ForkedRanks::~ForkedRanks() {
  for (int rank = 0; rank < size(); ++rank) Kill(rank);
  for (Child& child : children_) {
    if (!child.reaped) waitpid(child.pid, nullptr, 0);
    close(child.output_fd);
    close(child.pid_fd);
  }
}

void ForkedRanks::Kill(int rank, int signal) {
  const Child& child = children_[static_cast<size_t>(rank)];
  if (!child.reaped) kill(child.pid, signal);  // not reaped, so the pid is still its own
}

bool ForkedRanks::WaitForOutput(int rank, const std::string& text,
                                std::chrono::milliseconds deadline) {
  const Child& child = children_[static_cast<size_t>(rank)];
  const Clock::time_point end = Clock::now() + deadline;
  for (;;) {
    if (child.outcome.output.find(text) != std::string::npos) return true;
    if (child.reaped || Clock::now() >= end) return false;
    Collect(end);
  }
}

RankOutcome ForkedRanks::WaitFor(int rank, std::chrono::milliseconds deadline) {
  Child& child = children_[static_cast<size_t>(rank)];
  const Clock::time_point end = Clock::now() + deadline;
  while (!child.reaped && Clock::now() < end) Collect(end);
  if (!child.reaped) {
    child.outcome.timed_out = true;
    Kill(rank);
    Reap(child);
  }
  return child.outcome;
}

std::vector<RankOutcome> ForkedRanks::Wait(std::chrono::milliseconds deadline) {
  const Clock::time_point end = Clock::now() + deadline;
  std::vector<RankOutcome> outcomes;
  for (int rank = 0; rank < size(); ++rank) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now());
    outcomes.push_back(WaitFor(rank, std::max(left, std::chrono::milliseconds(0))));
  }
  for (const Child& child : children_) {
    outcomes[static_cast<size_t>(child.outcome.rank)] = child.outcome;
  }
  return outcomes;
}

void ForkedRanks::Collect(Clock::time_point deadline) {
  std::vector<pollfd> fds;
  std::vector<Child*> living;
  for (Child& child : children_) {
    if (child.reaped) continue;
    living.push_back(&child);
    fds.push_back({child.output_fd, POLLIN, 0});
    fds.push_back({child.pid_fd, POLLIN, 0});
  }
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
  if (poll(fds.data(), fds.size(), static_cast<int>(std::max<long>(left, 0))) <= 0) return;
  for (size_t i = 0; i < living.size(); ++i) {
    Drain(*living[i]);
    if (fds[2 * i + 1].revents != 0) Reap(*living[i]);
  }
}

void ForkedRanks::Drain(Child& child) {
  char buffer[4096];
  for (;;) {
    const ssize_t got = read(child.output_fd, buffer, sizeof buffer);
    if (got <= 0) return;  // empty for now, or closed
    const size_t room = kOutputBytesMax - std::min(kOutputBytesMax, child.outcome.output.size());
    child.outcome.output.append(buffer, std::min(static_cast<size_t>(got), room));
  }
}

void ForkedRanks::Reap(Child& child) {
  int status = 0;
  if (waitpid(child.pid, &status, 0) != child.pid) throw Failed("waitpid");
  Drain(child);
  child.reaped = true;
  if (WIFSIGNALED(status)) {
    child.outcome.signal = WTERMSIG(status);
  } else {
    child.outcome.exit_code = WEXITSTATUS(status);
  }
}

}  // namespace sumac::test_support
