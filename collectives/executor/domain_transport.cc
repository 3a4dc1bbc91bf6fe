#include "collectives/executor/domain_transport.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "collectives/executor/execution.h"

namespace sumac::collectives {
namespace {

constexpr size_t kSlotAlignment = 64;
constexpr size_t kSlotBytesMax = size_t{1} << 30;  // a message may have 2^31 bytes at most
constexpr uint32_t kSlotsMax = 1024;               // well within a signal's increment of 16 bits
constexpr uint64_t kCopied = UINT64_MAX;           // ticket of a piece whose source is free at once

constexpr absl::Duration kLookupTurn = absl::Milliseconds(200);
// How long the news of a rank's death may be under way after what it broke was seen.
constexpr absl::Duration kNewsDelay = absl::Milliseconds(500);

template <class T>
void AppendLittleEndian(std::string& out, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) out.push_back(static_cast<char>(value >> (8 * i) & 0xff));
}

template <class T>
T TakeLittleEndian(absl::string_view& in) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) {
    value |= static_cast<T>(static_cast<unsigned char>(in[i])) << (8 * i);
  }
  in.remove_prefix(sizeof(T));
  return value;
}

}  // namespace

// What the two sides of a pair tell each other: 24 bytes little-endian, then (from the receiver)
// the capability on its inbox.
struct DomainTransport::Record {
  uint32_t signal = 0;
  uint32_t slots = 0;
  uint64_t slot_bytes = 0;
  uint64_t magic = kMagic;
  std::string capability = {};

  static constexpr uint64_t kMagic = 0x31'6c6c'6f63'7573;  // "sucoll1"
  static constexpr size_t kFixedBytes = 24;

  std::string Serialize() const {
    std::string out;
    AppendLittleEndian(out, magic);
    AppendLittleEndian(out, signal);
    AppendLittleEndian(out, slots);
    AppendLittleEndian(out, slot_bytes);
    return out + capability;
  }
};

absl::StatusOr<std::unique_ptr<DomainTransport>> DomainTransport::Create(
    runtime::Domain& domain, const DomainTransportOptions& options,
    std::shared_ptr<const BufferTable> buffers) {
  if (options.slot_bytes < kSlotAlignment || options.slot_bytes > kSlotBytesMax ||
      options.slot_bytes % kSlotAlignment != 0) {
    return absl::InvalidArgumentError(absl::StrCat("slot_bytes ", options.slot_bytes,
                                                   ": expected a multiple of ", kSlotAlignment,
                                                   " up to ", kSlotBytesMax));
  }
  if (options.slots_per_peer < 1 || options.slots_per_peer > kSlotsMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("slots_per_peer ", options.slots_per_peer, ": expected 1 ... ", kSlotsMax));
  }
  const absl::StatusOr<runtime::Signal> arrived = domain.CreateSignal();
  if (!arrived.ok()) return Annotate(arrived.status(), "a signal for arrivals");
  const absl::StatusOr<runtime::Signal> credits = domain.CreateSignal();
  if (!credits.ok()) return Annotate(credits.status(), "a signal for credits");
  DomainTransportOptions used = options;
  used.copied_bytes_max = std::min(used.copied_bytes_max, used.slot_bytes);
  return std::unique_ptr<DomainTransport>(
      new DomainTransport(domain, used, std::move(buffers), *arrived, *credits));
}

DomainTransport::DomainTransport(runtime::Domain& domain, const DomainTransportOptions& options,
                                 std::shared_ptr<const BufferTable> buffers,
                                 runtime::Signal arrived, runtime::Signal credits)
    : domain_(domain),
      options_(options),
      buffers_(std::move(buffers)),
      arrived_(arrived),
      credits_(credits),
      return_batch_(std::max<uint64_t>(1, options.slots_per_peer / 2)),
      outgoing_(domain.size()),
      incoming_(domain.size()) {}

std::string DomainTransport::Key(const char* what, int from, int to) const {
  return absl::StrCat("collectives/", options_.name, "/", what, "/", from, "-", to);
}

