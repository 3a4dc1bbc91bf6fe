#include "verbs/soft_nic/engine/reliable_connection.h"

namespace sumac::soft_nic {

void ReliableConnection::Reset() {
  requester_.Reset();
  responder_.Reset();
  failed_ = false;
}

void ReliableConnection::Flush() {
  requester_.Flush();
  responder_.Flush();
}

// One side gave up: the other stops as well.
void ReliableConnection::FailTogether() {
  if (failed_) return;
  failed_ = requester_.failed() || responder_.failed();
  if (failed_ && !responder_.failed()) responder_.Stop();
}

void ReliableConnection::OnPacket(const PacketView& packet, const Gid&, ibv_qp_state state,
                                  Time now) {
  const bool is_request = (packet.flags & kIsRequest) != 0;
  const bool taken = is_request
                         ? state == IBV_QPS_RTR || state == IBV_QPS_RTS || responder_.failed()
                         : state == IBV_QPS_RTS;
  if (!taken) {
    ++counters_.dropped_wrong_state;
    return;
  }
  if (is_request) {
    responder_.OnRequest(packet);
  } else {
    requester_.OnResponse(packet, now);
  }
  FailTogether();
}

void ReliableConnection::OnTimeout(Time now) {
  requester_.OnTimeout(now);
  FailTogether();
}

bool ReliableConnection::PollTransmit(TransmitSink& sink, ibv_qp_state state, Time now,
                                      uint32_t budget) {
  // Responses first, but a peer that reads without end must not silence our own requests.
  const uint32_t for_requests = state == IBV_QPS_RTS ? budget / 4 : 0;
  budget -= for_requests;
  bool more = responder_.PollTransmit(sink, &budget);
  const bool refused = more && budget != 0;
  budget += for_requests;
  if (state == IBV_QPS_RTS && !refused) more |= requester_.PollTransmit(sink, now, &budget);
  FailTogether();
  return more;
}

}  // namespace sumac::soft_nic
