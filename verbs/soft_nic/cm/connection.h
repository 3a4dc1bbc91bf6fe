// One end of one connection of the connection manager, or of one lookup of a UD service: the states
// of IBTA vol. 1, 12.9, and of SIDR, 12.11.
//
// Sans-IO: messages and time are passed in, messages to send and events come out through `Output`,
// at once. The agent owns it, finds it for each message and calls OnTimeout when NextTimeout() has
// come. Not for several threads at once.
//
// A message that asks for an answer (REQ, REP, DREQ, SIDR_REQ) is sent again until the answer is
// there: first after kFirstResend, then twice as long each time, up to kResponseTime. That is
// sooner than the response time which is announced, because what answers here are processes which
// come and go; a peer that needs longer says MRA. Every wait has an end.
#pragma once

#include <chrono>
#include <cstdint>

#include "verbs/soft_nic/engine/ports.h"
#include "verbs/soft_nic/wire/cm_message.h"

namespace sumac::soft_nic {

enum class ConnectionEvent : uint8_t {
  kReplied,  // active: REP is here, MakeReady is wanted; UD: the service was found, and it is over
  kEstablished,   // passive: the peer is ready
  kRejected,      // by a REJ
  kUnreachable,   // no answer, or a UD service that refuses: `status`
  kDisconnected,  // the peer wants to, or answered us, or answers no more
  kOver,          // no packet of it can be on its way any more
};

class Connection {
 public:
  static constexpr uint8_t kResponseTimeout =
      20;  // 4.096 us * 2^20 = 4.3 s, as the kernel announces
  static constexpr Duration kResponseTime = std::chrono::milliseconds(4295);
  static constexpr Duration kFirstResend = std::chrono::milliseconds(250);  // and up to 63 more
  static constexpr int kRetriesMax = 15;
  static constexpr int kDisconnectRetriesMax = 7;
  static constexpr uint8_t kProcessingTimeout = 24;     // of our MRA: 69 s, as the kernel's
  static constexpr uint8_t kProcessingTimeoutMax = 25;  // of a peer's, whatever it says: 137 s
  static constexpr Duration kTimeWait = std::chrono::seconds(1);

  enum class State : uint8_t {
    kIdle,
    kRequestSent,
    kRequestReceived,
    kReplySent,
    kReplyReceived,
    kEstablished,
    kDisconnectSent,
    kDisconnectReceived,
    kServiceAnswered,  // UD: kept to answer a repeated question
    kTimeWait,
    kClosed,
  };

  class Output {
   public:
    virtual ~Output() = default;
    virtual void Transmit(const CmMessage& message) = 0;
    // `status`: a REJ's reason, a negative errno, or SIDR's status; else 0. `message`: what brought
    // it; null when time did.
    virtual void Raise(ConnectionEvent event, int status, const CmMessage* message) = 0;
  };

  // `psn`: where the packets that we get are to start.
  Connection(uint32_t local_id, uint32_t psn) : local_id_(local_id), psn_(psn) {}

  // Active: sends REQ or SIDR_REQ. IDs, PSN, timeouts and retries are filled in here.
  void Connect(CmMessage request, Time now, Output& out);
  // Passive: takes a REQ or SIDR_REQ that arrived.
  void TakeRequest(const CmMessage& request);

  // False: not in a state for it.
  [[nodiscard]] bool Accept(CmMessage reply, Time now, Output& out);  // REP or SIDR_REP
  [[nodiscard]] bool MakeReady(Output& out);                          // RTU
  // REJ or the refusing SIDR_REP: reason and private data of `rejection`.
  [[nodiscard]] bool Reject(CmMessage rejection, Output& out);
  // A packet of the connection proves that the peer is ready, though its RTU is not here.
  [[nodiscard]] bool Establish(Output& out);
  [[nodiscard]] bool Disconnect(Time now, Output& out);
  // Its user is gone: says so to the peer, and raises nothing from now on. Closed at once, or when
  // the peer has answered.
  void Abandon(Time now, Output& out);

  void OnMessage(const CmMessage& message, Time now, Output& out);
  void OnTimeout(Time now, Output& out);
  Time NextTimeout() const { return next_timeout_; }

  State state() const { return state_; }
  bool active() const { return active_; }
  bool datagram() const { return request_.kind == CmKind::kServiceRequest; }
  uint32_t local_id() const { return local_id_; }
  uint32_t remote_id() const { return remote_id_; }
  uint32_t psn() const { return psn_; }
  // What was asked and answered; the side that got it has the peer's values in it.
  const CmMessage& request() const { return request_; }
  const CmMessage& reply() const { return reply_; }

 private:
  CmMessage New(CmKind kind) const;
  void SendAndWait(const CmMessage& message, int retries, Time now, Output& out);
  void Raise(ConnectionEvent event, int status, const CmMessage* message, Output& out);
  void Close();
  void StartTimeWait(Time now);
  void OnRequestAgain(Output& out);
  void OnReply(const CmMessage& message, Output& out);
  void OnReject(const CmMessage& message, Output& out);
  void OnProcessing(const CmMessage& message, Time now);
  void OnDisconnectRequest(const CmMessage& message, Time now, Output& out);
  void GiveUp(Time now, Output& out);

  const uint32_t local_id_;
  const uint32_t psn_;
  State state_ = State::kIdle;
  bool active_ = false;
  bool abandoned_ = false;
  uint32_t remote_id_ = 0;
  CmMessage request_;
  CmMessage reply_;
  CmMessage waiting_;  // sent again at next_timeout_
  uint64_t disconnect_transaction_ = 0;
  int retries_left_ = 0;
  Duration interval_{};
  Time next_timeout_ = kNever;
};

}  // namespace sumac::soft_nic
