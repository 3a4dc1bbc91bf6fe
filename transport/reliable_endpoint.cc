// Set-up, one-sided operations, completions and errors. Messages: reliable_endpoint_messages.cc.

#include "transport/reliable_endpoint.h"

#include <endian.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "verbs/log.h"
#include "verbs/status.h"

namespace sumac::transport {
namespace {

constexpr uint64_t kOperationBytesMax = uint64_t{1} << 31;  // IBTA vol. 1, 9.7.7
constexpr uint32_t kSendSlotsMax = 128;

}  // namespace

absl::StatusOr<std::unique_ptr<ReliableEndpoint>> ReliableEndpoint::Create(
    EndpointHost& host, int peer, const verbs::ConnectionOptions& connection) {
  const WorkerOptions& options = host.worker->options();
  auto endpoint = std::unique_ptr<ReliableEndpoint>(new ReliableEndpoint(host, peer));
  endpoint->send_depth_ = options.send_depth;
  endpoint->receive_depth_ = options.receive_depth;
  endpoint->credit_threshold_ = (options.receive_depth + 1) / 2;

  verbs::QueuePairOptions queue;
  queue.max_send_wr = options.send_depth + kControlDepth;
  queue.max_recv_wr = options.receive_depth + kReceiveReserve;
  queue.max_send_sge = 1;
  auto qp = verbs::QueuePair::Create(host.pd, host.cq, host.cq, queue);
  if (!qp.ok()) return qp.status();
  endpoint->qp_ = *std::move(qp);

  MessageBuffers::Shape shape;
  shape.receives = queue.max_recv_wr;
  shape.sends = std::min(options.send_depth, kSendSlotsMax);
  shape.controls = kControlDepth;
  shape.eager_bytes_max = options.eager_bytes_max;
  auto buffers = MessageBuffers::Create(host.pd, shape);
  if (!buffers.ok()) return buffers.status();
  endpoint->buffers_ = *std::move(buffers);
  endpoint->arrived_.resize(shape.receives);

  if (const auto status = endpoint->qp_->ToInit(connection); !status.ok()) return status;
  for (uint32_t slot = 0; slot < shape.receives; ++slot) endpoint->PostReceive(slot);
  if (!endpoint->status_.ok()) return endpoint->status_;
  return endpoint;
}

absl::Status ReliableEndpoint::Establish(const AddressRecord& remote,
                                         verbs::ConnectionOptions connection, BringUp bring_up) {
  connection.remote_qpn = remote.qpn;
  connection.remote_psn = remote.psn;
  connection.remote_gid = remote.gid;
  const WorkerOptions& options = host_.worker->options();
  const auto mtu = verbs::MtuOf(std::min(*options.path_mtu_bytes, remote.mtu_bytes));
  if (!mtu.ok()) return mtu.status();
  connection.path_mtu = *mtu;
  connection.max_rd_atomic =
      static_cast<uint8_t>(std::min(uint32_t{connection.max_rd_atomic}, remote.read_depth));
  if (auto status = bring_up(*qp_, connection); !status.ok()) return status;
  peer_depth_ = remote.receive_depth;
  credits_ = peer_depth_;
  eager_bytes_max_ = std::min(options.eager_bytes_max, remote.eager_bytes_max);
  return absl::OkStatus();
}

std::string ReliableEndpoint::Where() const {
  return absl::StrFormat("rank %d (device %s, QP 0x%06x)", peer_, host_.worker->device_name(),
                         qp_->qpn());
}

absl::Status ReliableEndpoint::Usable() const {
  if (!status_.ok()) return status_;
  if (peer_closed_) {
    return absl::UnavailableError(absl::StrCat(
        Where(), " has closed its worker, or given up a long message and with it the connection"));
  }
  return absl::OkStatus();
}

absl::Status ReliableEndpoint::Annotate(const absl::Status& status, absl::string_view doing) const {
  if (!absl::IsDeadlineExceeded(status)) return status;
  return absl::DeadlineExceededError(
      absl::StrCat(doing, " ", Where(), ": the deadline passed; is that rank alive and calling?"));
}

uint32_t ReliableEndpoint::room() const {
  // A failed endpoint has room: the post then gives the error, and no caller waits without end.
  if (!status_.ok() || peer_closed_) return send_depth_;
  const uint64_t used = (posted_ - control_posted_) - (completed_ - control_completed_);
  return send_depth_ - static_cast<uint32_t>(used);
}

uint32_t ReliableEndpoint::immediate_room() const {
  if (!status_.ok() || peer_closed_) return send_depth_;
  return std::min(room(), credits_);
}

int ReliableEndpoint::PostSend(ibv_send_wr& request, WorkKind kind, uint32_t slot) {
  request.wr_id = WorkRequestId(kind, peer_, slot);
  request.send_flags |= IBV_SEND_SIGNALED;
  const int error = qp_->PostSend(request);
  if (error == 0) {
    ++posted_;
  } else {
    Fail(verbs::ErrnoStatus(error, "ibv_post_send", Where()));
  }
  return error;
}

void ReliableEndpoint::PostReceive(uint32_t slot) {
  if (!status_.ok()) return;
  ibv_sge sge{reinterpret_cast<uint64_t>(buffers_->receive(slot)), buffers_->slot_bytes(),
              buffers_->lkey()};
  ibv_recv_wr request{};
  request.wr_id = WorkRequestId(WorkKind::kReceive, peer_, slot);
  request.sg_list = &sge;
  request.num_sge = 1;
  if (const int error = qp_->PostReceive(request); error != 0) {
    Fail(verbs::ErrnoStatus(error, "ibv_post_recv", Where()));
  }
}

absl::StatusOr<Ticket> ReliableEndpoint::PostOneSided(ibv_send_wr& request,
                                                      const LocalSlice& local) {
  if (!status_.ok() || peer_closed_) return Usable();
  if (local.length > kOperationBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "one operation moves at most ", kOperationBytesMax, " bytes, not ", local.length));
  }
  if (room() == 0) return absl::ResourceExhaustedError("send queue full");
  ibv_sge sge{reinterpret_cast<uint64_t>(local.addr), static_cast<uint32_t>(local.length),
              local.lkey};
  request.sg_list = &sge;
  // A scatter entry of length 0 would mean 2^31 (IBTA vol. 1, 11.4.1.1).
  request.num_sge = local.length == 0 ? 0 : 1;
  if (PostSend(request, WorkKind::kOneSided, 0) != 0) return status_;
  return ++last_ticket_;
}

