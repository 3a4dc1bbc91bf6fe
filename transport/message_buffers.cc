#include "transport/message_buffers.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "absl/strings/str_cat.h"

namespace sumac::transport {

void MessageBuffers::Free::operator()(std::byte* block) const { std::free(block); }

absl::StatusOr<std::unique_ptr<MessageBuffers>> MessageBuffers::Create(
    std::shared_ptr<verbs::ProtectionDomain> pd, const Shape& shape) {
  auto buffers = std::unique_ptr<MessageBuffers>(new MessageBuffers());
  buffers->shape_ = shape;
  const size_t payload = std::max(shape.eager_bytes_max + kMessageHeaderBytes, kAnnouncementBytes);
  buffers->slot_bytes_ = static_cast<uint32_t>((payload + 63) / 64 * 64);
  size_t bytes = size_t{shape.receives + shape.sends} * buffers->slot_bytes_ +
                 size_t{shape.controls} * kControlBytes;
  bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  buffers->block_.reset(static_cast<std::byte*>(std::aligned_alloc(kAlignment, bytes)));
  if (buffers->block_ == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for ", bytes,
                     " bytes of message buffers: lower receive_depth or "
                     "eager_bytes_max"));
  }
  std::memset(buffers->block_.get(), 0, bytes);
  auto region = verbs::MemoryRegion::Register(std::move(pd), buffers->block_.get(), bytes,
                                              IBV_ACCESS_LOCAL_WRITE);
  if (!region.ok()) return region.status();
  buffers->region_ = *std::move(region);
  return buffers;
}

}  // namespace sumac::transport
