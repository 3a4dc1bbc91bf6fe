// What sets the transport services of the InfiniBand architecture apart: how packets become
// completions and posted requests become packets. One implementation each: reliable_connection.h,
// extended_reliable_connection.h, unreliable_connection.h, unreliable_datagram.h.
//
// Owned and driven by QueuePair, which keeps what they have in common: state, queues, counters.
// Owner-only; time is passed in; no allocation after construction. One virtual call for a packet
// that comes, one for a turn of sending.
//
// A failure (a fatal NAK, a local key that refuses) sets failed(): the queue pair then goes to the
// error state and flushes. Reset clears it.
#pragma once

#include <infiniband/verbs.h>

#include <cstdint>
#include <memory>

#include "verbs/soft_nic/engine/queue_pair_parts.h"

namespace sumac::soft_nic {

class TransportService {
 public:
  virtual ~TransportService() = default;
  TransportService(const TransportService&) = delete;
  TransportService& operator=(const TransportService&) = delete;

  // The queue pair becomes ready to receive, or to send: the configuration in the parts is set.
  virtual void StartReceiving() = 0;
  virtual void StartSending() = 0;
  virtual void Reset() = 0;
  // The queue pair was sent to the error state from outside: nothing more goes out.
  virtual void Stop() {}
  // Completes everything that is posted with IBV_WC_WR_FLUSH_ERR.
  virtual void Flush() = 0;

  // `packet` has an opcode of this service. `source` is whom it came from.
  virtual void OnPacket(const PacketView& packet, const Gid& source, ibv_qp_state state,
                        Time now) = 0;
  virtual void OnCongestion(Time) {}
  virtual void OnTimeout(Time) {}
  // As QueuePair::PollTransmit; the state is one in which something may be sent.
  [[nodiscard]] virtual bool PollTransmit(TransmitSink& sink, ibv_qp_state state, Time now,
                                          uint32_t budget) = 0;
  virtual Time NextTimeout() const { return kNever; }
  // As QueuePair::RunDirect; in RTS.
  [[nodiscard]] virtual bool RunDirect() { return false; }

  // A shared receive queue that packets can name is about to be destroyed.
  virtual void ForgetReceives(const SharedReceiveQueue&) {}

  // Starts no new request while draining; what has begun goes on.
  virtual void SetDraining(bool) {}
  virtual bool drained() const { return true; }
  // The syndrome of the NAK that ended the connection; 0: none did.
  virtual uint8_t fatal_nak() const { return 0; }

  virtual uint32_t next_send_psn() const = 0;
  virtual uint32_t expected_psn() const = 0;

  bool failed() const { return failed_; }
  bool Speaks(Opcode opcode) const {
    return (static_cast<uint8_t>(opcode) & kTransportBits) == transport_bits_;
  }

 protected:
  // The top three bits of an opcode (IBTA vol. 1, table 38).
  static constexpr uint8_t kTransportBits = 0xe0;
  static constexpr uint8_t kReliableConnection = 0x00;
  static constexpr uint8_t kUnreliableConnection = 0x20;
  static constexpr uint8_t kUnreliableDatagram = 0x60;
  static constexpr uint8_t kExtendedReliableConnection = 0xa0;

  explicit TransportService(uint8_t transport_bits) : transport_bits_(transport_bits) {}

  bool failed_ = false;

 private:
  const uint8_t transport_bits_;
};

// The service of parts.limits.type.
std::unique_ptr<TransportService> MakeTransportService(QueuePairParts& parts);

}  // namespace sumac::soft_nic
