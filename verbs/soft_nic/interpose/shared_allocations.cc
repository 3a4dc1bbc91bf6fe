#include "verbs/soft_nic/interpose/shared_allocations.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

namespace sumac::soft_nic::interpose {
namespace {

// What a child may take for its copies: a child that was killed meanwhile says nothing.
constexpr time_t kForkSeconds = 2;
constexpr size_t kForkBytesPerSecond = size_t{256} << 20;

void Say(const char* text) {
  char line[256];
  const int length =
      std::snprintf(line, sizeof(line), "sumac: SUMAC_SOFT_SHARE_ALLOCATIONS: %s\n", text);
  if (write(STDERR_FILENO, line, static_cast<size_t>(length)) < 0) return;
}

size_t RoundUp(size_t value, size_t to) { return (value + to - 1) / to * to; }

// Where memory is promised only as far as there is some, malloc would say that there is none; a
// file's pages are found missing at the first touch, which kills (SIGBUS).
bool MemoryIsPromised() {
  const int file = open("/proc/sys/vm/overcommit_memory", O_RDONLY | O_CLOEXEC);
  char mode = '0';
  const bool known = file >= 0 && read(file, &mode, 1) == 1;
  if (file >= 0) close(file);
  return known && mode == '2';
}

}  // namespace

bool SharedAllocations::Refuse(const char* reason) {
  reason_ = reason;
  return false;
}

bool SharedAllocations::OpenFile(size_t bytes) {
  file_ = memfd_create("sumac_allocations", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  struct stat about {};
  if (file_ >= 0 && ftruncate(file_, static_cast<off_t>(bytes)) == 0 &&
      fcntl(file_, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0 &&
      fstat(file_, &about) == 0) {
    device_ = about.st_dev;
    inode_ = about.st_ino;
    return true;
  }
  if (file_ >= 0) close(file_);
  file_ = -1;
  return false;
}

bool SharedAllocations::FileIsOurs() const {
  struct stat about {};
  return file_ >= 0 && fstat(file_, &about) == 0 && about.st_dev == device_ &&
         about.st_ino == inode_;
}

bool SharedAllocations::Open(size_t range_bytes) {
  page_ = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  rlimit size{};
  if (getrlimit(RLIMIT_FSIZE, &size) != 0 || size.rlim_cur < range_bytes) {
    return Refuse("the limit on the size of files (ulimit -f) is too low");
  }
  if (MemoryIsPromised()) return Refuse("vm.overcommit_memory is 2");
  void* const page =
      mmap(nullptr, page_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  void* const range =
      mmap(nullptr, range_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  const bool reserved = page != MAP_FAILED && range != MAP_FAILED;
  if (!reserved || !OpenFile(range_bytes)) {
    if (page != MAP_FAILED) munmap(page, page_);
    if (range != MAP_FAILED) munmap(range, range_bytes);
    return Refuse(reserved ? "no file in memory can be had (memfd_create)"
                           : "no range of addresses can be had (ulimit -v)");
  }
  copied_ = new (page) std::atomic<uint32_t>(0);
  start_ = reinterpret_cast<uintptr_t>(range);
  range_bytes_ = range_bytes;  // from here on Owns looks at the start
  reason_ = "";
  return true;
}

void* SharedAllocations::Allocate(size_t alignment, size_t bytes) {
  if (range_bytes_ == 0 || bytes < kBlockBytesMin || bytes > range_bytes_) return nullptr;
  const int error = errno;
  const size_t step = std::max(alignment, page_);
  const size_t rounded = RoundUp(bytes, page_);
  const std::lock_guard guard(mutex_);
  if (count_ == kBlocksMax || !FileIsOurs()) {
    errno = error;
    return nullptr;
  }
  // The first gap that is large enough. A page stays free behind each block: who runs over its end
  // is told.
  const uintptr_t base = start_.load();
  size_t at = 0;
  size_t place = 0;
  for (; place <= count_; ++place) {
    at = RoundUp(base + at, step) - base;
    const size_t end = place < count_ ? blocks_[place].offset : range_bytes_.load();
    if (at < end && end - at > rounded) break;
    if (place < count_) at = blocks_[place].offset + blocks_[place].bytes + page_;
  }
  if (place > count_) return nullptr;
  if (mmap(At(at), rounded, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file_,
           static_cast<off_t>(at)) == MAP_FAILED) {
    errno = error;
    return nullptr;
  }
  std::copy_backward(blocks_.begin() + static_cast<ptrdiff_t>(place),
                     blocks_.begin() + static_cast<ptrdiff_t>(count_),
                     blocks_.begin() + static_cast<ptrdiff_t>(count_) + 1);
  blocks_[place] = {at, rounded, true};
  ++count_;
  return At(at);
}

SharedAllocations::Block* SharedAllocations::Find(const void* address) {
  const size_t offset = reinterpret_cast<uintptr_t>(address) - start_.load();
  const auto end = blocks_.begin() + static_cast<ptrdiff_t>(count_);
  const auto found = std::lower_bound(blocks_.begin(), end, offset,
                                      [](const Block& b, size_t o) { return b.offset < o; });
  if (found != end && found->offset == offset) return &*found;
  Say("free() or the like of an address that is no block's");
  std::abort();
}

void SharedAllocations::Free(void* address) {
  const int error = errno;
  const std::lock_guard guard(mutex_);
  Block* const block = Find(address);
  // Through the mapping: the program may have closed our descriptor.
  if (block->shared) madvise(address, block->bytes, MADV_REMOVE);
  if (mmap(address, block->bytes, PROT_NONE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED) {
    // Too many mappings: the addresses are lost, the memory is not.
    errno = error;
    return;
  }
  std::copy(block + 1, blocks_.data() + count_, block);
  --count_;
  errno = error;
}

size_t SharedAllocations::UsableBytes(const void* address) {
  const std::lock_guard guard(mutex_);
  return Find(address)->bytes;
}

bool SharedAllocations::Fits(const void* address, size_t bytes) {
  const size_t usable = UsableBytes(address);
  return bytes <= usable && bytes >= usable / 2;
}

size_t SharedAllocations::blocks() {
  const std::lock_guard guard(mutex_);
  return count_;
}

void SharedAllocations::BeforeFork() {
  mutex_.lock();
  if (copied_ != nullptr) copied_->store(0);
}

void SharedAllocations::AfterForkInParent() {
  size_t bytes = 0;
  for (size_t i = 0; i < count_; ++i) bytes += blocks_[i].shared ? blocks_[i].bytes : 0;
  if (bytes != 0) {
    const int error = errno;
    timespec left{kForkSeconds + static_cast<time_t>(bytes / kForkBytesPerSecond), 0};
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    left.tv_sec += now.tv_sec;
    left.tv_nsec = now.tv_nsec;
    // FUTEX_WAIT_BITSET takes a point in time.
    while (copied_->load() == 0) {
      if (syscall(SYS_futex, copied_, FUTEX_WAIT_BITSET, 0, &left, nullptr,
                  FUTEX_BITSET_MATCH_ANY) != 0 &&
          errno == ETIMEDOUT) {
        Say("a child has not made its copies in time: it may see what its parent writes now");
        break;
      }
    }
    errno = error;
  }
  mutex_.unlock();
}

// Only what the file has: the rest is 0 in both.
bool SharedAllocations::Copy(const Block& block, char* to) const {
  if (!FileIsOurs()) {
    std::memcpy(to, At(block.offset), block.bytes);
    return true;
  }
  const auto end = static_cast<off_t>(block.offset + block.bytes);
  for (auto at = static_cast<off_t>(block.offset); at < end;) {
    const off_t data = lseek(file_, at, SEEK_DATA);
    if (data < 0 && errno == ENXIO) return true;
    if (data < 0) return false;
    const off_t stop = std::min(lseek(file_, data, SEEK_HOLE), end);
    for (at = data; at < stop;) {
      const ssize_t got = pread(file_, to + (at - static_cast<off_t>(block.offset)),
                                static_cast<size_t>(stop - at), at);
      if (got <= 0) return false;
      at += got;
    }
    if (stop < data) at = data;
  }
  return true;
}

bool SharedAllocations::MakePrivate(const Block& block) const {
  void* const copy =
      mmap(nullptr, block.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return copy != MAP_FAILED && Copy(block, static_cast<char*>(copy)) &&
         mremap(copy, block.bytes, block.bytes, MREMAP_MAYMOVE | MREMAP_FIXED, At(block.offset)) !=
             MAP_FAILED;
}

void SharedAllocations::AfterForkInChild() {
  if (range_bytes_ != 0) {
    const int error = errno;
    bool all = true;
    for (size_t i = 0; i < count_ && all; ++i) {
      if (!blocks_[i].shared) continue;
      all = MakePrivate(blocks_[i]);
      blocks_[i].shared = false;
    }
    copied_->store(1);
    syscall(SYS_futex, copied_, FUTEX_WAKE, 1, nullptr, nullptr, 0);
    if (!all) {
      Say("no memory for a child's copies");
      std::abort();
    }
    if (FileIsOurs()) close(file_);
    // A page of its own for its own children; it may never have any.
    void* const page =
        mmap(copied_, page_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (page == MAP_FAILED || !OpenFile(range_bytes_)) file_ = -1;
    errno = error;
  }
  mutex_.unlock();
}

}  // namespace sumac::soft_nic::interpose
