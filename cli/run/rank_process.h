// One rank's process: started in a process group of its own, its output read through pipes, its end
// seen through a pidfd.
//
// Owned by the launcher; one thread. The process dies with the launcher (PR_SET_PDEATHSIG, set by
// the launcher's own binary before it becomes the program: BecomeRank). Destroying an object whose
// process runs kills its group.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/run/output_merger.h"

namespace sumac::cli {

struct RankCommand {
  int rank = 0;
  std::vector<std::string> arguments;    // program first, found already
  std::vector<std::string> environment;  // "NAME=value"
  std::string prefix;                    // before each line of output; may be empty
};

class RankProcess {
 public:
  static absl::StatusOr<std::unique_ptr<RankProcess>> Start(const RankCommand& command);
  ~RankProcess();
  RankProcess(const RankProcess&) = delete;
  RankProcess& operator=(const RankProcess&) = delete;

  int rank() const { return rank_; }
  pid_t pid() const { return pid_; }
  bool running() const { return running_; }
  // After its end: 0 to 255, or 128 + the signal that killed it.
  int exit_code() const { return exit_code_; }
  // "exit code 3", "killed by signal 9 (Killed)".
  std::string HowItEnded() const;

  // Descriptors to poll; -1 when closed.
  int pidfd() const { return running_ ? pidfd_ : -1; }
  int output_fd(bool error) const { return pipes_[error ? 1 : 0]; }
  // Takes what has come; closes at the end of the stream.
  void ReadOutput(bool error);
  // After pidfd turned readable.
  void Reap();
  // To the whole group.
  void Signal(int signal);

 private:
  explicit RankProcess(const RankCommand& command);
  absl::Status Spawn(const RankCommand& command);

  int rank_;
  pid_t pid_ = -1;
  int pidfd_ = -1;
  int pipes_[2] = {-1, -1};
  LineWriter writers_[2];
  bool running_ = false;
  int exit_code_ = 0;
  int signal_ = 0;
};

// What the started copy of this binary does: ties itself to its parent, then becomes the program.
// Returns only on failure, with the exit code to use.
int BecomeRank(char** arguments);
inline constexpr const char* kBecomeRank = "--become-rank";

// The file that a shell would run for `program`. NotFound or PermissionDenied say what was tried.
absl::StatusOr<std::string> FindProgram(const std::string& program);

}  // namespace sumac::cli
