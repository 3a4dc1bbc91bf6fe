#include "collectives/buffers.h"

#include <algorithm>
#include <utility>

namespace sumac::collectives {

absl::StatusOr<RegisteredBuffer> BufferTable::Allocate(runtime::Domain& domain, size_t bytes) {
  auto segment = domain.Allocate(bytes);
  if (!segment.ok()) return segment.status();
  auto impl = std::make_unique<RegisteredBuffer::Impl>(shared_from_this(), *std::move(segment));
  const runtime::Segment& memory = impl->segment;
  Entry entry{memory.data(), memory.data() + memory.size(), &memory, {}};
  if (group_ != nullptr) entry.region = group_->AnnounceRegion(memory.fd(), memory.size());
  const auto place =
      std::upper_bound(entries_.begin(), entries_.end(), entry,
                       [](const Entry& a, const Entry& b) { return a.begin < b.begin; });
  entries_.insert(place, entry);
  return RegisteredBuffer(std::move(impl));
}

void BufferTable::Remove(const std::byte* begin) {
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& entry) { return entry.begin == begin; });
  if (found == entries_.end()) return;
  if (group_ != nullptr) group_->WithdrawRegion(found->region);
  entries_.erase(found);
}

RegisteredBuffer::RegisteredBuffer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RegisteredBuffer::RegisteredBuffer(RegisteredBuffer&&) noexcept = default;
RegisteredBuffer& RegisteredBuffer::operator=(RegisteredBuffer&&) noexcept = default;
RegisteredBuffer::~RegisteredBuffer() = default;
std::byte* RegisteredBuffer::data() const { return impl_->segment.data(); }
size_t RegisteredBuffer::size() const { return impl_->segment.size(); }

}  // namespace sumac::collectives
