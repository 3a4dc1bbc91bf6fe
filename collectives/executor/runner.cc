#include "collectives/executor/runner.h"

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "collectives/executor/arguments.h"
#include "collectives/schedule/checker.h"
#include "verbs/log.h"

namespace sumac::collectives {

absl::Status Runner::AllReduce(const void* send, void* recv, size_t count, DataType type,
                               ReduceOp op) {
  Arguments arguments{send, recv, 0, type, op};
  absl::Status status = CheckArguments(Collective::kAllReduce, rank_, size_, 0, count, arguments);
  return status.ok() ? Run(Collective::kAllReduce, 0, arguments) : status;
}

absl::Status Runner::Broadcast(const void* send, void* recv, size_t count, DataType type,
                               int root) {
  Arguments arguments{send, recv, 0, type, ReduceOp::kSum};
  absl::Status status =
      CheckArguments(Collective::kBroadcast, rank_, size_, root, count, arguments);
  return status.ok() ? Run(Collective::kBroadcast, root, arguments) : status;
}

absl::Status Runner::AllGather(const void* send, void* recv, size_t send_count, DataType type) {
  Arguments arguments{send, recv, 0, type, ReduceOp::kSum};
  absl::Status status =
      CheckArguments(Collective::kAllGather, rank_, size_, 0, send_count, arguments);
  return status.ok() ? Run(Collective::kAllGather, 0, arguments) : status;
}

absl::Status Runner::ReduceScatter(const void* send, void* recv, size_t recv_count, DataType type,
                                   ReduceOp op) {
  Arguments arguments{send, recv, 0, type, op};
  absl::Status status =
      CheckArguments(Collective::kReduceScatter, rank_, size_, 0, recv_count, arguments);
  return status.ok() ? Run(Collective::kReduceScatter, 0, arguments) : status;
}

absl::Status Runner::Barrier() {
  const int32_t here = 1;
  int32_t everybody = 0;
  return Run(Collective::kBarrier, 0, {&here, &everybody, 1, DataType::kInt32, ReduceOp::kMax});
}

absl::Status Runner::Run(Collective collective, int root, const Arguments& arguments) {
  if (!failed_.ok()) return failed_;
  if (arguments.count == 0) return absl::OkStatus();
  const absl::Time deadline = absl::Now() + options_.timeout;
  const size_t bytes = arguments.count * SizeOf(arguments.type);
  const absl::StatusOr<const ReadyProgram*> program = Prepare(collective, root, bytes, deadline);
  if (!program.ok()) return Fail(program.status(), NameOf(collective));
  const absl::Status status = RunPrepared(**program, arguments, deadline);
  execution_.Stop();
  return status.ok() ? status : Fail(status, NameOfCall(**program, arguments));
}

absl::StatusOr<const ReadyProgram*> Runner::Prepare(Collective collective, int root, size_t bytes,
                                                    absl::Time deadline) {
  const Choice choice = ChooseAlgorithm(collective, bytes, size_, options_.algorithm);
  const Algorithm& algorithm = *choice.algorithm;
  std::unique_ptr<const ReadyProgram>& kept = programs_[{collective, &algorithm, root}];
  if (kept != nullptr) return kept.get();

  Program program = algorithm.program(size_, rank_, root);
  if (absl::Status status = Check(algorithm, root, program.size()); !status.ok()) return status;
  auto ready = std::make_unique<const ReadyProgram>(
      MakeReady(std::move(program), collective, algorithm.name, size_, rank_, root,
                algorithm.Blocks(size_), algorithm.temp_slots));
  Log().debug("{} of {} bytes among {} ranks: algorithm {} ({})", NameOf(collective), bytes, size_,
              algorithm.name, choice.reason);
  if (absl::Status status = transport_.Connect(ready->lanes, deadline); !status.ok()) {
    return Annotate(status, absl::StrCat("connecting for ", algorithm.name,
                                         " (do all ranks make the same call?)"));
  }
  kept = std::move(ready);
  return kept.get();
}

absl::Status Runner::Check(const Algorithm& algorithm, int root, size_t own_steps) const {
  const uint64_t cost = CheckCost(size_, algorithm.Blocks(size_), algorithm.temp_slots,
                                  own_steps * static_cast<uint64_t>(size_));
  if (cost > kCheckCostMax) {
    Log().debug("{} {}: not checked again for {} ranks (cost {})", NameOf(algorithm.collective),
                algorithm.name, size_, cost);
    return absl::OkStatus();
  }
  return CheckSchedule(BuildSchedule(algorithm, size_, root));
}

absl::Status Runner::RunPrepared(const ReadyProgram& program, const Arguments& arguments,
                                 absl::Time deadline) {
  absl::Status status = execution_.Start(program, arguments);
  if (status.ok()) status = execution_.Advance();
  if (!status.ok() || execution_.done()) return status;
  const absl::Status waited = transport_.Wait(
      [&] {
        status = execution_.Advance();
        return !status.ok() || execution_.done();
      },
      deadline);
  if (!status.ok()) return status;
  return waited.ok() ? waited : Annotate(waited, execution_.Describe());
}

std::string Runner::NameOfCall(const ReadyProgram& program, const Arguments& arguments) {
  const bool reduces = program.collective == Collective::kAllReduce ||
                       program.collective == Collective::kReduceScatter;
  if (program.collective == Collective::kBarrier) {
    return absl::StrCat("barrier (", program.algorithm, ")");
  }
  return absl::StrCat(NameOf(program.collective), " (", program.algorithm, ", ", arguments.count,
                      " x ", NameOf(arguments.type), reduces ? " " : "",
                      reduces ? NameOf(arguments.op) : "", ")");
}

absl::Status Runner::Fail(const absl::Status& status, absl::string_view call) {
  failed_ = Annotate(transport_.RootCause(status), call);
  return failed_;
}

}  // namespace sumac::collectives
