// Messages: eager, rendezvous, and the credits that keep both from overrunning the peer.

#include <endian.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

#include "transport/reliable_endpoint.h"

namespace sumac::transport {
namespace {

constexpr size_t kReadBytesMax = size_t{1} << 30;
// A long message that is being taken ends by the device's doing alone. It gets this time from then
// on, whatever the caller's deadline, as it can't be stopped without ending the connection.
constexpr absl::Duration kTakeTimeout = absl::Seconds(10);
constexpr absl::Duration kFlushTimeout = absl::Seconds(1);
constexpr double kTakeBytesPerSecondMin = 50e6;
// How long a sender that gives up a long message tries to say so.
constexpr absl::Duration kGoodbyeTimeout = absl::Milliseconds(100);

}  // namespace

// --- Sending

bool ReliableEndpoint::CanSendMessage() const {
  return credits_ > 0 && room() > 0 && messages_posted_ - messages_completed_ < buffers_->sends();
}

absl::Status ReliableEndpoint::WaitToSend(absl::Time deadline) {
  if (!status_.ok() || peer_closed_) return Usable();
  if (CanSendMessage()) return absl::OkStatus();
  const auto status = host_.worker->Wait(
      [this] { return CanSendMessage() || !status_.ok() || peer_closed_; }, deadline);
  if (!status_.ok() || peer_closed_) return Usable();
  return Annotate(status, "waiting for credits to send to");
}

void ReliableEndpoint::PostMessage(MessageHeader header, std::span<const std::byte> body) {
  const uint32_t slot = static_cast<uint32_t>(messages_posted_ % buffers_->sends());
  header.credits = TakeOwedCredits();
  header.id = next_send_id_;
  std::byte* const bytes = buffers_->send(slot);
  Encode(header, bytes);
  if (!body.empty()) std::memcpy(bytes + header.bytes(), body.data(), body.size());
  ibv_sge sge{reinterpret_cast<uint64_t>(bytes),
              static_cast<uint32_t>(header.bytes() + body.size()), buffers_->lkey()};
  ibv_send_wr request{};
  request.opcode = IBV_WR_SEND;
  request.sg_list = &sge;
  request.num_sge = 1;
  if (sge.length <= qp_->max_inline_bytes()) request.send_flags = IBV_SEND_INLINE;
  if (PostSend(request, WorkKind::kMessage, slot) != 0) return;
  ++messages_posted_;
  ++next_send_id_;
  --credits_;
}

absl::Status ReliableEndpoint::Send(std::span<const std::byte> message, absl::Time deadline) {
  if (auto status = WaitToSend(deadline); !status.ok()) return status;
  if (message.size() > eager_bytes_max_) {
    return peer_ == host_.worker->bootstrap().rank() ? SendLongToSelf(message)
                                                     : SendLong(message, deadline);
  }
  MessageHeader header;
  header.length = message.size();
  PostMessage(header, message);
  return status_;
}

absl::Status ReliableEndpoint::SendLong(std::span<const std::byte> message, absl::Time deadline) {
  // Only read from, so it may be memory that this process may not write.
  auto region = verbs::MemoryRegion::Register(host_.pd, const_cast<std::byte*>(message.data()),
                                              message.size(), IBV_ACCESS_REMOTE_READ);
  if (!region.ok()) return region.status();
  MessageHeader header;
  header.kind = MessageKind::kRendezvous;
  header.length = message.size();
  header.address = reinterpret_cast<uint64_t>(message.data());
  header.rkey = (*region)->rkey();
  finish_id_ = next_send_id_;
  finish_awaited_ = true;
  PostMessage(header, {});
  auto status = host_.worker->Wait(
      [this] { return !finish_awaited_ || !status_.ok() || peer_closed_; }, deadline);
  if (!finish_awaited_) return absl::OkStatus();
  if (status.ok()) status = Usable();
  status = Annotate(status, "waiting for a long message to be received by");
  // The peer may be reading from the caller's bytes just now: only an error of the queue pair ends
  // that for sure. Said before, so that the peer does not take our silence for our death.
  if (Usable().ok()) {
    SendClose();
    (void)host_.worker->Wait([this] { return drained(); }, absl::Now() + kGoodbyeTimeout);
  }
  Fail(status);
  return status;
}

absl::Status ReliableEndpoint::SendLongToSelf(std::span<const std::byte> message) {
  SelfCopy copy;
  copy.id = next_send_id_;
  copy.bytes.assign(message.begin(), message.end());
  auto region = verbs::MemoryRegion::Register(host_.pd, copy.bytes.data(), copy.bytes.size(),
                                              IBV_ACCESS_REMOTE_READ);
  if (!region.ok()) return region.status();
  copy.region = *std::move(region);
  MessageHeader header;
  header.kind = MessageKind::kRendezvous;
  header.length = message.size();
  header.address = reinterpret_cast<uint64_t>(copy.bytes.data());
  header.rkey = copy.region->rkey();
  self_copies_.push_back(std::move(copy));
  PostMessage(header, {});
  return status_;
}

// --- Control messages and credits

uint16_t ReliableEndpoint::TakeOwedCredits() {
  return static_cast<uint16_t>(std::exchange(owed_credits_, 0));
}

bool ReliableEndpoint::PostControl(MessageKind kind, uint32_t id) {
  if (!status_.ok() || peer_closed_) return false;
  if (control_posted_ - control_completed_ == kControlDepth) return false;
  const uint32_t slot = static_cast<uint32_t>(control_posted_ % kControlDepth);
  MessageHeader header;
  header.kind = kind;
  header.credits = TakeOwedCredits();
  header.id = id;
  std::byte* const bytes = buffers_->control(slot);
  Encode(header, bytes);
  ibv_sge sge{reinterpret_cast<uint64_t>(bytes), kMessageHeaderBytes, buffers_->lkey()};
  ibv_send_wr request{};
  request.opcode = IBV_WR_SEND;
  request.sg_list = &sge;
  request.num_sge = 1;
  if (sge.length <= qp_->max_inline_bytes()) request.send_flags = IBV_SEND_INLINE;
  if (PostSend(request, WorkKind::kControl, slot) != 0) return false;
  ++control_posted_;
  return true;
}

void ReliableEndpoint::Reposted() {
  ++owed_credits_;
  if (owed_credits_ >= credit_threshold_) (void)PostControl(MessageKind::kCredit, 0);
}

void ReliableEndpoint::SendClose() { (void)PostControl(MessageKind::kClose, 0); }

// --- Receiving

void ReliableEndpoint::BrokenProtocol(absl::string_view what) {
  Fail(absl::DataLossError(
      absl::StrCat(Where(), " sent ", what, "; do all ranks run the same version?")));
}

void ReliableEndpoint::OnReceive(const ibv_wc& completion, uint32_t slot) {
  if (completion.opcode == IBV_WC_RECV_RDMA_WITH_IMM) {
    PostReceive(slot);
    Reposted();
    if (host_.on_immediate) host_.on_immediate(peer_, be32toh(completion.imm_data));
    return;
  }
  const auto header = Decode({buffers_->receive(slot), completion.byte_len});
  if (!header) return BrokenProtocol("a malformed message");
  if (header->credits > peer_depth_ - credits_) return BrokenProtocol("more credits than it had");
  credits_ += header->credits;
  OnMessage(*header, slot);
}

void ReliableEndpoint::OnMessage(const MessageHeader& header, uint32_t slot) {
  switch (header.kind) {
    case MessageKind::kEager:
    case MessageKind::kRendezvous:
      if (header.id != next_receive_id_) return BrokenProtocol("a message out of order");
      ++next_receive_id_;
      arrived_[arrived_tail_++ % arrived_.size()] = {header, slot};
      return;
    case MessageKind::kFinish:
      OnFinish(header.id);
      break;
    case MessageKind::kClose:
      peer_closed_ = true;
      break;
    case MessageKind::kCredit:
      break;
  }
  PostReceive(slot);
}

void ReliableEndpoint::OnFinish(uint32_t id) {
  const auto copy = std::find_if(self_copies_.begin(), self_copies_.end(),
                                 [id](const SelfCopy& each) { return each.id == id; });
  if (copy != self_copies_.end()) {
    self_copies_.erase(copy);
  } else if (finish_awaited_ && id == finish_id_) {
    finish_awaited_ = false;
  } else {
    BrokenProtocol("a confirmation of nothing");
  }
}

absl::StatusOr<size_t> ReliableEndpoint::Receive(std::span<std::byte> buffer, absl::Time deadline) {
  const auto arrived = [this] { return arrived_head_ != arrived_tail_; };
  if (!arrived()) {
    const auto status =
        host_.worker->Wait([&] { return arrived() || !status_.ok() || peer_closed_; }, deadline);
    if (!arrived()) {
      if (!status_.ok() || peer_closed_) return Usable();
      return Annotate(status, "waiting for a message from");
    }
  }
  const Incoming incoming = arrived_[arrived_head_ % arrived_.size()];
  const uint64_t length = incoming.header.length;
  if (length > buffer.size()) {
    return absl::OutOfRangeError(absl::StrCat("the next message of rank ", peer_, " has ", length,
                                              " bytes, the buffer ", buffer.size()));
  }
  if (incoming.header.kind == MessageKind::kRendezvous) {
    if (auto status = TakeLong(incoming, buffer.first(length), deadline); !status.ok()) {
      return status;
    }
  } else if (length > 0) {
    std::memcpy(buffer.data(), buffers_->receive(incoming.slot) + kMessageHeaderBytes, length);
  }
  ++arrived_head_;
  if (status_.ok()) {  // a message may be taken after the connection broke
    PostReceive(incoming.slot);
    Reposted();
  }
  return length;
}

absl::Status ReliableEndpoint::TakeLong(const Incoming& incoming, std::span<std::byte> into,
                                        absl::Time deadline) {
  if (auto usable = Usable(); !usable.ok()) return usable;
  auto region =
      verbs::MemoryRegion::Register(host_.pd, into.data(), into.size(), IBV_ACCESS_LOCAL_WRITE);
  if (!region.ok()) return region.status();
  deadline = std::max(deadline,
                      absl::Now() + kTakeTimeout +
                          absl::Seconds(static_cast<double>(into.size()) / kTakeBytesPerSecondMin));
  const auto settle = [&](absl::FunctionRef<bool()> done) {
    const auto status = host_.worker->Wait([&] { return done() || !status_.ok(); }, deadline);
    if (!status.ok()) Fail(Annotate(status, "reading a long message of"));
  };
  for (size_t done = 0; done < into.size() && status_.ok();) {
    settle([this] { return room() > 0; });
    if (!status_.ok()) break;
    const size_t piece = std::min(into.size() - done, kReadBytesMax);
    ibv_sge sge{reinterpret_cast<uint64_t>(into.data() + done), static_cast<uint32_t>(piece),
                (*region)->lkey()};
    ibv_send_wr request{};
    request.opcode = IBV_WR_RDMA_READ;
    request.sg_list = &sge;
    request.num_sge = 1;
    request.wr.rdma.remote_addr = incoming.header.address + done;
    request.wr.rdma.rkey = incoming.header.rkey;
    if (PostSend(request, WorkKind::kMessageRead, 0) == 0) ++reads_posted_;
    done += piece;
  }
  settle([this] { return reads_posted_ == reads_completed_; });
  // After an error everything flushes by itself, and the buffer is the caller's again only then; or
  // when its registration ends, should the device not even flush.
  const absl::Time flushed_by = absl::Now() + kFlushTimeout;
  while (reads_posted_ != reads_completed_ && absl::Now() < flushed_by) {
    (void)host_.worker->Progress();
  }
  if (!status_.ok()) return status_;
  settle([this] { return control_posted_ - control_completed_ < kControlDepth; });
  (void)PostControl(MessageKind::kFinish, incoming.header.id);
  return status_;
}

}  // namespace sumac::transport