absl::StatusOr<Ticket> ReliableEndpoint::Write(const LocalSlice& source,
                                               const RemoteSlice& target) {
  ibv_send_wr request{};
  request.opcode = IBV_WR_RDMA_WRITE;
  request.wr.rdma.remote_addr = target.addr;
  request.wr.rdma.rkey = target.rkey;
  return PostOneSided(request, source);
}

absl::StatusOr<Ticket> ReliableEndpoint::WriteWithImmediate(const LocalSlice& source,
                                                            const RemoteSlice& target,
                                                            uint32_t immediate) {
  if (credits_ == 0 && status_.ok() && !peer_closed_) {
    return absl::ResourceExhaustedError("no credits");
  }
  ibv_send_wr request{};
  request.opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
  request.imm_data = htobe32(immediate);
  request.wr.rdma.remote_addr = target.addr;
  request.wr.rdma.rkey = target.rkey;
  auto ticket = PostOneSided(request, source);
  if (ticket.ok()) --credits_;
  return ticket;
}

absl::StatusOr<Ticket> ReliableEndpoint::Read(const LocalSlice& into, const RemoteSlice& source) {
  ibv_send_wr request{};
  request.opcode = IBV_WR_RDMA_READ;
  request.wr.rdma.remote_addr = source.addr;
  request.wr.rdma.rkey = source.rkey;
  return PostOneSided(request, into);
}

absl::StatusOr<Ticket> ReliableEndpoint::PostAtomic(ibv_send_wr& request, const LocalSlice& result,
                                                    const RemoteSlice& target) {
  if (result.length < sizeof(uint64_t)) {
    return absl::InvalidArgumentError(
        absl::StrCat("an atomic's result needs 8 bytes, not ", result.length));
  }
  if (target.addr % sizeof(uint64_t) != 0) {  // IBTA vol. 1, 9.4.5
    return absl::InvalidArgumentError(
        absl::StrFormat("an atomic's target must be 8-byte aligned: 0x%x", target.addr));
  }
  request.wr.atomic.remote_addr = target.addr;
  request.wr.atomic.rkey = target.rkey;
  return PostOneSided(request, {result.addr, sizeof(uint64_t), result.lkey});
}

