// Runs collective calls of one rank in memory that all ranks share: checks the arguments as Runner
// does, numbers and signs the call, chooses the way by its size, keeps the first failure.
//
// What a Communicator is made of when all its ranks are on one host; owned by it, used by its
// thread. Needs no device and no domain: unit tests run it over a HostGroup alone. Failure:
// InvalidArgument for arguments (nobody was told, the runner goes on); any other failure is kept
// and returned by every later call: Unavailable naming the rank that died, DeadlineExceeded naming
// the one waited for, FailedPrecondition when ranks make different calls. Hot path: allocates
// nothing, makes no system call while all ranks are on time.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "collectives/buffers.h"
#include "collectives/host/algorithms.h"
#include "collectives/host/session.h"
#include "runtime/host/host_group.h"

namespace sumac::collectives {

// What SUMAC_ALGO and messages call it.
inline constexpr absl::string_view kHostAlgorithm = "host";

class HostRunner {
 public:
  // Collective. FailedPrecondition, on all ranks alike: not all can share memory; `refusal`: this
  // one does not want to (why), if not empty. `name` as CommunicatorOptions::name.
  static absl::StatusOr<std::shared_ptr<runtime::HostGroup>> Meet(transport::Bootstrap& bootstrap,
                                                                  const std::string& name,
                                                                  const std::string& refusal,
                                                                  absl::Duration timeout);

  HostRunner(std::shared_ptr<runtime::HostGroup> group, std::shared_ptr<const BufferTable> buffers,
             const CommunicatorOptions& options);
  ~HostRunner() { group_->Leave(); }
  HostRunner(const HostRunner&) = delete;
  HostRunner& operator=(const HostRunner&) = delete;

  absl::Status AllReduce(const void* send, void* recv, size_t count, DataType type, ReduceOp op);
  absl::Status Broadcast(const void* send, void* recv, size_t count, DataType type, int root);
  absl::Status AllGather(const void* send, void* recv, size_t send_count, DataType type);
  absl::Status ReduceScatter(const void* send, void* recv, size_t recv_count, DataType type,
                             ReduceOp op);
  absl::Status Barrier();

  // OK, or the failure that it stays with.
  const absl::Status& status() const { return failed_; }

 private:
  absl::Status Check(HostCall& call, size_t count) const;
  absl::Status Run(HostCall& call);
  bool Dispatch(const HostCall& call);
  absl::Status Fail(const HostCall& call);

  const std::shared_ptr<runtime::HostGroup> group_;
  const std::shared_ptr<const BufferTable> buffers_;
  const absl::Duration timeout_;
  HostSession session_;
  absl::Status failed_;
};

}  // namespace sumac::collectives
