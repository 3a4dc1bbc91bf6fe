// Pieces over a runtime::Domain: a put with signal into the receiver's slots, and signals that give
// slots back.
//
// A directed pair a -> b has an inbox at b: slots_per_peer slots of slot_bytes in memory that b
// granted to puts. Piece k goes into slot k modulo slots_per_peer; its signal counts arrivals, as
// one pair's puts land in order. b raises a's credit signal for slots that are free again, several
// at once. Inboxes are made and exchanged when a pair first talks, through the bootstrap: never for
// pairs that don't.
//
// Small pieces are copied into a stage (registered once) so that a call on a small buffer registers
// nothing; larger ones are put from where they are, registered for this call only, unless they lie
// in a buffer of the communicator (Communicator::Allocate), which is registered for good. (A cache
// of registrations would go stale when the caller frees memory, and hardware would then put other
// bytes.)
//
// Owned by the communicator; must go before its domain. Threads: the domain's. Nothing from a peer
// can make it touch other memory: what a peer can do is write into its own inbox and raise
// counters.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "collectives/buffers.h"
#include "collectives/executor/piece_transport.h"
#include "runtime/domain.h"

namespace sumac::collectives {

struct DomainTransportOptions {
  std::string name;         // of the communicator; equal on all ranks
  size_t slot_bytes;        // 64 ... 1 GiB, a multiple of 64
  uint32_t slots_per_peer;  // 1 ... 1024
  size_t copied_bytes_max = 16 * 1024;
};

class DomainTransport final : public PieceTransport {
 public:
  // InvalidArgument: options out of range. `domain` must outlive it.
  // `buffers`: those of the communicator, or null.
  static absl::StatusOr<std::unique_ptr<DomainTransport>> Create(
      runtime::Domain& domain, const DomainTransportOptions& options,
      std::shared_ptr<const BufferTable> buffers);

  size_t piece_bytes_max() const override { return options_.slot_bytes; }
  size_t copied_bytes_max() const override { return options_.copied_bytes_max; }
  absl::Status Connect(std::span<const Lane> lanes, absl::Time deadline) override;
  absl::Status Wait(absl::FunctionRef<bool()> done, absl::Time deadline) override;
  absl::Status Poll() override;
  absl::Status RootCause(const absl::Status& status) override;
  absl::Status Attach(Buffer buffer, const void* addr, size_t bytes) override;
  void Detach() override;
  absl::StatusOr<std::byte*> TempMemory(size_t bytes) override;
  absl::StatusOr<bool> CanSend(int peer) override;
  absl::StatusOr<uint64_t> Send(int peer, Buffer buffer, const std::byte* data,
                                size_t bytes) override;
  bool Released(int peer, uint64_t ticket) override;
  const std::byte* Front(int peer) override;
  absl::Status Pop(int peer) override;

 private:
  // Us to a peer.
  struct Outgoing {
    bool published = false;
    bool connected = false;
    runtime::Capability inbox;  // at the peer
    runtime::Signal arrived;    // the peer's; raised with each piece
    std::optional<runtime::Segment> stage;
    std::vector<transport::Ticket> tickets;  // of the last slots_per_peer pieces
    uint64_t sent = 0;
  };
  // A peer to us. The segment goes after the grant.
  struct Incoming {
    bool published = false;
    bool connected = false;
    std::optional<runtime::Segment> inbox;
    std::optional<runtime::Grant> grant;
    runtime::Signal credits;  // the peer's; raised with each slot that is free again
    uint64_t popped = 0;
    uint64_t returned = 0;
  };
  struct Attached {
    const std::byte* addr = nullptr;
    size_t bytes = 0;
    std::optional<runtime::Registration> registration;
  };
  struct Record;

  DomainTransport(runtime::Domain& domain, const DomainTransportOptions& options,
                  std::shared_ptr<const BufferTable> buffers, runtime::Signal arrived,
                  runtime::Signal credits);
  std::string Key(const char* what, int from, int to) const;
  absl::Status PublishOutgoing(int peer, absl::Time deadline);
  absl::Status PublishIncoming(int peer, absl::Time deadline);
  absl::Status ConnectOutgoing(int peer, absl::Time deadline);
  absl::Status ConnectIncoming(int peer, absl::Time deadline);
  absl::StatusOr<std::string> LookupWhileAlive(const std::string& key, absl::Time deadline);
  absl::StatusOr<Record> LookupRecord(const std::string& key, int peer, absl::Time deadline);
  absl::Status ReturnSlots(int peer);
  // The registered bytes, or a slice with a null address.
  runtime::LocalSlice SliceOf(Buffer buffer, const std::byte* data, size_t bytes) const;

  runtime::Domain& domain_;
  const DomainTransportOptions options_;
  const std::shared_ptr<const BufferTable> buffers_;
  const runtime::Signal arrived_;  // ours: pieces that came, by peer
  const runtime::Signal credits_;  // ours: slots that peers gave back
  const uint64_t return_batch_;
  std::vector<Outgoing> outgoing_;  // by rank
  std::vector<Incoming> incoming_;
  std::vector<int> send_peers_;     // those of outgoing_ that are connected
  std::vector<int> receive_peers_;  // and of incoming_
  Attached attached_[2];            // Input, Output
  std::optional<runtime::Segment> temp_;
};

}  // namespace sumac::collectives
