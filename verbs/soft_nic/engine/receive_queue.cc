#include "verbs/soft_nic/engine/receive_queue.h"

#include <cerrno>
#include <cstring>
#include <new>

#include "verbs/soft_nic/engine/shared_receive_queue.h"

namespace sumac::soft_nic {

ReceiveQueue::ReceiveQueue(uint32_t max_wr, uint32_t max_sge, SharedReceiveQueue* shared)
    : max_sge_(max_sge),
      shared_(shared),
      ring_(max_wr, sizeof(ReceiveRequest) + max_sge * sizeof(ibv_sge)) {}

int ReceiveQueue::Post(const ibv_recv_wr& wr) {
  if (wr.num_sge < 0 || static_cast<uint32_t>(wr.num_sge) > max_sge_) return EINVAL;
  std::byte* slot = ring_.Reserve();
  if (slot == nullptr) return ENOMEM;
  auto* request = new (slot) ReceiveRequest{};
  request->wr_id = wr.wr_id;
  request->sge_count = static_cast<uint32_t>(wr.num_sge);
  for (int i = 0; i < wr.num_sge; ++i) request->length += wr.sg_list[i].length;
  if (wr.num_sge != 0) {
    std::memcpy(slot + sizeof(ReceiveRequest), wr.sg_list, wr.num_sge * sizeof(ibv_sge));
  }
  ring_.Publish();
  return 0;
}

void ReceiveQueue::MoveFrontTo(ReceiveQueue& other) {
  const ReceiveRequest& request = front();
  std::memcpy(other.ring_.Reserve(), &request,
              sizeof(ReceiveRequest) + request.sge_count * sizeof(ibv_sge));
  other.ring_.Publish();
  PopFront();
}

bool ReceiveQueue::TakeShared() { return shared_->MoveFrontTo(*this); }

}  // namespace sumac::soft_nic
