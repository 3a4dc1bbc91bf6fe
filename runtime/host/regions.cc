// Registered buffers: announcing one's own, mapping those of peers.

#include <utility>

#include "absl/strings/str_cat.h"

#include "runtime/host/host_group.h"

namespace sumac::runtime {

RegionRef HostGroup::AnnounceRegion(int fd, size_t bytes) {
  const auto file = DescribeMemoryFile(fd, bytes);
  if (!file.ok()) return {};
  for (uint32_t slot = 0; slot < kRegionsMax; ++slot) {
    RegionRecord& record = own_->regions[slot];
    if (record.generation.load(std::memory_order_relaxed) != 0) continue;
    if (++generations_ == 0) ++generations_;
    record.fd.store(file->fd, std::memory_order_relaxed);
    record.device.store(file->device, std::memory_order_relaxed);
    record.inode.store(file->inode, std::memory_order_relaxed);
    record.bytes.store(file->bytes, std::memory_order_relaxed);
    record.generation.store(generations_, std::memory_order_release);
    return {slot, generations_};
  }
  return {};
}

void HostGroup::WithdrawRegion(const RegionRef& ref) {
  if (!ref.valid() || ref.slot >= kRegionsMax) return;
  RegionRecord& record = own_->regions[ref.slot];
  if (record.generation.load(std::memory_order_relaxed) != ref.generation) return;
  record.generation.store(0, std::memory_order_release);
  ++withdrawals_;
}

std::byte* HostGroup::Reach(int peer, const RegionRef& ref, uint64_t offset, uint64_t bytes) {
  const auto fail = [&](const std::string& why) -> std::byte* {
    status_ = absl::FailedPreconditionError(absl::StrCat("a buffer of rank ", peer, ": ", why));
    return nullptr;
  };
  Member& member = members_[static_cast<size_t>(peer)];
  if (!ref.valid() || ref.slot >= kRegionsMax) return fail("no such entry");
  if (member.regions.empty()) member.regions.resize(kRegionsMax);
  MappedRegion& mapped = member.regions[ref.slot];
  if (mapped.generation != ref.generation) {
    const RegionRecord& record = member.header->regions[ref.slot];
    if (record.generation.load(std::memory_order_acquire) != ref.generation) {
      return fail("it is gone");
    }
    MemoryFile file;
    file.pid = member.pid;
    file.fd = record.fd.load(std::memory_order_relaxed);
    file.device = record.device.load(std::memory_order_relaxed);
    file.inode = record.inode.load(std::memory_order_relaxed);
    file.bytes = record.bytes.load(std::memory_order_relaxed);
    mapped.generation = 0;
    mapped.memory = PeerMemory();
    auto memory = PeerMemory::Open(file);
    if (!memory.ok()) return fail(std::string(memory.status().message()));
    mapped.memory = *std::move(memory);
    mapped.generation = ref.generation;
  }
  const size_t size = mapped.memory.size();
  if (offset > size || bytes > size - offset) return fail("outside of it");
  return mapped.memory.data() + offset;
}

void HostGroup::UnmapWithdrawn(int peer, uint32_t withdrawals) {
  Member& member = members_[static_cast<size_t>(peer)];
  member.withdrawals = withdrawals;
  for (uint32_t slot = 0; slot < member.regions.size(); ++slot) {
    MappedRegion& mapped = member.regions[slot];
    if (mapped.generation == 0) continue;
    if (member.header->regions[slot].generation.load(std::memory_order_acquire) ==
        mapped.generation) {
      continue;
    }
    mapped.generation = 0;
    mapped.memory = PeerMemory();
  }
}

int HostGroup::mapped_regions() const {
  int count = 0;
  for (const Member& member : members_) {
    for (const MappedRegion& mapped : member.regions) count += mapped.generation != 0 ? 1 : 0;
  }
  return count;
}

}  // namespace sumac::runtime
