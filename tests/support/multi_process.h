// Runs a function in N forked children, each a rank: what multi-process tests stand on.
//
// Used by tests whose ranks must be real processes (fork, not threads: a rank owns its soft NIC,
// its gRPC state and can be killed). The parent hosts nothing: it forks before any thread is
// started (checked: std::logic_error), waits, kills by pid and collects. A child runs `body(rank)`,
// then leaves by _exit: 0, or 1 when a GoogleTest check failed in it, or 3 when it threw. Its
// standard output and error are captured together, up to 1 MiB. Ownership: the destructor kills and
// reaps what is left. A child dies with its parent. Threads: one; the one that forked. Waits have
// deadlines; a child past it is killed and marked.
//
//   ForkedRanks ranks(4, [](int rank) { EXPECT_TRUE(Work(rank).ok()); });
//   for (const RankOutcome& outcome : ranks.Wait(std::chrono::seconds(30))) {
//     EXPECT_TRUE(outcome.ok()) << outcome.ToString();
//   }
//
// For ranks that need a bootstrap server see job.h.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <string>
#include <vector>

namespace sumac::test_support {

struct RankOutcome {
  int rank = -1;
  int exit_code = -1;      // -1 when a signal ended it
  int signal = 0;          // 0 when it exited
  bool timed_out = false;  // Wait killed it
  std::string output;      // standard output and error

  bool ok() const { return exit_code == 0; }
  // "rank 2 was ended by signal 9 (past its deadline); it wrote: ..."
  std::string ToString() const;
};

class ForkedRanks {
 public:
  ForkedRanks(int size, const std::function<void(int rank)>& body);
  ~ForkedRanks();
  ForkedRanks(const ForkedRanks&) = delete;
  ForkedRanks& operator=(const ForkedRanks&) = delete;

  int size() const { return static_cast<int>(children_.size()); }
  pid_t pid(int rank) const { return children_[static_cast<size_t>(rank)].pid; }
  // What it has written so far, as far as a wait has read it.
  const std::string& output(int rank) const {
    return children_[static_cast<size_t>(rank)].outcome.output;
  }
  // SIGKILL, or another signal; nothing when it has ended.
  void Kill(int rank, int signal = 9);
  // Waits until `rank` has written `text`; false when it ended or the deadline passed without.
  bool WaitForOutput(int rank, const std::string& text, std::chrono::milliseconds deadline);
  // Waits for one, or for all; a rank past the deadline is killed and marked so.
  RankOutcome WaitFor(int rank, std::chrono::milliseconds deadline);
  std::vector<RankOutcome> Wait(std::chrono::milliseconds deadline);

 private:
  using Clock = std::chrono::steady_clock;
  struct Child {
    pid_t pid = -1;
    int output_fd = -1;
    int pid_fd = -1;
    bool reaped = false;
    RankOutcome outcome;
  };

  // Reads what all children wrote and reaps those that ended, at most until `deadline`.
  void Collect(Clock::time_point deadline);
  void Drain(Child& child);
  void Reap(Child& child);

  std::vector<Child> children_;
};

// True in a process that has started no thread of its own (sanitizers' helpers aside).
bool SingleThreaded();

}  // namespace sumac::test_support
