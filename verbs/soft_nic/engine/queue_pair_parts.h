// What the requester and the responder of one queue pair share: configuration, queues, ports and
// counters.
//
// Owned by QueuePair; owner-only except the two rings (see send_queue.h, receive_queue.h).
#pragma once

#include <cstdint>

#include "verbs/soft_nic/engine/ports.h"
#include "verbs/soft_nic/engine/queue_pair.h"
#include "verbs/soft_nic/engine/receive_queue.h"
#include "verbs/soft_nic/engine/send_queue.h"
#include "verbs/soft_nic/wire/psn.h"

namespace sumac::soft_nic {

class XrcSelection;

struct QueuePairParts {
  QueuePairLimits limits;
  Memory& memory;
  CompletionSink& send_completions;
  CompletionSink& receive_completions;
  SendQueue send_queue;
  ReceiveQueue receive_queue;
  Memory& receive_memory;  // for the buffers in it
  ReceiveConfig receive_config;
  SendConfig send_config;
  QueuePairCounters counters;
  bool paced = false;           // the program set a rate: everything goes out as packets
  XrcSelection* xrc = nullptr;  // of an XRC target: what memory and receives really are
};

// Inside the engine a PSN is a 64-bit sequence number that never wraps; its low 24 bits are the PSN
// on the wire.
inline constexpr uint64_t kSequenceOrigin = uint64_t{1} << 32;
constexpr uint64_t FirstSequence(uint32_t psn) { return kSequenceOrigin + (psn & kPsnMask); }
constexpr uint32_t PsnOf(uint64_t sequence) { return static_cast<uint32_t>(sequence) & kPsnMask; }
// The sequence number nearest to `near` that has this PSN (IBTA vol. 1, 9.7.1: half of the space
// lies before).
constexpr uint64_t ExtendPsn(uint32_t psn, uint64_t near) {
  return near + static_cast<int64_t>(PsnDiff(psn, PsnOf(near)));
}

// Packets of a message of `length` bytes; a message without bytes takes one.
constexpr uint32_t PacketsOf(uint64_t length, uint32_t mtu) {
  return length == 0 ? 1 : static_cast<uint32_t>((length + mtu - 1) / mtu);
}

}  // namespace sumac::soft_nic
