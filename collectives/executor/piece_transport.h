// How pieces of blocks travel between ranks: one FIFO of slots a directed pair of ranks.
//
// The executor's only view of the network. Implemented over a runtime::Domain (domain_transport.h)
// and, for tests, in memory (fake_transport.h). Owned by the communicator; used by its thread.
// Only Connect and Wait block. Failure: absl::Status; after the first one the transport is of no
// more use.
// Hot path: CanSend, Send, Released, Front and Pop allocate nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "collectives/schedule/hazards.h"
#include "collectives/schedule/schedule.h"

namespace sumac::collectives {

class PieceTransport {
 public:
  virtual ~PieceTransport() = default;

  // The largest piece, in bytes; equal on all ranks.
  virtual size_t piece_bytes_max() const = 0;
  // Pieces up to this size are copied by Send; larger ones are read in place until released.
  virtual size_t copied_bytes_max() const = 0;

  // Makes ready to talk to the peers of these lanes (those that are new). Collective among them.
  virtual absl::Status Connect(std::span<const Lane> lanes, absl::Time deadline) = 0;
  // Progresses the network until `done` says true. DeadlineExceeded, or why it can't any more.
  virtual absl::Status Wait(absl::FunctionRef<bool()> done, absl::Time deadline) = 0;
  // Small duties that found no room before.
  virtual absl::Status Poll() = 0;
  // The reason behind a failure, if this one has a better: a rank's death that broke a connection.
  virtual absl::Status RootCause(const absl::Status& status) = 0;

  // Names the memory that larger pieces of a buffer are sent from. Until Detach, which forgets
  // Input and Output.
  virtual absl::Status Attach(Buffer buffer, const void* addr, size_t bytes) = 0;
  virtual void Detach() = 0;
  // Memory for Temp, attached; stays until a call asks for more.
  virtual absl::StatusOr<std::byte*> TempMemory(size_t bytes) = 0;

  // Is there a free slot at `peer`, and room to post?
  virtual absl::StatusOr<bool> CanSend(int peer) = 0;
  // Sends one piece (1 ... piece_bytes_max bytes) of `buffer`; only after CanSend said yes.
  virtual absl::StatusOr<uint64_t> Send(int peer, Buffer buffer, const std::byte* data,
                                        size_t bytes) = 0;
  // May the source of that piece be written again? In order for one peer.
  virtual bool Released(int peer, uint64_t ticket) = 0;

  // The oldest piece that has come from `peer` and was not popped, or null.
  virtual const std::byte* Front(int peer) = 0;
  // Gives its slot back.
  virtual absl::Status Pop(int peer) = 0;
};

}  // namespace sumac::collectives
