// Which of a rank's memory is registered for good: what Communicator::Allocate gave out.
//
// BufferTable is shared by a communicator and its RegisteredBuffers; the paths of the collectives
// ask it whether a caller's pointer lies in one: DomainTransport to send from it without a
// registration of its own, collectives/host to let peers reach it. Threads: the communicator's.
// Hot path: Find allocates nothing; a search in a short sorted array.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "collectives/communicator.h"
#include "runtime/domain.h"
#include "runtime/host/host_group.h"

namespace sumac::collectives {

class BufferTable : public std::enable_shared_from_this<BufferTable> {
 public:
  struct Entry {
    const std::byte* begin = nullptr;
    const std::byte* end = nullptr;
    const runtime::Segment* segment = nullptr;
    runtime::RegionRef region;  // not valid: peers can't reach it
  };

  // `group`: whose ranks are told of the buffers; null: nobody's.
  explicit BufferTable(std::shared_ptr<runtime::HostGroup> group) : group_(std::move(group)) {}

  absl::StatusOr<RegisteredBuffer> Allocate(runtime::Domain& domain, size_t bytes);
  // The entry that holds all of these bytes, or null.
  const Entry* Find(const void* addr, size_t bytes) const {
    const auto* begin = static_cast<const std::byte*>(addr);
    for (size_t low = 0, high = entries_.size(); low < high;) {
      const size_t middle = low + (high - low) / 2;
      const Entry& entry = entries_[middle];
      if (begin < entry.begin) {
        high = middle;
      } else if (begin >= entry.end) {
        low = middle + 1;
      } else {
        return bytes <= static_cast<size_t>(entry.end - begin) ? &entry : nullptr;
      }
    }
    return nullptr;
  }

 private:
  friend struct RegisteredBuffer::Impl;
  void Remove(const std::byte* begin);

  const std::shared_ptr<runtime::HostGroup> group_;
  std::vector<Entry> entries_;  // by address; they don't overlap
};

struct RegisteredBuffer::Impl {
  Impl(std::shared_ptr<BufferTable> the_table, runtime::Segment the_segment)
      : table(std::move(the_table)), segment(std::move(the_segment)) {}
  ~Impl() { table->Remove(segment.data()); }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  const std::shared_ptr<BufferTable> table;
  const runtime::Segment segment;
};

}  // namespace sumac::collectives
