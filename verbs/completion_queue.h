// Completion queues, and the channel on which they wake a sleeping thread (IBTA vol. 1, 11.4.2).
//
// Both are shared handles that keep their device open; a queue keeps its channel. Poll is an inline
// call into the device. Threads: Poll and Arm from any thread; Wait from one thread at a time.
#pragma once

#include <infiniband/verbs.h>

#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "verbs/device.h"

namespace sumac::verbs {

class CompletionChannel {
 public:
  static absl::StatusOr<std::shared_ptr<CompletionChannel>> Create(std::shared_ptr<Device> device);
  ~CompletionChannel();
  CompletionChannel(const CompletionChannel&) = delete;
  CompletionChannel& operator=(const CompletionChannel&) = delete;

  // Waits for an event of an armed queue, takes and acknowledges it. False: timed out. The soft NIC
  // is driven by the waiting thread meanwhile.
  absl::StatusOr<bool> Wait(absl::Duration timeout);

  Device& device() const { return *device_; }
  ibv_comp_channel* channel() const { return channel_; }

 private:
  CompletionChannel(std::shared_ptr<Device> device, ibv_comp_channel* channel)
      : device_(std::move(device)), channel_(channel) {}

  std::shared_ptr<Device> device_;
  ibv_comp_channel* channel_;
};

class CompletionQueue {
 public:
  // `entries`: how many completions it must hold. `channel` may be null.
  static absl::StatusOr<std::shared_ptr<CompletionQueue>> Create(
      std::shared_ptr<Device> device, int entries, std::shared_ptr<CompletionChannel> channel);
  ~CompletionQueue();
  CompletionQueue(const CompletionQueue&) = delete;
  CompletionQueue& operator=(const CompletionQueue&) = delete;

  // The number of completions taken, or negative: the queue overran or its device failed.
  [[nodiscard]] int Poll(std::span<ibv_wc> out) {
    return ibv_poll_cq(cq_, static_cast<int>(out.size()), out.data());
  }
  // Asks for one event at the next completion. Poll once more afterwards: what came before does not
  // count.
  absl::Status Arm(bool solicited_only = false);

  Device& device() const { return *device_; }
  ibv_cq* cq() const { return cq_; }

 private:
  CompletionQueue(std::shared_ptr<Device> device, std::shared_ptr<CompletionChannel> channel,
                  ibv_cq* cq)
      : device_(std::move(device)), channel_(std::move(channel)), cq_(cq) {}

  std::shared_ptr<Device> device_;
  std::shared_ptr<CompletionChannel> channel_;
  ibv_cq* cq_;
};

}  // namespace sumac::verbs
