// Runs collective calls of one rank over a transport: checks the arguments, chooses the algorithm,
// prepares its schedule (once: checked, split into lanes, connected), runs it to its end.
//
// What a Communicator is made of; owned by it, used by its thread. Apart from it so that all of it
// but the network is tested without one. Prepared programs are kept: one a (collective, algorithm,
// root). Failure: InvalidArgument for arguments (nothing was sent, the runner goes on); any other
// failure is kept and returned by every later call.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <tuple>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "collectives/executor/execution.h"
#include "collectives/tuner/tuner.h"

namespace sumac::collectives {

struct RunnerOptions {
  std::string algorithm;  // empty: chosen by size
  absl::Duration timeout = absl::Seconds(30);
};

class Runner {
 public:
  Runner(PieceTransport& transport, int rank, int size, RunnerOptions options)
      : transport_(transport),
        rank_(rank),
        size_(size),
        options_(std::move(options)),
        execution_(transport) {}

  absl::Status AllReduce(const void* send, void* recv, size_t count, DataType type, ReduceOp op);
  absl::Status Broadcast(const void* send, void* recv, size_t count, DataType type, int root);
  absl::Status AllGather(const void* send, void* recv, size_t send_count, DataType type);
  absl::Status ReduceScatter(const void* send, void* recv, size_t recv_count, DataType type,
                             ReduceOp op);
  absl::Status Barrier();

  // OK, or the failure that it stays with.
  const absl::Status& status() const { return failed_; }

 private:
  // (collective, algorithm, root)
  using Key = std::tuple<Collective, const Algorithm*, int>;

  absl::Status Run(Collective collective, int root, const Arguments& arguments);
  absl::StatusOr<const ReadyProgram*> Prepare(Collective collective, int root, size_t bytes,
                                              absl::Time deadline);
  absl::Status Check(const Algorithm& algorithm, int root, size_t own_steps) const;
  absl::Status RunPrepared(const ReadyProgram& program, const Arguments& arguments,
                           absl::Time deadline);
  // "allreduce (ring, 1000 x float sum)"
  static std::string NameOfCall(const ReadyProgram& program, const Arguments& arguments);
  absl::Status Fail(const absl::Status& status, absl::string_view call);

  PieceTransport& transport_;
  const int rank_;
  const int size_;
  const RunnerOptions options_;
  Execution execution_;
  std::map<Key, std::unique_ptr<const ReadyProgram>> programs_;
  absl::Status failed_;
};

}  // namespace sumac::collectives
