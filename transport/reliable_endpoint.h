// The Endpoint over one reliable-connected queue pair.
//
// Made by Connector (Create, Establish), then used by the worker's owning thread only: WorkerImpl
// hands it the completions, callers post through the Endpoint interface. Owns the queue pair and
// the registered block of message buffers. Work request ids carry kind, peer and slot, so that a
// completion finds its endpoint without a look-up.
//
// Failure: the first error stays (status()); the queue pair is then put into error, everything
// posted flushes, and messages that had arrived can still be taken. Hot path: no allocation, no
// lock, no text.
//
// Invariants
// - A message or an immediate takes one credit = one receive of the peer; a credit comes back when
//   that receive is posted again. Credit, finish and close messages take none: kReceiveReserve
//   receives are there for them.
// - Everything on the send queue completes in order (IBTA vol. 1, 10.8.5.1), so counters suffice.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"

#include "transport/address_record.h"
#include "transport/message_buffers.h"
#include "transport/message_header.h"
#include "transport/work_request_id.h"
#include "transport/worker.h"
#include "transport/worker_limits.h"
#include "verbs/completion_queue.h"
#include "verbs/memory_region.h"
#include "verbs/protection_domain.h"
#include "verbs/queue_pair.h"

namespace sumac::transport {

// What the endpoints of one worker share. Owned by WorkerImpl, outlives them.
struct EndpointHost {
  Worker* worker = nullptr;
  std::shared_ptr<verbs::ProtectionDomain> pd;
  std::shared_ptr<verbs::CompletionQueue> cq;
  Worker::ImmediateHandler on_immediate;
  // Tells the job that `rank` does not answer. Returns at once.
  std::function<void(int rank, std::string reason)> report_failure;
};

class ReliableEndpoint final : public Endpoint {
 public:
  // Creates the queue pair in INIT, with its receives posted.
  static absl::StatusOr<std::unique_ptr<ReliableEndpoint>> Create(
      EndpointHost& host, int peer, const verbs::ConnectionOptions& connection);
  // Connects to what the peer published. `connection` has the local choices filled in; `bring_up`
  // brings the queue pair to RTS, with the choices of both sides.
  using BringUp =
      absl::FunctionRef<absl::Status(verbs::QueuePair& qp, const verbs::ConnectionOptions& agreed)>;
  absl::Status Establish(const AddressRecord& remote, verbs::ConnectionOptions connection,
                         BringUp bring_up);

  uint32_t qpn() const { return qp_->qpn(); }
  void OnCompletion(const ibv_wc& completion);
  void Fail(absl::Status status);

  // Asks the peer's device for a sign of life, if nothing is on the way that does.
  void Probe();
  // The orderly end: says that nothing more will come. Drained: nothing is on the send queue, or it
  // does not matter any more.
  void SendClose();
  bool drained() const { return posted_ == completed_ || peer_closed_ || !status_.ok(); }

  int peer() const override { return peer_; }
  absl::Status status() const override { return status_; }
  absl::StatusOr<Ticket> Write(const LocalSlice& source, const RemoteSlice& target) override;
  absl::StatusOr<Ticket> WriteWithImmediate(const LocalSlice& source, const RemoteSlice& target,
                                            uint32_t immediate) override;
  absl::StatusOr<Ticket> Read(const LocalSlice& into, const RemoteSlice& source) override;
  absl::StatusOr<Ticket> FetchAdd(const LocalSlice& result, const RemoteSlice& target,
                                  uint64_t add) override;
  absl::StatusOr<Ticket> CompareSwap(const LocalSlice& result, const RemoteSlice& target,
                                     uint64_t expected, uint64_t desired) override;
  uint32_t room() const override;
  uint32_t immediate_room() const override;
  bool Done(Ticket ticket) const override { return ticket <= done_ticket_; }
  Ticket last_ticket() const override { return last_ticket_; }
  absl::Status Wait(Ticket ticket, absl::Time deadline) override;
  absl::Status Flush(absl::Time deadline) override { return Wait(last_ticket_, deadline); }
  absl::Status Send(std::span<const std::byte> message, absl::Time deadline) override;
  absl::StatusOr<size_t> Receive(std::span<std::byte> buffer, absl::Time deadline) override;

