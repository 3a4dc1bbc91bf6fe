// Memory blocks in one file that peers on the same host can map (local/shared_files.h), for the
// page-aligned buffers that stock programs allocate (allocation_calls.cc).
//
// One reserved range of addresses and one sealed file of the same size: a block is a shared mapping
// of the file, at the same offset in both. What is freed goes back to the system at once. There are
// kBlocksMax blocks; whoever gets null here asks the ordinary allocator.
//
// After fork() a child has private copies of all blocks at the same addresses, and a file of its
// own for new ones: BeforeFork, AfterForkInParent and AfterForkInChild are for pthread_atfork. The
// parent waits until the copies are made. A child made by the bare system call shares the blocks.
//
// Any thread: a mutex, system calls. Nothing here allocates by other means, and nothing is
// destroyed: it works before main, after it, and while the loader runs. Where something can't be
// had (addresses, descriptor, a file as large) there are no blocks, and reason() says why.
#pragma once

#include <sys/types.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>

namespace sumac::soft_nic::interpose {

class SharedAllocations {
 public:
  static constexpr size_t kBlocksMax = 1024;
  static constexpr size_t kRangeBytes = size_t{64} << 30;
  // Smaller ones are seldom what RDMA reads and writes, and many.
  static constexpr size_t kBlockBytesMin = 4096;

  constexpr SharedAllocations() = default;
  SharedAllocations(const SharedAllocations&) = delete;
  SharedAllocations& operator=(const SharedAllocations&) = delete;

  // Once. False, and never any block, when something is missing.
  bool Open(size_t range_bytes = kRangeBytes);
  const char* reason() const { return reason_; }

  // Null: not this one. The bytes are 0.
  void* Allocate(size_t alignment, size_t bytes);
  bool Owns(const void* address) const {
    return reinterpret_cast<uintptr_t>(address) - start_.load(std::memory_order_relaxed) <
           range_bytes_.load(std::memory_order_relaxed);
  }
  // --- Of addresses that Allocate gave ---
  // An address that is no block's ends the process, as the C library's does.
  void Free(void* address);
  size_t UsableBytes(const void* address);
  // Whether it holds this many bytes where it is, and would not waste most of itself.
  bool Fits(const void* address, size_t bytes);

  void BeforeFork();
  void AfterForkInParent();
  void AfterForkInChild();

  size_t blocks();

 private:
  struct Block {
    size_t offset = 0;
    size_t bytes = 0;
    bool shared = false;  // or a copy from before a fork
  };

  bool OpenFile(size_t bytes);
  bool FileIsOurs() const;
  char* At(size_t offset) const { return reinterpret_cast<char*>(start_.load()) + offset; }
  Block* Find(const void* address);
  bool MakePrivate(const Block& block) const;
  bool Copy(const Block& block, char* to) const;
  bool Refuse(const char* reason);

  // 0 until there are blocks: then one comparison tells all other addresses apart.
  std::atomic<uintptr_t> start_{0};
  std::atomic<size_t> range_bytes_{0};
  size_t page_ = 0;
  const char* reason_ = "not opened";
  std::atomic<uint32_t>* copied_ = nullptr;  // shared with a child: 1 once it has its copies

  std::mutex mutex_;
  int file_ = -1;
  dev_t device_ = 0;  // of the file: programs close descriptors that are not theirs
  ino_t inode_ = 0;
  size_t count_ = 0;
  std::array<Block, kBlocksMax> blocks_{};  // by offset
};

}  // namespace sumac::soft_nic::interpose