// All is published before anything is looked up, so that no two ranks wait for each other.
absl::Status DomainTransport::Connect(std::span<const Lane> lanes, absl::Time deadline) {
  absl::Status status;
  for (const Lane& lane : lanes) {
    if (lane.kind == LaneKind::kSend) status.Update(PublishOutgoing(lane.peer, deadline));
    if (lane.kind == LaneKind::kReceive) status.Update(PublishIncoming(lane.peer, deadline));
  }
  for (const Lane& lane : lanes) {
    if (!status.ok()) return status;
    if (lane.kind == LaneKind::kSend) status = ConnectOutgoing(lane.peer, deadline);
    if (lane.kind == LaneKind::kReceive) status = ConnectIncoming(lane.peer, deadline);
  }
  return status;
}

absl::Status DomainTransport::PublishOutgoing(int peer, absl::Time deadline) {
  Outgoing& out = outgoing_[peer];
  if (out.published) return absl::OkStatus();
  out.tickets.assign(options_.slots_per_peer, 0);
  absl::StatusOr<runtime::Segment> stage =
      domain_.Allocate(options_.copied_bytes_max * options_.slots_per_peer);
  if (!stage.ok()) return Annotate(stage.status(), "memory to send small pieces from");
  out.stage = std::move(*stage);
  const Record record{credits_.id, options_.slots_per_peer, options_.slot_bytes};
  out.published = true;
  return domain_.worker().bootstrap().Publish(Key("credits", domain_.rank(), peer),
                                              record.Serialize(), deadline - absl::Now());
}

absl::Status DomainTransport::PublishIncoming(int peer, absl::Time deadline) {
  Incoming& in = incoming_[peer];
  if (in.published) return absl::OkStatus();
  const size_t bytes = options_.slot_bytes * options_.slots_per_peer;
  absl::StatusOr<runtime::Segment> inbox = domain_.Allocate(bytes);
  if (!inbox.ok()) return Annotate(inbox.status(), absl::StrCat("an inbox for rank ", peer));
  in.inbox = std::move(*inbox);
  absl::StatusOr<runtime::Grant> grant = domain_.MakeGrant(*in.inbox, 0, bytes, runtime::kRightPut);
  if (!grant.ok()) return Annotate(grant.status(), absl::StrCat("an inbox for rank ", peer));
  in.grant = std::move(*grant);
  Record record{arrived_.id, options_.slots_per_peer, options_.slot_bytes};
  record.capability = in.grant->capability().Serialize();
  in.published = true;
  return domain_.worker().bootstrap().Publish(Key("inbox", peer, domain_.rank()),
                                              record.Serialize(), deadline - absl::Now());
}

// In short turns: a peer may first have to end an operation that needs our progress, and it may
// die.
absl::StatusOr<std::string> DomainTransport::LookupWhileAlive(const std::string& key,
                                                              absl::Time deadline) {
  transport::Bootstrap& bootstrap = domain_.worker().bootstrap();
  for (;;) {
    const absl::Duration turn = std::min(deadline - absl::Now(), kLookupTurn);
    absl::StatusOr<std::string> value = bootstrap.Lookup(key, turn);
    if (value.ok() || value.status().code() != absl::StatusCode::kDeadlineExceeded) return value;
    if (bootstrap.failed()) return bootstrap.failure();
    if (absl::Now() >= deadline) return value;
    domain_.Progress();
  }
}

absl::StatusOr<DomainTransport::Record> DomainTransport::LookupRecord(const std::string& key,
                                                                      int peer,
                                                                      absl::Time deadline) {
  const absl::StatusOr<std::string> value = LookupWhileAlive(key, deadline);
  if (!value.ok()) return Annotate(value.status(), absl::StrCat("meeting rank ", peer));
  absl::string_view bytes = *value;
  Record record;
  if (bytes.size() < Record::kFixedBytes || TakeLittleEndian<uint64_t>(bytes) != Record::kMagic) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank ", peer, " sent a malformed record (", value->size(), " bytes)"));
  }
  record.signal = TakeLittleEndian<uint32_t>(bytes);
  record.slots = TakeLittleEndian<uint32_t>(bytes);
  record.slot_bytes = TakeLittleEndian<uint64_t>(bytes);
  record.capability = std::string(bytes);
  if (record.slots != options_.slots_per_peer || record.slot_bytes != options_.slot_bytes) {
    return absl::FailedPreconditionError(
        absl::StrCat("rank ", peer, " has ", record.slots, " slots of ", record.slot_bytes,
                     " bytes a peer, we ", options_.slots_per_peer, " of ", options_.slot_bytes,
                     ": give all ranks the same slots_per_peer and slot_bytes"));
  }
  return record;
}