 private:
  // A message that has arrived and was not taken yet; it keeps its receive slot.
  struct Incoming {
    MessageHeader header;
    uint32_t slot = 0;
  };
  // The source of a long message to this very rank, which has nobody else to take it.
  struct SelfCopy {
    uint32_t id = 0;
    std::vector<std::byte> bytes;
    std::unique_ptr<verbs::MemoryRegion> region;
  };

  ReliableEndpoint(EndpointHost& host, int peer) : host_(host), peer_(peer) {}

  // --- Posting (reliable_endpoint.cc)
  absl::StatusOr<Ticket> PostOneSided(ibv_send_wr& request, const LocalSlice& local);
  absl::StatusOr<Ticket> PostAtomic(ibv_send_wr& request, const LocalSlice& result,
                                    const RemoteSlice& target);
  // The errno of a failed post; the endpoint has failed then.
  int PostSend(ibv_send_wr& request, WorkKind kind, uint32_t slot);
  void PostReceive(uint32_t slot);
  absl::Status Usable() const;  // status_, or that the peer has closed
  std::string Where() const;    // "rank 2 (device soft0, QP 0x040012)"
  absl::Status Annotate(const absl::Status& status, absl::string_view doing) const;
  void OnError(const ibv_wc& completion);

  // --- Messages (reliable_endpoint_messages.cc)
  bool CanSendMessage() const;
  absl::Status WaitToSend(absl::Time deadline);
  void PostMessage(MessageHeader header, std::span<const std::byte> body);
  absl::Status SendLong(std::span<const std::byte> message, absl::Time deadline);
  absl::Status SendLongToSelf(std::span<const std::byte> message);
  absl::Status TakeLong(const Incoming& incoming, std::span<std::byte> into, absl::Time deadline);
  bool PostControl(MessageKind kind, uint32_t id);
  uint16_t TakeOwedCredits();
  void Reposted();  // one more credit to give back
  void OnReceive(const ibv_wc& completion, uint32_t slot);
  void OnMessage(const MessageHeader& header, uint32_t slot);
  void OnFinish(uint32_t id);
  void BrokenProtocol(absl::string_view what);

  EndpointHost& host_;
  const int peer_;
  absl::Status status_;
  bool peer_closed_ = false;
  std::unique_ptr<verbs::QueuePair> qp_;
  std::unique_ptr<MessageBuffers> buffers_;
  uint32_t send_depth_ = 0;
  uint32_t receive_depth_ = 0;
  uint32_t eager_bytes_max_ = 0;
  uint32_t credit_threshold_ = 1;

  // Work requests posted and completed; of these on control slots, messages, and READs of messages.
  uint64_t posted_ = 0, completed_ = 0;
  uint64_t control_posted_ = 0, control_completed_ = 0;
  uint64_t messages_posted_ = 0, messages_completed_ = 0;
  uint64_t reads_posted_ = 0, reads_completed_ = 0;
  Ticket last_ticket_ = 0, done_ticket_ = 0;

  uint32_t credits_ = 0;       // how many messages and immediates the peer has receives for
  uint32_t peer_depth_ = 0;    // what credits_ started with, and never exceeds
  uint32_t owed_credits_ = 0;  // receives posted again that the peer does not know of

  uint32_t next_send_id_ = 0, next_receive_id_ = 0;
  bool finish_awaited_ = false;
  uint32_t finish_id_ = 0;
  std::vector<SelfCopy> self_copies_;

  std::vector<Incoming> arrived_;  // a ring, as large as there are receives
  uint64_t arrived_head_ = 0, arrived_tail_ = 0;
};

}  // namespace sumac::transport
