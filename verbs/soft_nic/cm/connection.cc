#include "verbs/soft_nic/cm/connection.h"

#include <algorithm>
#include <cerrno>

namespace sumac::soft_nic {

CmMessage Connection::New(CmKind kind) const {
  CmMessage message;
  message.kind = kind;
  message.transaction_id = request_.transaction_id;
  message.local_id = local_id_;
  message.remote_id = remote_id_;
  return message;
}

void Connection::SendAndWait(const CmMessage& message, int retries, Time now, Output& out) {
  waiting_ = message;
  retries_left_ = retries;
  // Many connections that lost at once should not do everything at once again.
  interval_ = kFirstResend + std::chrono::milliseconds((local_id_ * 0x9e3779b1u) >> 26);
  next_timeout_ = now + interval_;
  out.Transmit(waiting_);
}

void Connection::Raise(ConnectionEvent event, int status, const CmMessage* message, Output& out) {
  if (!abandoned_) out.Raise(event, status, message);
}

void Connection::Close() {
  state_ = State::kClosed;
  next_timeout_ = kNever;
}

void Connection::StartTimeWait(Time now) {
  state_ = State::kTimeWait;
  next_timeout_ = now + kTimeWait;
}

void Connection::Connect(CmMessage request, Time now, Output& out) {
  active_ = true;
  request.local_id = local_id_;
  request.starting_psn = psn_;
  request.local_response_timeout = request.remote_response_timeout = kResponseTimeout;
  request.retries_max = kRetriesMax;
  request_ = request;
  state_ = State::kRequestSent;
  SendAndWait(request_, kRetriesMax, now, out);
}

void Connection::TakeRequest(const CmMessage& request) {
  request_ = request;
  remote_id_ = request.local_id;
  state_ = State::kRequestReceived;
}

bool Connection::Accept(CmMessage reply, Time now, Output& out) {
  if (state_ != State::kRequestReceived) return false;
  reply.transaction_id = request_.transaction_id;
  reply.local_id = local_id_;
  reply.remote_id = remote_id_;
  reply.starting_psn = psn_;
  reply_ = reply;
  if (datagram()) {
    state_ = State::kServiceAnswered;
    out.Transmit(reply_);
    return true;
  }
  state_ = State::kReplySent;
  SendAndWait(reply_, std::max<int>(request_.retries_max, 1), now, out);
  return true;
}

bool Connection::MakeReady(Output& out) {
  if (state_ != State::kReplyReceived) return false;
  state_ = State::kEstablished;
  next_timeout_ = kNever;
  out.Transmit(New(CmKind::kReady));
  return true;
}

bool Connection::Reject(CmMessage rejection, Output& out) {
  if (state_ != State::kRequestReceived && state_ != State::kReplyReceived &&
      state_ != State::kReplySent) {
    return false;
  }
  CmMessage message = New(datagram() ? CmKind::kServiceReply : CmKind::kReject);
  message.service_id = request_.service_id;
  message.status = kCmServiceRejected;
  message.about = state_ == State::kRequestReceived ? CmAbout::kRequest
                  : state_ == State::kReplyReceived ? CmAbout::kReply
                                                    : CmAbout::kOther;
  message.reason = rejection.reason;
  message.private_data = rejection.private_data;
  out.Transmit(message);
  Close();
  return true;
}

bool Connection::Establish(Output& out) {
  if (state_ != State::kReplySent) return state_ == State::kEstablished;
  state_ = State::kEstablished;
  next_timeout_ = kNever;
  Raise(ConnectionEvent::kEstablished, 0, nullptr, out);
  return true;
}

bool Connection::Disconnect(Time now, Output& out) {
  switch (state_) {
    case State::kEstablished:
    case State::kReplySent: {
      state_ = State::kDisconnectSent;
      CmMessage message = New(CmKind::kDisconnectRequest);
      message.qpn = active_ ? reply_.qpn : request_.qpn;
      SendAndWait(message, kDisconnectRetriesMax, now, out);
      return true;
    }
    case State::kDisconnectReceived: {
      CmMessage message = New(CmKind::kDisconnectReply);
      message.transaction_id = disconnect_transaction_;
      out.Transmit(message);
      StartTimeWait(now);
      return true;
    }
    default:
      return false;
  }
}

void Connection::Abandon(Time now, Output& out) {
  abandoned_ = true;
  CmMessage rejection;
  rejection.reason = kCmConsumerDefined;
  switch (state_) {
    case State::kRequestReceived:
    case State::kReplyReceived:
      (void)Reject(rejection, out);
      return;
    case State::kRequestSent:
      if (!datagram()) {
        CmMessage message = New(CmKind::kReject);
        message.about = CmAbout::kRequest;
        message.reason = kCmTimeout;
        out.Transmit(message);
      }
      Close();
      return;
    case State::kReplySent:
    case State::kEstablished:
    case State::kDisconnectReceived:
      (void)Disconnect(now, out);
      return;
    case State::kDisconnectSent:
    case State::kTimeWait:
      return;
    case State::kIdle:
    case State::kServiceAnswered:
    case State::kClosed:
      Close();
      return;
  }
}

void Connection::OnMessage(const CmMessage& message, Time now, Output& out) {
  // Who we talk to has one ID; only its first answer may tell it.
  const bool learns = state_ == State::kRequestSent;
  const bool is_question =
      message.kind == CmKind::kRequest || message.kind == CmKind::kServiceRequest;
  if (!learns && message.kind != CmKind::kServiceReply && message.local_id != remote_id_) return;
  if (is_question) return OnRequestAgain(out);
  switch (message.kind) {
    case CmKind::kReply:
    case CmKind::kServiceReply:
      return OnReply(message, out);
    case CmKind::kReject:
      return OnReject(message, out);
    case CmKind::kProcessing:
      return OnProcessing(message, now);
    case CmKind::kReady:
      if (state_ == State::kReplySent) (void)Establish(out);
      return;
    case CmKind::kDisconnectRequest:
      return OnDisconnectRequest(message, now, out);
    case CmKind::kDisconnectReply:
      if (state_ != State::kDisconnectSent) return;
      StartTimeWait(now);
      return Raise(ConnectionEvent::kDisconnected, 0, &message, out);
    default:
      return;
  }
}

void Connection::OnRequestAgain(Output& out) {
  if (state_ == State::kRequestReceived && !datagram()) {
    CmMessage message = New(CmKind::kProcessing);
    message.about = CmAbout::kRequest;
    message.service_timeout = kProcessingTimeout;
    out.Transmit(message);
  } else if (state_ == State::kReplySent || state_ == State::kServiceAnswered) {
    out.Transmit(reply_);
  }
}

void Connection::OnReply(const CmMessage& message, Output& out) {
  if (datagram() != (message.kind == CmKind::kServiceReply)) return;
  switch (state_) {
    case State::kRequestSent:
      reply_ = message;
      next_timeout_ = kNever;
      if (!datagram()) {
        remote_id_ = message.local_id;
        state_ = State::kReplyReceived;
        return Raise(ConnectionEvent::kReplied, 0, &message, out);
      }
      Close();
      if (message.status == kCmServiceValid) {
        return Raise(ConnectionEvent::kReplied, 0, &message, out);
      }
      return Raise(ConnectionEvent::kUnreachable, message.status, &message, out);
    case State::kReplyReceived: {
      CmMessage answer = New(CmKind::kProcessing);
      answer.about = CmAbout::kReply;
      answer.service_timeout = kProcessingTimeout;
      return out.Transmit(answer);
    }
    case State::kEstablished:
      if (active_ && !datagram()) out.Transmit(New(CmKind::kReady));  // the first one got lost
      return;
    default:
      return;
  }
}

void Connection::OnReject(const CmMessage& message, Output& out) {
  switch (state_) {
    case State::kRequestSent:
    case State::kRequestReceived:
    case State::kReplySent:
    case State::kReplyReceived:
      Close();
      return Raise(ConnectionEvent::kRejected, message.reason, &message, out);
    case State::kDisconnectSent:
      Close();  // the peer knows of no connection any more
      return Raise(ConnectionEvent::kDisconnected, 0, &message, out);
    default:
      return;
  }
}

void Connection::OnProcessing(const CmMessage& message, Time now) {
  const bool expected =
      (state_ == State::kRequestSent && message.about == CmAbout::kRequest && !datagram()) ||
      (state_ == State::kReplySent && message.about == CmAbout::kReply);
  if (!expected) return;
  const int exponent = std::min(message.service_timeout, kProcessingTimeoutMax);
  next_timeout_ = now + std::chrono::nanoseconds(int64_t{4096} << exponent) + kResponseTime;
}

void Connection::OnDisconnectRequest(const CmMessage& message, Time now, Output& out) {
  disconnect_transaction_ = message.transaction_id;
  switch (state_) {
    case State::kReplySent:
    case State::kEstablished:
      state_ = State::kDisconnectReceived;
      next_timeout_ = kNever;
      Raise(ConnectionEvent::kDisconnected, 0, &message, out);
      if (abandoned_) (void)Disconnect(now, out);
      return;
    case State::kDisconnectSent:
      // Both at once: each takes the other's as the answer, and answers.
      state_ = State::kDisconnectReceived;
      (void)Disconnect(now, out);
      return Raise(ConnectionEvent::kDisconnected, 0, &message, out);
    case State::kTimeWait: {
      CmMessage answer = New(CmKind::kDisconnectReply);
      answer.transaction_id = disconnect_transaction_;
      return out.Transmit(answer);
    }
    default:
      return;
  }
}

void Connection::OnTimeout(Time now, Output& out) {
  if (now < next_timeout_) return;
  if (state_ == State::kTimeWait) {
    Close();
    return Raise(ConnectionEvent::kOver, 0, nullptr, out);
  }
  if (retries_left_ == 0) return GiveUp(now, out);
  --retries_left_;
  interval_ = std::min(interval_ * 2, kResponseTime);
  next_timeout_ = now + interval_;
  out.Transmit(waiting_);
}

void Connection::GiveUp(Time now, Output& out) {
  if (state_ == State::kDisconnectSent) {
    StartTimeWait(now);
    return Raise(ConnectionEvent::kDisconnected, 0, nullptr, out);
  }
  if (!datagram()) {
    CmMessage message = New(CmKind::kReject);
    message.about = state_ == State::kRequestSent ? CmAbout::kRequest : CmAbout::kReply;
    message.reason = kCmTimeout;
    out.Transmit(message);
  }
  Close();
  Raise(ConnectionEvent::kUnreachable, -ETIMEDOUT, nullptr, out);
}

}  // namespace sumac::soft_nic
