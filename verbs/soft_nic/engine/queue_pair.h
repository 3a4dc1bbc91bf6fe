// A queue pair as a state machine: what it sends and what it makes of packets, for the transport
// services RC, UC, UD and XRC of RoCE v2 (transport_service.h).
//
// Deterministic: no socket, no clock, no thread, no allocation after construction. Called by the
// device's progress loop and by the simulator; calls the ports it was built with (engine/ports.h).
//
// Order of use, by the engine's owner (one thread at a time, see device/progress.h):
//   OnPacket / OnTimeout / OnDoorbell (after posts)  ->  PollTransmit until it says false  ->
//   NextTimeout
//
// Threads: PostSend (or StageSend and its like) may be called by one producer at a time and
// PostReceive by one producer at a time, each concurrently with the owner: both queues are
// single-producer single-consumer rings. Everything else is owner-only.
//
// Promises (IBTA vol. 1, chapters 9.7, 9.8 and 10): every posted work request completes exactly
// once and in order, unless it was unsignaled and succeeded; received bytes are in memory before
// the completion that announces them; a request with a bad key, range or right changes no byte.
// With RC nothing is lost and nothing is delivered twice; UC and UD deliver what arrives.
#pragma once

#include <infiniband/verbs.h>

#include <cstdint>
#include <memory>

#include "verbs/soft_nic/engine/congestion_window.h"
#include "verbs/soft_nic/engine/ports.h"

namespace sumac::soft_nic {

class SharedReceiveQueue;
class XrcQueues;

// Fixed at creation.
struct QueuePairLimits {
  ibv_qp_type type = IBV_QPT_RC;  // or IBV_QPT_{UC,UD,XRC_SEND,XRC_RECV}
  uint32_t qpn = 0;
  uint32_t max_send_wr = 128;
  uint32_t max_recv_wr = 128;
  uint32_t max_send_sge = 4;
  uint32_t max_recv_sge = 4;
  uint32_t max_inline_bytes = 256;
  bool signal_all = false;
  // Where buffers come from instead of PostReceive; outlives the queue pair. Both limits of
  // receives are then its.
  SharedReceiveQueue* shared_receives = nullptr;
  // XRC_RECV: those that packets name; outlive the queue pair. max_recv_sge is the most of any.
  XrcQueues* xrc_queues = nullptr;
  uint8_t max_dest_rd_atomic =
      16;  // responder memory taken at creation; caps ReceiveConfig's value
  // RC: the way to the peer's memory without packets; outlives the queue pair. Null: there is none.
  DirectMemory* direct = nullptr;
};

// Set on the way to RTR. UC has no use for the READ and RNR values; UD only for MTU (the port's),
// Q_Key, and of the path the source address and port.
struct ReceiveConfig {
  uint32_t qkey = 0;  // UD: what arriving packets must carry
  uint32_t remote_qpn = 0;
  uint32_t expected_psn = 0;
  uint32_t mtu_bytes = 1024;  // 256, 512, 1024, 2048, 4096
  uint8_t max_dest_rd_atomic =
      16;                      // how many READ/atomic requests of the peer we remember for replay
  uint8_t min_rnr_timer = 12;  // code of IBTA table 45: what our RNR NAKs ask the peer to wait
  int access_flags = 0;        // IBV_ACCESS_REMOTE_* that the peer may use on this queue pair
  Path path;
};

// Set on the way to RTS. UC and UD need the PSN only.
struct SendConfig {
  uint32_t first_psn = 0;
  uint8_t timeout = 14;        // 4.096 us * 2^timeout; 0 means never
  uint8_t retry_count = 7;     // retransmissions before IBV_WC_RETRY_EXC_ERR
  uint8_t rnr_retry = 7;       // 7 means without end
  uint8_t max_rd_atomic = 16;  // READ/atomic requests outstanding at once
  CongestionOptions congestion;
};

// Monotonic counts, owner-only; a copy is exported by the device.
struct QueuePairCounters {
  uint64_t packets_sent = 0;
  uint64_t packets_received = 0;
  uint64_t retransmitted_packets = 0;  // tail probes among them
  uint64_t tail_probes = 0;
  uint64_t timeouts = 0;
  uint64_t sequence_naks_sent = 0;
  uint64_t sequence_naks_received = 0;
  uint64_t implied_naks = 0;  // an answer showed that one before it was lost
  uint64_t rnr_naks_sent = 0;
  uint64_t rnr_naks_received = 0;
  uint64_t access_naks_sent = 0;
  uint64_t invalid_request_naks_sent = 0;
  uint64_t operation_naks_sent = 0;
  uint64_t duplicates_received = 0;
  uint64_t cnps_sent = 0;
  uint64_t cnps_received = 0;
  uint64_t dropped_wrong_state = 0;  // not connected, or the packet is for the other role
  uint64_t dropped_out_of_order = 0;
  uint64_t dropped_malformed = 0;  // well-formed packet, impossible here (ghost ACK, wrong length…)

