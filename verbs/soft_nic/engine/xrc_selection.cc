#include "verbs/soft_nic/engine/xrc_selection.h"

#include "verbs/soft_nic/engine/shared_receive_queue.h"

namespace sumac::soft_nic {

bool XrcSelection::Select(uint32_t number) {
  SharedReceiveQueue* const queue = queues_.Find(number);
  if (queue == nullptr) return false;
  if (queue == selected_) return true;
  if (!receives_.empty()) return false;  // a buffer of the selected one is in use
  selected_ = queue;
  receives_.SetShared(queue);
  memory_.of = &queue->memory();
  completions_.of = queue->completions();
  return true;
}

bool XrcSelection::Forget(const SharedReceiveQueue& queue) {
  if (selected_ != &queue) return false;
  selected_ = nullptr;
  receives_.Clear();
  receives_.SetShared(nullptr);
  memory_.of = nullptr;
  completions_.of = nullptr;
  return true;
}

Memory* XrcSelection::MemoryOf(uint32_t number) {
  SharedReceiveQueue* const queue = queues_.Find(number);
  return queue != nullptr ? &queue->memory() : nullptr;
}

}  // namespace sumac::soft_nic