absl::Status DomainTransport::ConnectOutgoing(int peer, absl::Time deadline) {
  Outgoing& out = outgoing_[peer];
  if (out.connected) return absl::OkStatus();
  const absl::StatusOr<Record> record =
      LookupRecord(Key("inbox", domain_.rank(), peer), peer, deadline);
  if (!record.ok()) return record.status();
  const absl::StatusOr<runtime::Capability> inbox = runtime::Capability::Parse(record->capability);
  if (!inbox.ok()) return Annotate(inbox.status(), absl::StrCat("the inbox of rank ", peer));
  out.inbox = *inbox;
  out.arrived = {peer, record->signal};
  const absl::StatusOr<uint32_t> room = domain_.SignalRoom(peer);  // connects
  if (!room.ok()) return room.status();
  out.connected = true;
  send_peers_.push_back(peer);
  return absl::OkStatus();
}

absl::Status DomainTransport::ConnectIncoming(int peer, absl::Time deadline) {
  Incoming& in = incoming_[peer];
  if (in.connected) return absl::OkStatus();
  const absl::StatusOr<Record> record =
      LookupRecord(Key("credits", peer, domain_.rank()), peer, deadline);
  if (!record.ok()) return record.status();
  in.credits = {peer, record->signal};
  const absl::StatusOr<uint32_t> room = domain_.SignalRoom(peer);
  if (!room.ok()) return room.status();
  in.connected = true;
  receive_peers_.push_back(peer);
  return absl::OkStatus();
}

absl::Status DomainTransport::Wait(absl::FunctionRef<bool()> done, absl::Time deadline) {
  return domain_.Wait(done, deadline);
}