absl::StatusOr<Ticket> ReliableEndpoint::FetchAdd(const LocalSlice& result,
                                                  const RemoteSlice& target, uint64_t add) {
  ibv_send_wr request{};
  request.opcode = IBV_WR_ATOMIC_FETCH_AND_ADD;
  request.wr.atomic.compare_add = add;
  return PostAtomic(request, result, target);
}

absl::StatusOr<Ticket> ReliableEndpoint::CompareSwap(const LocalSlice& result,
                                                     const RemoteSlice& target, uint64_t expected,
                                                     uint64_t desired) {
  ibv_send_wr request{};
  request.opcode = IBV_WR_ATOMIC_CMP_AND_SWP;
  request.wr.atomic.compare_add = expected;
  request.wr.atomic.swap = desired;
  return PostAtomic(request, result, target);
}

absl::Status ReliableEndpoint::Wait(Ticket ticket, absl::Time deadline) {
  if (ticket > last_ticket_) {
    return absl::InvalidArgumentError(absl::StrCat("ticket ", ticket,
                                                   " was never given; the last "
                                                   "one is ",
                                                   last_ticket_));
  }
  const auto status =
      host_.worker->Wait([this, ticket] { return Done(ticket) || !status_.ok(); }, deadline);
  if (Done(ticket)) return absl::OkStatus();
  if (!status_.ok()) return status_;
  return Annotate(status, "waiting for one-sided operations at");
}

// A WRITE of no bytes: it needs no key, no receive and no credit, only a device that answers
// (IBTA vol. 1, C9-88: no check of the key for a length of zero).
void ReliableEndpoint::Probe() {
  if (!status_.ok() || peer_closed_ || posted_ != completed_) return;
  ibv_send_wr request{};
  request.opcode = IBV_WR_RDMA_WRITE;
  if (PostSend(request, WorkKind::kControl, 0) == 0) ++control_posted_;
}

void ReliableEndpoint::OnCompletion(const ibv_wc& completion) {
  const WorkKind kind = KindOf(completion.wr_id);
  const bool ok = completion.status == IBV_WC_SUCCESS;
  if (!ok) OnError(completion);
  if (kind != WorkKind::kReceive) ++completed_;
  switch (kind) {
    case WorkKind::kReceive:
      if (ok) OnReceive(completion, SlotOf(completion.wr_id));
      return;
    case WorkKind::kOneSided:
      if (ok) ++done_ticket_;
      break;
    case WorkKind::kMessage:
      ++messages_completed_;
      break;
    case WorkKind::kControl:
      ++control_completed_;
      break;
    case WorkKind::kMessageRead:
      ++reads_completed_;
      break;
  }
  // Credits that found no control slot before.
  if (owed_credits_ >= credit_threshold_) (void)PostControl(MessageKind::kCredit, 0);
}

void ReliableEndpoint::OnError(const ibv_wc& completion) {
  if (!status_.ok()) return;  // flushed by the first error, which says more
  if (peer_closed_) {
    Fail(Usable());
    return;
  }
  if (completion.status == IBV_WC_WR_FLUSH_ERR) {
    Fail(absl::AbortedError(absl::StrCat(
        Where(), ": ", verbs::NameOf(completion.status),
        ": the connection broke because a request of that rank was refused here (key, range or "
        "right), or was malformed")));
    return;
  }
  absl::Status status = verbs::CompletionStatus(completion.status, Where());
  const bool silent = completion.status == IBV_WC_RETRY_EXC_ERR;
  // A device outlives its process for a moment; rxe then answers that it can't (rxe_resp.c: what
  // fails on its own side draws a remote operational error).
  if (silent || completion.status == IBV_WC_RNR_RETRY_EXC_ERR ||
      completion.status == IBV_WC_REM_OP_ERR) {
    status = WithFailedRank(std::move(status), peer_);
  }
  if (silent) host_.report_failure(peer_, std::string(status.message()));
  Fail(std::move(status));
}

void ReliableEndpoint::Fail(absl::Status status) {
  if (!status_.ok()) return;
  status_ = std::move(status);
  Log().info("endpoint failed: {}", status_.ToString());
  // Also what is posted but was not hit by the error must end: its memory belongs to callers.
  if (const auto error = qp_->ToError(); !error.ok()) Log().info("{}", error.ToString());
}

}  // namespace sumac::transport
