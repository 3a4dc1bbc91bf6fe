#include "collectives/host/host_runner.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "collectives/executor/arguments.h"
#include "collectives/host/chunks.h"

namespace sumac::collectives {
namespace {

bool Reduces(Collective collective) {
  return collective == Collective::kAllReduce || collective == Collective::kReduceScatter;
}

// Equal calls have equal signatures; different ones hardly ever (32 bits, multiplicative hashing).
uint32_t SignatureOf(const HostCall& call) {
  const Arguments& a = call.arguments;
  const uint64_t kind = static_cast<uint64_t>(call.collective) |
                        static_cast<uint64_t>(a.type) << 4 | static_cast<uint64_t>(a.op) << 8 |
                        static_cast<uint64_t>(static_cast<uint32_t>(call.root)) << 12;
  const uint64_t mixed = (kind * 0x9e3779b97f4a7c15 ^ a.count) * 0xbf58476d1ce4e5b9;
  return static_cast<uint32_t>(mixed >> 32);
}

std::string NameOfCall(const HostCall& call) {
  if (call.collective == Collective::kBarrier)
    return absl::StrCat("barrier (", kHostAlgorithm, ")");
  const Arguments& a = call.arguments;
  return absl::StrCat(NameOf(call.collective), " (", kHostAlgorithm, ", ", a.count, " x ",
                      NameOf(a.type), Reduces(call.collective) ? " " : "",
                      Reduces(call.collective) ? NameOf(a.op) : "", ")");
}

}  // namespace

absl::StatusOr<std::shared_ptr<runtime::HostGroup>> HostRunner::Meet(
    transport::Bootstrap& bootstrap, const std::string& name, const std::string& refusal,
    absl::Duration timeout) {
  runtime::HostGroupOptions options;
  options.name = name;
  options.area_bytes = sizeof(RankArea);
  options.refusal = refusal;
  options.timeout = timeout;
  if (bootstrap.size() > kHostRanksMax) {
    options.refusal = absl::StrCat("more than ", kHostRanksMax, " ranks");
  }
  return runtime::HostGroup::Create(bootstrap, options);
}

HostRunner::HostRunner(std::shared_ptr<runtime::HostGroup> group,
                       std::shared_ptr<const BufferTable> buffers,
                       const CommunicatorOptions& options)
    : group_(std::move(group)),
      buffers_(std::move(buffers)),
      timeout_(options.timeout),
      session_(*group_, options.host_copies) {}

absl::Status HostRunner::AllReduce(const void* send, void* recv, size_t count, DataType type,
                                   ReduceOp op) {
  HostCall call{Collective::kAllReduce, 0, {send, recv, 0, type, op}};
  absl::Status status = Check(call, count);
  return status.ok() ? Run(call) : status;
}

absl::Status HostRunner::Broadcast(const void* send, void* recv, size_t count, DataType type,
                                   int root) {
  HostCall call{Collective::kBroadcast, root, {send, recv, 0, type, ReduceOp::kSum}};
  absl::Status status = Check(call, count);
  return status.ok() ? Run(call) : status;
}

absl::Status HostRunner::AllGather(const void* send, void* recv, size_t send_count, DataType type) {
  HostCall call{Collective::kAllGather, 0, {send, recv, 0, type, ReduceOp::kSum}};
  absl::Status status = Check(call, send_count);
  return status.ok() ? Run(call) : status;
}

absl::Status HostRunner::ReduceScatter(const void* send, void* recv, size_t recv_count,
                                       DataType type, ReduceOp op) {
  HostCall call{Collective::kReduceScatter, 0, {send, recv, 0, type, op}};
  absl::Status status = Check(call, recv_count);
  return status.ok() ? Run(call) : status;
}

absl::Status HostRunner::Barrier() {
  HostCall call{Collective::kBarrier, 0, {}};
  call.arguments.count = 1;
  return Run(call);
}

absl::Status HostRunner::Check(HostCall& call, size_t count) const {
  return CheckArguments(call.collective, group_->rank(), group_->size(), call.root, count,
                        call.arguments);
}

absl::Status HostRunner::Run(HostCall& call) {
  if (!failed_.ok()) return failed_;
  if (call.arguments.count == 0) return absl::OkStatus();
  call.signature = SignatureOf(call);
  group_->Begin(timeout_);
  return Dispatch(call) ? absl::OkStatus() : Fail(call);
}

bool HostRunner::Dispatch(const HostCall& call) {
  if (IsSmall(call, session_.size())) return RunSmall(session_, call);
  switch (call.collective) {
    case Collective::kAllReduce:
      return RunLargeAllReduce(session_, *buffers_, call);
    case Collective::kReduceScatter:
      return RunLargeReduceScatter(session_, *buffers_, call);
    default:
      return RunLargeCopy(session_, *buffers_, call);
  }
}

absl::Status HostRunner::Fail(const HostCall& call) {
  // What a rank that takes its memory away breaks is often seen before the news of why it did so.
  if (absl::IsFailedPrecondition(group_->status())) group_->AwaitNews();
  failed_ = Annotate(session_.status(), NameOfCall(call));
  return failed_;
}

}  // namespace sumac::collectives
