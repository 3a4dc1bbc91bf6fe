// The board: what a device says about its keys and queue pairs to peers on the same host, in shared
// memory.
//
// Two files. The board itself is written by its owner and mapped by peers to be read only: records
// of keys and of queue pairs, each with a sequence number around it (a seqlock). The hazard page is
// written by peers: each has one line, where it says which queue pair and which key it is using
// now.
//
// Who uses a key first names it in its line, and then looks at the records; who withdraws a key
// first clears its record, and then looks at the lines. Both sides do so in the one order of
// memory_order_seq_cst: either the user sees that the key is gone, or the owner sees the user and
// waits.
//
// Both ends are built from the same source or refuse each other by kLayoutVersion.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace sumac::soft_nic {

inline constexpr uint32_t kBoardLayoutVersion = 1;

// A record that one thread writes and others read without a lock. Readers never wait: a record that
// is being written counts as none.
template <typename Record>
class Published {
  static_assert(std::is_trivially_copyable_v<Record> && sizeof(Record) % sizeof(uint64_t) == 0);
  static constexpr size_t kWords = sizeof(Record) / sizeof(uint64_t);

 public:
  // The owner.
  void Write(const Record& record) {
    const auto words = std::bit_cast<std::array<uint64_t, kWords>>(record);
    const uint64_t sequence = sequence_.load(std::memory_order_relaxed);
    // A full barrier, so that a look at the hazards that follows comes after it.
    sequence_.exchange(sequence + 1, std::memory_order_seq_cst);
    for (size_t i = 0; i < kWords; ++i) words_[i].store(words[i], std::memory_order_release);
    sequence_.store(sequence + 2, std::memory_order_release);
  }

  // False while it is being written. `sequence` changes with every Write.
  bool Read(Record* record, uint64_t* sequence) const {
    const uint64_t before = sequence_.load(std::memory_order_seq_cst);
    std::array<uint64_t, kWords> words;
    for (size_t i = 0; i < kWords; ++i) words[i] = words_[i].load(std::memory_order_acquire);
    if ((before & 1) != 0 || sequence_.load(std::memory_order_relaxed) != before) return false;
    *record = std::bit_cast<Record>(words);
    *sequence = before;
    return true;
  }
  uint64_t sequence() const { return sequence_.load(std::memory_order_seq_cst); }

 private:
  std::atomic<uint64_t> sequence_{0};
  std::array<std::atomic<uint64_t>, kWords> words_{};
};

// What a reader found last: it holds for as long as the sequence number stands.
template <typename Record>
class Remembered {
 public:
  // As Published::Read; `record()` is what it read.
  bool Read(const Published<Record>& published) {
    if (Holds(&published)) return true;
    at_ = published.Read(&record_, &sequence_) ? &published : nullptr;
    return at_ != nullptr;
  }
  bool StillHolds() const { return at_ != nullptr && Holds(at_); }
  void Forget() { at_ = nullptr; }
  const Record& record() const { return record_; }
  uint64_t sequence() const { return sequence_; }

 private:
  bool Holds(const Published<Record>* published) const {
    return at_ == published && published->sequence() == sequence_;
  }

  const Published<Record>* at_ = nullptr;
  uint64_t sequence_ = 0;
  Record record_;
};

// A memory region. `key` 0: none.
struct KeyRecord {
  uint32_t key = 0;
  int32_t access = 0;   // IBV_ACCESS_*
  uint64_t domain = 0;  // compared only
  uint64_t addr = 0;    // as work requests name its first byte
  uint64_t length = 0;
  uint64_t place = 0;    // where that byte is in the owner's memory
  uint64_t file = 0;     // shared_files.h: identity of the file that holds the bytes; 0: none does
  uint32_t file_fd = 0;  // the owner's descriptor of it
  uint32_t file_page = 0;  // page of the file (4 KiB) that the first byte lies in

  // As Region::Covers: no sum of the requester's numbers.
  bool Covers(uint64_t from, uint64_t bytes, int rights) const {
    if ((access & rights) != rights || from < addr) return false;
    const uint64_t begin = from - addr;
    return begin <= length && bytes <= length - begin;
  }
};

// A queue pair that takes requests. `qpn` 0: none.
struct QueuePairRecord {
  uint32_t qpn = 0;
  uint32_t remote_qpn = 0;
  uint64_t domain = 0;
  std::array<uint8_t, 16> remote_gid{};
  int32_t access = 0;  // IBV_ACCESS_REMOTE_* that the peer may use
  uint32_t unused = 0;
};

inline constexpr uint32_t kBoardKeys = 1u << 14;
// A key is in one of so many places from its own on, or not on the board: then it works by packets.
inline constexpr uint32_t kBoardKeyPlaces = 8;
inline constexpr uint32_t kBoardQueuePairs = 4096;
inline constexpr uint32_t kHazardLines = 256;
inline constexpr size_t kFilePageBytes = 4096;

struct BoardLayout {
  // Drawn when the board is made; also found at `address` in the owner's memory by whoever can read
  // that, which shows that it is the process that is meant.
  std::array<uint64_t, 2> nonce{};
  alignas(64) std::array<Published<QueuePairRecord>, kBoardQueuePairs> queue_pairs;
  alignas(64) std::array<Published<KeyRecord>, kBoardKeys> keys;
};

constexpr uint32_t KeyPlace(uint32_t key, uint32_t attempt) {
  return ((key >> 8) + attempt) % kBoardKeys;
}

// What a peer is using: a queue pair's number above a key. 0: nothing.
constexpr uint64_t HazardOf(uint32_t qpn, uint32_t key) { return uint64_t{qpn} << 32 | key; }

struct alignas(64) HazardLine {
  std::atomic<uint64_t> in_use{0};
};
struct HazardLayout {
  std::array<HazardLine, kHazardLines> lines;
};
static_assert(std::atomic<uint64_t>::is_always_lock_free);

}  // namespace sumac::soft_nic
