// The responder of a reliable connection: carries out the peer's requests in order, exactly once,
// and answers.
//
// Owned and called by QueuePair. Owner-only; no clock; no allocation after construction. Answers
// are state, not a list: jobs for READ and atomic responses, and after them at most one ACK or NAK
// that covers everything received until it goes out (IBTA vol. 1, 9.7.5.1: coalesced
// acknowledgements). A fault answered with a fatal NAK sets failed(): the queue pair then goes to
// the error state, in which the responder still sends what it owes and repeats that NAK when the
// peer, not having seen it, asks again.
#pragma once

#include <infiniband/verbs.h>
#include <sys/uio.h>

#include <cstdint>

#include "verbs/soft_nic/engine/message_receiver.h"
#include "verbs/soft_nic/engine/queue_pair_parts.h"
#include "verbs/soft_nic/engine/response_queue.h"

namespace sumac::soft_nic {

class Responder {
 public:
  explicit Responder(QueuePairParts& parts);

  void Start();
  void Reset();
  // The queue pair left for the error state by no fault of the peer's: no more answers.
  void Stop();
  // Completes all posted buffers with IBV_WC_WR_FLUSH_ERR.
  void Flush();

  // The buffer of the message under way, if any, has gone: what comes of it is refused.
  void ForgetMessage() { receiver_.Abandon(); }

  // `packet` is a request (kIsRequest).
  void OnRequest(const PacketView& packet);
  // Sends at most *budget answers and counts it down. True when there is more to send now.
  [[nodiscard]] bool PollTransmit(TransmitSink& sink, uint32_t* budget);

  bool failed() const { return failed_; }
  uint8_t fatal_nak() const { return failed_ ? nak_syndrome_ : 0; }
  uint32_t expected_psn() const { return PsnOf(expected_); }

 private:
  using Outcome = RequestOutcome;

  // responder.cc: carrying out.
  Outcome Execute(const PacketView& packet);
  Outcome ExecuteRead(const PacketView& packet);
  Outcome ExecuteAtomic(const PacketView& packet);
  bool MayTakeAnotherRead() const;

  // responder_answers.cc: answering.
  void OnDuplicate(const PacketView& packet, uint64_t sequence);
  void Owe(uint8_t syndrome, uint64_t sequence);
  void Fail(uint8_t syndrome, uint64_t sequence, ibv_wc_status receive_status);
  bool SendJobs(TransmitSink& sink, uint32_t* budget);
  bool BuildResponse(const ResponseJob& job, OutgoingPacket* packet);
  bool SendAnswer(TransmitSink& sink, uint8_t syndrome, uint64_t sequence);

  QueuePairParts& parts_;
  MessageReceiver receiver_;
  ResponseQueue responses_;
  uint32_t mtu_ = 0;
  uint32_t reads_max_ = 0;

  uint64_t expected_ = 0;
  uint32_t msn_ = 0;  // messages completed, 24 bits on the wire

  bool ack_owed_ = false;
  bool nak_owed_ = false;
  uint8_t nak_syndrome_ = 0;
  uint64_t nak_sequence_ = 0;
  uint64_t dropped_end_ = 0;  // past the last packet that was dropped for coming too early
  bool out_of_step_ = false;  // a sequence or RNR NAK stands; silent until the expected PSN comes
  bool failed_ = false;
  iovec response_piece_{};
};

}  // namespace sumac::soft_nic
