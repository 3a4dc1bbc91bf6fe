// One-sided operations of a domain on itself: the same checks as the NIC's, then a copy. No
// connection, no packet.

#include <atomic>
#include <cstring>

#include "runtime/domain/impl.h"

namespace sumac::runtime {

using transport::Ticket;

absl::StatusOr<std::byte*> Domain::Impl::OwnBytes(const Capability& target, uint32_t right,
                                                  uint64_t offset, uint64_t length) {
  if (absl::Status same = CheckIdentity(target, identity); !same.ok()) return same;
  const uint64_t addr = target.base + offset;
  if (absl::Status granted = grants.Check(target, right, addr, length); !granted.ok()) {
    return granted;
  }
  return reinterpret_cast<std::byte*>(static_cast<uintptr_t>(addr));
}

absl::StatusOr<Ticket> Domain::Impl::PutToSelf(const Capability& target, uint64_t offset,
                                               const LocalSlice& source) {
  const auto bytes = OwnBytes(target, kRightPut, offset, source.length);
  if (!bytes.ok()) return bytes.status();
  if (source.length > 0) std::memmove(*bytes, source.addr, source.length);
  return ++own_ticket;
}

absl::StatusOr<Ticket> Domain::Impl::GetFromSelf(const Capability& target, uint64_t offset,
                                                 const LocalSlice& into) {
  const auto bytes = OwnBytes(target, kRightGet, offset, into.length);
  if (!bytes.ok()) return bytes.status();
  if (into.length > 0) std::memmove(into.addr, *bytes, into.length);
  return ++own_ticket;
}

// The CPU's atomics: atomic against those of peers on the soft NIC and on any NIC that says
// IBV_ATOMIC_GLOB (docs/isolation.md).
absl::StatusOr<uint64_t> Domain::Impl::FetchAddOnSelf(const Capability& target, uint64_t offset,
                                                      uint64_t add) {
  const auto bytes = OwnBytes(target, kRightAtomic, offset, sizeof(uint64_t));
  if (!bytes.ok()) return bytes.status();
  return std::atomic_ref<uint64_t>(*reinterpret_cast<uint64_t*>(*bytes)).fetch_add(add);
}

absl::StatusOr<uint64_t> Domain::Impl::CompareSwapOnSelf(const Capability& target, uint64_t offset,
                                                         uint64_t expected, uint64_t desired) {
  const auto bytes = OwnBytes(target, kRightAtomic, offset, sizeof(uint64_t));
  if (!bytes.ok()) return bytes.status();
  std::atomic_ref<uint64_t> word(*reinterpret_cast<uint64_t*>(*bytes));
  word.compare_exchange_strong(expected, desired);
  return expected;  // the old value, also when it was not the expected one
}

}  // namespace sumac::runtime
