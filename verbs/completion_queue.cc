#include "verbs/completion_queue.h"

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"

#include "verbs/log.h"
#include "verbs/status.h"

namespace sumac::verbs {

absl::StatusOr<std::shared_ptr<CompletionChannel>> CompletionChannel::Create(
    std::shared_ptr<Device> device) {
  ibv_comp_channel* channel = device->provider().create_comp_channel(device->context());
  if (channel == nullptr) return ErrnoStatus(errno, "ibv_create_comp_channel", device->name());
  return std::shared_ptr<CompletionChannel>(new CompletionChannel(std::move(device), channel));
}

CompletionChannel::~CompletionChannel() {
  if (int error = device_->provider().destroy_comp_channel(channel_); error != 0) {
    Log().error("{}", ErrnoStatus(error, "ibv_destroy_comp_channel", device_->name()).ToString());
  }
}

absl::StatusOr<bool> CompletionChannel::Wait(absl::Duration timeout) {
  // Rounded up, so that a short wait is not a busy one.
  const auto ms = absl::ToInt64Milliseconds(absl::Ceil(timeout, absl::Milliseconds(1)));
  const int timeout_ms = static_cast<int>(std::clamp<int64_t>(ms, 0, 1 << 30));
  const Provider& provider = device_->provider();
  const int ready = provider.wait_cq_event(channel_, timeout_ms);
  if (ready < 0) {
    if (errno == EINTR) return false;
    return ErrnoStatus(errno, "waiting for a completion event", device_->name());
  }
  if (ready == 0) return false;
  ibv_cq* cq = nullptr;
  void* cq_context = nullptr;
  if (provider.get_cq_event(channel_, &cq, &cq_context) != 0) {
    return ErrnoStatus(errno, "ibv_get_cq_event", device_->name());
  }
  provider.ack_cq_events(cq, 1);
  return true;
}

absl::StatusOr<std::shared_ptr<CompletionQueue>> CompletionQueue::Create(
    std::shared_ptr<Device> device, int entries, std::shared_ptr<CompletionChannel> channel) {
  ibv_cq* cq = device->provider().create_cq(device->context(), entries, nullptr,
                                            channel ? channel->channel() : nullptr, 0);
  if (cq == nullptr) {
    return ErrnoStatus(errno, absl::StrCat("ibv_create_cq with ", entries, " entries"),
                       device->name());
  }
  return std::shared_ptr<CompletionQueue>(
      new CompletionQueue(std::move(device), std::move(channel), cq));
}

CompletionQueue::~CompletionQueue() {
  if (int error = device_->provider().destroy_cq(cq_); error != 0) {
    Log().error("{}", ErrnoStatus(error, "ibv_destroy_cq", device_->name()).ToString());
  }
}

absl::Status CompletionQueue::Arm(bool solicited_only) {
  if (int error = ibv_req_notify_cq(cq_, solicited_only ? 1 : 0); error != 0) {
    return ErrnoStatus(error, "ibv_req_notify_cq", device_->name());
  }
  return absl::OkStatus();
}

}  // namespace sumac::verbs
