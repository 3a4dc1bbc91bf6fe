// One registered block that holds an endpoint's message buffers: receives, sends, control messages.
//
// Owned by ReliableEndpoint. Slots are cache-line aligned and of equal size within their kind.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"

#include "transport/message_header.h"
#include "verbs/memory_region.h"
#include "verbs/protection_domain.h"

namespace sumac::transport {

class MessageBuffers {
 public:
  struct Shape {
    uint32_t receives = 0;
    uint32_t sends = 0;
    uint32_t controls = 0;
    uint32_t eager_bytes_max = 0;
  };
  static absl::StatusOr<std::unique_ptr<MessageBuffers>> Create(
      std::shared_ptr<verbs::ProtectionDomain> pd, const Shape& shape);

  std::byte* receive(uint32_t slot) const { return block_.get() + slot * slot_bytes_; }
  std::byte* send(uint32_t slot) const { return receive(shape_.receives + slot); }
  std::byte* control(uint32_t slot) const {
    return receive(shape_.receives + shape_.sends) + slot * kControlBytes;
  }
  uint32_t sends() const { return shape_.sends; }
  uint32_t slot_bytes() const { return slot_bytes_; }
  uint32_t lkey() const { return region_->lkey(); }

 private:
  static constexpr size_t kAlignment = 4096;
  static constexpr uint32_t kControlBytes = 64;
  struct Free {
    void operator()(std::byte* block) const;
  };

  MessageBuffers() = default;

  Shape shape_;
  uint32_t slot_bytes_ = 0;
  std::unique_ptr<std::byte, Free> block_;
  std::unique_ptr<verbs::MemoryRegion> region_;  // dropped before the bytes
};

}  // namespace sumac::transport
