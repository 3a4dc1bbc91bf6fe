// The ends of work requests: the completion of the oldest send or receive of a queue pair.
//
// Called by whatever carries requests out (requester.h, message_receiver.h and the unreliable
// services). Owner-only; no allocation. A slot is free before its completion can be seen: whoever
// sees it may post at once.
#pragma once

#include <infiniband/verbs.h>

#include "verbs/soft_nic/engine/queue_pair_parts.h"

namespace sumac::soft_nic {

// Retires the oldest posted send. A success that nobody asked to be told of is not announced.
void CompleteOldestSend(QueuePairParts& parts, ibv_wc_status status);
void FlushSends(QueuePairParts& parts);

// Retires the oldest posted buffer with an error.
void FailOldestReceive(QueuePairParts& parts, ibv_wc_status status);
void FlushReceives(QueuePairParts& parts);

// Retires the oldest posted buffer with the message that `packet` ends. `completion` says what only
// the service knows (opcode, byte_len, src_qp, its flags); the rest is filled in here.
void CompleteOldestReceive(QueuePairParts& parts, const PacketView& packet, ibv_wc completion);

}  // namespace sumac::soft_nic
