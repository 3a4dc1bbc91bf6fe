// The requester of a reliable connection: sends posted requests, and completes them as the peer
// answers.
//
// Owned and called by QueuePair. Owner-only; time is passed in; no allocation after construction. A
// failure completes the oldest request with its status and sets failed(); the queue pair then
// flushes.
//
// Invariants, on 64-bit sequence numbers (queue_pair_parts.h): acked_ <= cursor_ <= highest_.
// Everything before acked_ has been acknowledged; cursor_ goes out next; what lies before highest_
// has been on the wire before, so sending it is a retransmission. Requests in [begin, assigned_) of
// the send queue have sequence numbers. acked_ lies in the oldest request, and never passes a READ
// or atomic whose answer has not come.
//
// A WRITE, READ or atomic that finds nothing unanswered before it may be carried out at once in the
// peer's memory, where that can be reached (DirectMemory): then it never gets a sequence number.
// What can't be done so goes out as packets, and everything behind it until those are answered.
//
// Loss: go back to acked_ on a sequence NAK, on a timeout, and, once per position, when an answer
// shows that a READ or atomic response was lost (implied NAK; IBTA vol. 1, 9.7.5.1.2 and 9.7.6).
#pragma once

#include <infiniband/verbs.h>
#include <sys/uio.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "verbs/soft_nic/engine/congestion_window.h"
#include "verbs/soft_nic/engine/queue_pair_parts.h"

namespace sumac::soft_nic {

class Requester {
 public:
  explicit Requester(QueuePairParts& parts);

  void Start();
  void Reset();
  // Completes everything that is posted with IBV_WC_WR_FLUSH_ERR.
  void Flush();

  // `packet` is an answer (kIsResponse).
  void OnResponse(const PacketView& packet, Time now);
  // Congestion notification packet (Annex A17): the network asks us to slow down.
  void OnCongestion(Time now) { window_.OnNotification(now); }
  void OnTimeout(Time now);
  Time NextTimeout() const {
    return std::min(std::min(ack_deadline_, probe_deadline_), rnr_deadline_);
  }

  // Sends at most *budget packets and counts it down. True when there is more to send now.
  [[nodiscard]] bool PollTransmit(TransmitSink& sink, Time now, uint32_t* budget);

  // Without packets or time: true when that was all there was to do.
  [[nodiscard]] bool RunAllDirect();

  // While draining no new request begins; drained() when all that began are complete.
  void SetDraining(bool draining) { draining_ = draining; }
  bool drained() const { return parts_.send_queue.begin() == assigned_ && direct_done_ == 0; }

  bool failed() const { return failed_; }
  uint32_t next_psn() const { return PsnOf(highest_); }

 private:
  // requester.cc: sending.
  bool MaySendNext();
  bool RunLocal();
  void Assign(SendRequest& request);
  bool BuildPacket(SendRequest& request, OutgoingPacket* packet);
  void BuildReadOrAtomic(const SendRequest& request, PacketHeader* header);
  void AfterTransmit(const SendRequest& request, Time now);
  bool SendProbe(TransmitSink& sink);
  void ArmTimers(Time now);
  void StopTimers();
  uint64_t SequenceAfterNext(const SendRequest& request) const;
  uint64_t ReadChunkEnd(const SendRequest& request, uint64_t sequence) const;
  uint64_t CostAt(const SendRequest& request, uint64_t sequence) const;
  uint64_t CursorCost();
  uint64_t AckedCost();

  // requester_direct.cc: without packets.
  bool RunDirect(uint32_t* budget);
  bool MayRunDirect() const;
  bool FitsDirect(const SendRequest& request) const;
  void NoteAssigned(const SendRequest& request);
  bool WaitsForDirect();
  bool DirectTurn(const SendRequest& request);
  bool DirectAtomic(const SendRequest& request);

  // requester_responses.cc: what the answers do.
  bool Acknowledge(uint64_t to, Time now);
  void OnAcknowledge(const PacketHeader& header, uint64_t sequence, Time now);
  void OnNak(uint8_t syndrome, uint64_t sequence, Time now);
  void OnRnrNak(uint8_t code, uint64_t sequence, Time now);
  void OnReadResponse(const PacketView& packet, uint64_t sequence, Time now);
  void OnAtomicResponse(const PacketView& packet, uint64_t sequence, Time now);
  void OnProgress(uint64_t cost_before, uint64_t in_flight, Time now);
  void AnswerArrived(SendRequest& request, Time now);
  void OnMissingResponse(Time now);
  void SignalLoss();
  void Retry();
  void GoBack();
  void FailOldest(ibv_wc_status status);

  QueuePairParts& parts_;
  std::vector<iovec> pieces_;
  CongestionWindow window_;
  uint32_t mtu_ = 0;
  uint32_t chunk_packets_ = 1;
  Duration ack_timeout_{};

  uint64_t acked_ = 0;
  uint64_t cursor_ = 0;
  uint64_t highest_ = 0;
  uint64_t cursor_index_ = 0;  // send queue index of the request that cursor_ lies in
  uint64_t assigned_ = 0;      // send queue index of the first request without sequence numbers
  uint64_t cost_total_ = 0;    // cost of all assigned requests
  uint64_t last_read_end_ =
      0;                      // end of the youngest assigned READ or atomic: what a fence waits for
  uint64_t direct_done_ = 0;  // bytes of the oldest request that are in the peer's memory, or here
  uint64_t by_packets_ = ~uint64_t{0};  // send queue index of a request that must be packets
  uint64_t try_direct_again_ = 0;  // send queue index from which a wait for the direct path is due
  uint32_t direct_refusals_ = 0;   // in a row
  uint64_t unsuited_end_ = 0;      // behind the youngest assigned request that had to be packets
  uint64_t missing_at_ = 0;        // position for which a missing response was already re-requested
  uint64_t recover_ = 0;           // losses before this sequence belong to a window already cut
  uint32_t reads_in_flight_ = 0;
  uint32_t since_ack_request_ = 0;
  ibv_wc_status stalled_ =
      IBV_WC_SUCCESS;  // the request at the cursor failed here; older ones finish first
  uint8_t retries_left_ = 0;
  uint8_t rnr_retries_left_ = 0;
  bool failed_ = false;
  bool draining_ = false;
  Time ack_deadline_ = kNever;
  Time probe_deadline_ = kNever;
  Duration probe_wait_{};  // before the next probe; 0: no probes
  bool probe_due_ = false;
  Time rnr_deadline_ = kNever;  // not kNever: the peer asked us to wait
};

}  // namespace sumac::soft_nic