absl::Status DomainTransport::Poll() {
  for (const int peer : send_peers_) {  // a broken connection completes nothing: ask it
    const Outgoing& out = outgoing_[peer];
    const uint64_t last = (out.sent + options_.slots_per_peer - 1) % options_.slots_per_peer;
    if (out.sent == 0 || domain_.Done(peer, out.tickets[last])) continue;
    const absl::StatusOr<uint32_t> room = domain_.SignalRoom(peer);
    if (!room.ok()) return room.status();
  }
  for (const int peer : receive_peers_) {  // nor will anything come over one
    const absl::StatusOr<uint32_t> room = domain_.SignalRoom(peer);
    if (!room.ok()) return room.status();
    const Incoming& in = incoming_[peer];
    if (in.popped - in.returned < return_batch_) continue;
    if (absl::Status status = ReturnSlots(peer); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status DomainTransport::RootCause(const absl::Status& status) {
  const transport::Bootstrap& bootstrap = domain_.worker().bootstrap();
  // What a rank that takes its memory away breaks is often seen before the news of why it did so.
  const bool may_be_fallout = absl::IsPermissionDenied(status) || absl::IsUnavailable(status);
  const absl::Time news_by = may_be_fallout ? absl::Now() + kNewsDelay : absl::InfinitePast();
  while (!bootstrap.failed() && absl::Now() < news_by) absl::SleepFor(absl::Milliseconds(1));
  if (!bootstrap.failed() ||
      transport::FailedRankOf(status) == transport::FailedRankOf(bootstrap.failure())) {
    return status;
  }
  // A rank that saw the death first may have left already, and broken its connection to us.
  absl::Status cause = bootstrap.failure();
  return Annotate(cause, absl::StrCat(status.message(), "; the reason"));
}

absl::Status DomainTransport::Attach(Buffer buffer, const void* addr, size_t bytes) {
  if (buffers_ != nullptr && buffers_->Find(addr, bytes) != nullptr) return absl::OkStatus();
  const auto* begin = static_cast<const std::byte*>(addr);
  for (const Attached& other : attached_) {  // in place: registered already
    if (other.registration && begin >= other.addr && begin + bytes <= other.addr + other.bytes) {
      return absl::OkStatus();
    }
  }
  // Registered for local use: only read.
  absl::StatusOr<runtime::Registration> registration =
      domain_.Register(const_cast<void*>(addr), bytes);
  if (!registration.ok()) return registration.status();
  Attached& attached = attached_[buffer == Buffer::kInput ? 0 : 1];
  attached.addr = begin;
  attached.bytes = bytes;
  attached.registration = std::move(*registration);
  return absl::OkStatus();
}

void DomainTransport::Detach() {
  for (Attached& attached : attached_) attached.registration.reset();
}

absl::StatusOr<std::byte*> DomainTransport::TempMemory(size_t bytes) {
  if (!temp_ || temp_->size() < bytes) {
    temp_.reset();
    absl::StatusOr<runtime::Segment> segment = domain_.Allocate(bytes);
    if (!segment.ok()) return segment.status();
    temp_ = std::move(*segment);
  }
  return temp_->data();
}

runtime::LocalSlice DomainTransport::SliceOf(Buffer buffer, const std::byte* data,
                                             size_t bytes) const {
  if (buffer == Buffer::kTemp) return temp_->Slice(data - temp_->data(), bytes);
  for (const Attached& attached : attached_) {
    if (attached.registration && data >= attached.addr &&
        data + bytes <= attached.addr + attached.bytes) {
      return attached.registration->Slice(data - attached.addr, bytes);
    }
  }
  const BufferTable::Entry* const entry =
      buffers_ != nullptr ? buffers_->Find(data, bytes) : nullptr;
  if (entry != nullptr) {
    return entry->segment->Slice(static_cast<size_t>(data - entry->begin), bytes);
  }
  return {};
}

absl::StatusOr<bool> DomainTransport::CanSend(int peer) {
  const Outgoing& out = outgoing_[peer];
  const uint64_t slots = options_.slots_per_peer;
  if (out.sent - domain_.SignalValue(credits_, peer) >= slots) return false;
  // The slot is free, so the piece before arrived; but only its completion frees its place in the
  // stage (the NIC might still send it again).
  if (out.sent >= slots && !domain_.Done(peer, out.tickets[out.sent % slots])) return false;
  const absl::StatusOr<uint32_t> room = domain_.SignalRoom(peer);
  if (!room.ok()) return room.status();
  return *room > 0;
}

absl::StatusOr<uint64_t> DomainTransport::Send(int peer, Buffer buffer, const std::byte* data,
                                               size_t bytes) {
  Outgoing& out = outgoing_[peer];
  const uint64_t slot = out.sent % options_.slots_per_peer;
  runtime::LocalSlice source;
  const bool copied = bytes <= options_.copied_bytes_max;
  if (copied) {
    source = out.stage->Slice(slot * options_.copied_bytes_max, bytes);
    std::memcpy(source.addr, data, bytes);
  } else {
    source = SliceOf(buffer, data, bytes);
    if (source.addr == nullptr) return absl::InternalError("a piece outside registered memory");
  }
  const absl::StatusOr<transport::Ticket> ticket =
      domain_.PutWithSignal(out.inbox, slot * options_.slot_bytes, source, out.arrived);
  if (!ticket.ok()) return ticket.status();
  out.tickets[slot] = *ticket;
  ++out.sent;
  return copied ? kCopied : *ticket;
}

bool DomainTransport::Released(int peer, uint64_t ticket) {
  return ticket == kCopied || domain_.Done(peer, ticket);
}

const std::byte* DomainTransport::Front(int peer) {
  const Incoming& in = incoming_[peer];
  if (domain_.SignalValue(arrived_, peer) <= in.popped) return nullptr;
  return in.inbox->data() + in.popped % options_.slots_per_peer * options_.slot_bytes;
}

absl::Status DomainTransport::Pop(int peer) {
  Incoming& in = incoming_[peer];
  ++in.popped;
  return in.popped - in.returned >= return_batch_ ? ReturnSlots(peer) : absl::OkStatus();
}

absl::Status DomainTransport::ReturnSlots(int peer) {
  Incoming& in = incoming_[peer];
  const absl::StatusOr<uint32_t> room = domain_.SignalRoom(peer);
  if (!room.ok()) return room.status();
  if (*room == 0) return absl::OkStatus();  // Poll tries again
  const auto slots = static_cast<uint16_t>(std::min<uint64_t>(in.popped - in.returned, kSlotsMax));
  const absl::StatusOr<transport::Ticket> ticket = domain_.RaiseSignal(in.credits, slots);
  if (!ticket.ok()) return ticket.status();
  in.returned += slots;
  return absl::OkStatus();
}

}  // namespace sumac::collectives
