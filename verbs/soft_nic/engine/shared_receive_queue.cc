#include "verbs/soft_nic/engine/shared_receive_queue.h"

namespace sumac::soft_nic {

bool SharedReceiveQueue::MoveFrontTo(ReceiveQueue& taker) {
  if (buffers_->empty()) return false;
  buffers_->MoveFrontTo(taker);
  if (buffers_->size() < limit_) {
    limit_ = 0;
    on_limit_();
  }
  return true;
}

bool SharedReceiveQueue::Resize(uint32_t max_wr) {
  if (buffers_->size() > max_wr) return false;
  auto resized = std::make_unique<ReceiveQueue>(max_wr, max_sge_);
  while (!buffers_->empty()) buffers_->MoveFrontTo(*resized);
  buffers_ = std::move(resized);
  return true;
}

}  // namespace sumac::soft_nic