  // UC and UD, which drop where RC answers.
  uint64_t dropped_no_receive = 0;
  uint64_t dropped_bad_key = 0;       // UC: a WRITE whose key, range or right refuses
  uint64_t dropped_bad_qkey = 0;      // UD
  uint64_t dropped_with_message = 0;  // UC: packets of a message of which another was dropped
  uint64_t messages_cut_short = 0;    // UC: begun, never ended: a gap, or one of the above
  uint64_t unsent_too_long = 0;       // UD: requests larger than the MTU

  // Requests carried out in the peer's memory, without packets, and their bytes.
  uint64_t direct_requests = 0;
  uint64_t direct_bytes = 0;
};

class QueuePair {
 public:
  QueuePair(const QueuePairLimits& limits, Memory& memory, CompletionSink& send_completions,
            CompletionSink& receive_completions);
  ~QueuePair();
  QueuePair(const QueuePair&) = delete;
  QueuePair& operator=(const QueuePair&) = delete;

  // --- Producers ---
  // One work request (wr.next is not followed). 0, or the errno that ibv_post_send documents:
  // EINVAL (state, opcode, lengths), ENOMEM (queue full). Inline data is copied before return.
  [[nodiscard]] int PostSend(const ibv_send_wr& wr);
  // Several work requests at once or none: those staged with 0 wait for CommitSends.
  [[nodiscard]] int StageSend(const ibv_send_wr& wr);
  void CommitSends();
  void DropSends();
  [[nodiscard]] int PostReceive(const ibv_recv_wr& wr);

  // --- Owner: state (the device validates ibv_modify_qp masks; here only the machine changes) ---
  void ToInit();
  void ToReadyToReceive(const ReceiveConfig& config);
  void ToReadyToSend(const SendConfig& config);
  // What the peer may do, and how long our RNR NAKs ask it to wait: may change while connected.
  void SetReceiveRights(int access_flags, uint8_t min_rnr_timer);
  void SetQkey(uint32_t qkey);
  // Paces everything that the queue pair sends; 0 (as after ToReset): as fast as it goes.
  void SetRateLimit(uint64_t bytes_per_second);
  // Send queue drained (ibv_qp_state SQD), as part of RTS: what has begun is completed and nothing
  // new begins, until it is unset. UC and UD do not drain.
  void SetDraining(bool draining);
  bool drained() const;
  // Flushes both queues with IBV_WC_WR_FLUSH_ERR as they drain; later posts flush too.
  void ToError(Time now);
  // XRC_RECV: `queue` is about to be destroyed. A message that has a buffer of it ends in an error
  // of the connection.
  void ForgetReceives(const SharedReceiveQueue& queue);
  // Forgets everything, without completions (ibv_modify_qp to RESET).
  void ToReset();
  ibv_qp_state state() const;
  // The syndrome of the NAK by which this side ended the connection; 0: it did not.
  uint8_t fatal_nak() const;

  // --- Owner: inputs ---
  // `packet` is addressed to this QPN, ICRC verified, and came from the path's peer, or, for UD,
  // from `source`.
  void OnPacket(const PacketView& packet, const Gid& source, Time now);
  void OnPacket(const PacketView& packet, Time now);
  void OnTimeout(Time now);
  // Something was posted, or the send side may go on: picks up new work requests (also flushes in
  // the error state).
  void OnDoorbell(Time now);

  // Carries out what was posted in the peer's memory, as far as that goes
  // (QueuePairLimits::direct), at most a turn's worth. True: nothing is left to do, and neither
  // time nor packets were needed. A shorter way for OnDoorbell and PollTransmit, which go on from
  // wherever it stops.
  [[nodiscard]] bool RunDirect();

  // --- Owner: outputs ---
  // Hands packets to `sink`: responses first (three quarters), then requests, at most `budget`
  // packets, so that queue pairs share the link fairly. True when there is more to send at `now`.
  [[nodiscard]] bool PollTransmit(TransmitSink& sink, Time now, uint32_t budget);
  // When OnTimeout is next due; kNever when no timer runs.
  Time NextTimeout() const;

  uint32_t qpn() const;
  const Path& path() const;
  const QueuePairCounters& counters() const;
  // For ibv_query_qp: what is configured, and the PSNs as they stand.
  const ReceiveConfig& receive_config() const;
  const SendConfig& send_config() const;
  uint32_t next_send_psn() const;
  uint32_t expected_psn() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sumac::soft_nic
