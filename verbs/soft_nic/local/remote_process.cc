#include "verbs/soft_nic/local/remote_process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "verbs/soft_nic/engine/dma.h"
#include "verbs/soft_nic/link/no_cancel.h"
#include "verbs/soft_nic/local/shared_files.h"

namespace sumac::soft_nic {
namespace {

// Nothing when the file is not exactly as long, or could become shorter.
template <typename Layout>
void* MapWhole(int fd, int rights) {
  struct stat about {};
  const int seals = fcntl(fd, F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || fstat(fd, &about) != 0 ||
      about.st_size != static_cast<off_t>(sizeof(Layout))) {
    return nullptr;
  }
  void* const at = mmap(nullptr, sizeof(Layout), rights, MAP_SHARED, fd, 0);
  return at == MAP_FAILED ? nullptr : at;
}

size_t TotalOf(std::span<const iovec> pieces) {
  size_t bytes = 0;
  for (const iovec& piece : pieces) bytes += piece.iov_len;
  return bytes;
}

iovec At(uint64_t place, size_t bytes) { return {reinterpret_cast<void*>(place), bytes}; }

}  // namespace

absl::Status RemoteProcess::Open(const Introduction& introduction, int board_fd, int hazard_fd) {
  if (introduction.line >= kHazardLines) return absl::FailedPreconditionError("no such line");
  void* const board = MapWhole<BoardLayout>(board_fd, PROT_READ);
  void* const hazards = MapWhole<HazardLayout>(hazard_fd, PROT_READ | PROT_WRITE);
  board_ = static_cast<const BoardLayout*>(board);
  hazards_ = static_cast<HazardLayout*>(hazards);
  if (board == nullptr || hazards == nullptr || board_->nonce != introduction.nonce) {
    Close();
    return absl::FailedPreconditionError("its board is not one");
  }
  ++opening_;
  hazard_ = &hazards_->lines[introduction.line].in_use;
  first_qpn_ = introduction.first_qpn;
  mappings_.assign(kMappingsMax, Mapping{});
  is_this_process_ = pid_ == getpid();
  // Whether its private memory can be had, and that the number does mean this process.
  std::array<uint64_t, 2> nonce{};
  const iovec here{nonce.data(), sizeof(nonce)};
  const iovec there = At(introduction.nonce_address, sizeof(nonce));
  copyable_ =
      process_vm_readv(pid_, &here, 1, &there, 1, 0) == static_cast<ssize_t>(sizeof(nonce)) &&
      nonce == introduction.nonce;
  return absl::OkStatus();
}

void RemoteProcess::Close() {
  for (Mapping& mapping : mappings_) Unmap(mapping);
  mappings_.clear();
  if (hazards_ != nullptr) munmap(hazards_, sizeof(*hazards_));
  if (board_ != nullptr) munmap(const_cast<BoardLayout*>(board_), sizeof(*board_));
  hazards_ = nullptr;
  board_ = nullptr;
  hazard_ = nullptr;
}

bool RemoteProcess::alive() const {
  const ScopedNoCancel no_cancel;  // the engine is owned
  pollfd ended{life_.get(), POLLIN, 0};
  return poll(&ended, 1, 0) == 0;
}

void RemoteProcess::Unmap(Mapping& mapping) {
  if (mapping.start != nullptr) munmap(mapping.start, mapping.size);
  mapping = {};
}

// What can't be mapped is remembered as well: it is not tried again.
std::byte* RemoteProcess::MapAnew(Mapping& mapping, const KeyRecord& record, uint64_t sequence) {
  const ScopedNoCancel no_cancel;  // the engine is owned
  Unmap(mapping);
  mapping.key = record.key;
  mapping.sequence = sequence;
  if (is_this_process_ && copyable_) {
    mapping.bytes = reinterpret_cast<std::byte*>(record.place);
    return mapping.bytes;
  }
  if (record.file == 0) return nullptr;
  char path[64];
  std::snprintf(path, sizeof(path), "/proc/%d/fd/%u", static_cast<int>(pid_), record.file_fd);
  const UniqueFd file(open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK));
  struct stat about {};
  const uint64_t in_page = record.place % kFilePageBytes;
  const uint64_t offset = uint64_t{record.file_page} * kFilePageBytes;
  if (!file.valid() || IdentityOfSharedFile(file.get()) != record.file ||
      fstat(file.get(), &about) != 0 ||
      offset + in_page + record.length > static_cast<uint64_t>(about.st_size)) {
    return nullptr;
  }
  const size_t size = in_page + record.length;
  void* const start = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(),
                           static_cast<off_t>(offset));
  if (start == MAP_FAILED) return nullptr;
  mapping.start = start;
  mapping.size = size;
  mapping.bytes = static_cast<std::byte*>(start) + in_page;
  return mapping.bytes;
}

bool RemoteProcess::CopyTo(uint64_t place, std::span<const iovec> pieces) {
  if (!Copyable()) return false;
  const size_t bytes = TotalOf(pieces);
  // As placement.h: the tail is seen last, and whole. The kernel copies range by range.
  const uint64_t end = place + bytes;
  const size_t tail = end % 8 == 0 && bytes >= 8   ? 8
                      : end % 4 == 0 && bytes >= 4 ? 4
                      : end % 2 == 0 && bytes >= 2 ? 2
                                                   : 1;
  const std::array<iovec, 2> there = {At(place, bytes - tail), At(end - tail, tail)};
  const ScopedDma dma;
  return process_vm_writev(pid_, pieces.data(), pieces.size(), there.data(), there.size(), 0) ==
         static_cast<ssize_t>(bytes);
}

bool RemoteProcess::CopyFrom(uint64_t place, std::span<const iovec> pieces) {
  if (!Copyable()) return false;
  const size_t bytes = TotalOf(pieces);
  const iovec there = At(place, bytes);
  const ScopedDma dma;
  return process_vm_readv(pid_, pieces.data(), pieces.size(), &there, 1, 0) ==
         static_cast<ssize_t>(bytes);
}

void RemoteProcess::Sweep() {
  for (Mapping& mapping : mappings_) {
    if (mapping.key == 0) continue;
    bool there = false;
    for (uint32_t i = 0; i < kBoardKeyPlaces && !there; ++i) {
      KeyRecord record;
      uint64_t sequence = 0;
      there = key(KeyPlace(mapping.key, i)).Read(&record, &sequence) && record.key == mapping.key &&
              sequence == mapping.sequence;
    }
    if (!there) Unmap(mapping);
  }
}

}  // namespace sumac::soft_nic
