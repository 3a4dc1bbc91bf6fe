#include "verbs/soft_nic/local/board.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>

#include <cerrno>
#include <new>

#include "absl/strings/str_cat.h"

namespace sumac::soft_nic {
namespace {

constexpr unsigned kFixedSize = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

// A zeroed file in memory that never changes its size.
UniqueFd MakeFile(const char* name, size_t bytes) {
  UniqueFd fd(memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid() || ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0 ||
      fcntl(fd.get(), F_ADD_SEALS, kFixedSize) != 0) {
    return UniqueFd();
  }
  return fd;
}

template <typename Layout>
Layout* Map(int fd) {
  void* const at = mmap(nullptr, sizeof(Layout), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  return at == MAP_FAILED ? nullptr : static_cast<Layout*>(at);
}

absl::Status Failure(const char* what) {
  return absl::ErrnoToStatus(errno, absl::StrCat("board for peers on this host: ", what));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Board>> Board::Create() {
  std::unique_ptr<Board> board(new Board);
  if (getrandom(board->nonce_.data(), sizeof(board->nonce_), 0) !=
      static_cast<ssize_t>(sizeof(board->nonce_))) {
    return Failure("getrandom");
  }
  // Zeroes are an empty board: of its pages only those exist that are used.
  const UniqueFd writable = MakeFile("sumac-board", sizeof(BoardLayout));
  if (!writable.valid()) return Failure("memfd");
  board->hazard_fd_ = MakeFile("sumac-hazards", sizeof(HazardLayout));
  if (!board->hazard_fd_.valid()) return Failure("memfd");
  board->board_fd_ =
      UniqueFd(open(absl::StrCat("/proc/self/fd/", writable.get()).c_str(), O_RDONLY | O_CLOEXEC));
  if (!board->board_fd_.valid()) return Failure("open of a memfd by /proc");
  board->board_ = Map<BoardLayout>(writable.get());
  board->hazards_ = Map<HazardLayout>(board->hazard_fd_.get());
  if (board->board_ == nullptr || board->hazards_ == nullptr) return Failure("mmap");
  board->board_->nonce = board->nonce_;
  return board;
}

Board::~Board() {
  if (board_ != nullptr) munmap(board_, sizeof(*board_));
  if (hazards_ != nullptr) munmap(hazards_, sizeof(*hazards_));
}

void Board::PublishKey(const KeyRecord& record) {
  Published<KeyRecord>* room = nullptr;
  for (uint32_t i = 0; i < kBoardKeyPlaces; ++i) {
    Published<KeyRecord>& place = board_->keys[KeyPlace(record.key, i)];
    KeyRecord there;
    uint64_t sequence = 0;
    if (!place.Read(&there, &sequence)) continue;  // never: we are the only writer
    if (there.key == record.key) return place.Write(record);
    if (there.key == 0 && room == nullptr) room = &place;
  }
  if (room != nullptr) room->Write(record);
}

void Board::WithdrawKey(uint32_t key) {
  for (uint32_t i = 0; i < kBoardKeyPlaces; ++i) {
    Published<KeyRecord>& place = board_->keys[KeyPlace(key, i)];
    KeyRecord there;
    uint64_t sequence = 0;
    if (place.Read(&there, &sequence) && there.key == key) place.Write({});
  }
}

void Board::PublishQueuePair(uint32_t index, const QueuePairRecord& record) {
  board_->queue_pairs[index % kBoardQueuePairs].Write(record);
}

bool Board::WithdrawQueuePair(uint32_t index) {
  Published<QueuePairRecord>& place = board_->queue_pairs[index % kBoardQueuePairs];
  QueuePairRecord there;
  uint64_t sequence = 0;
  if (place.Read(&there, &sequence) && there.qpn == 0) return false;
  place.Write({});
  return true;
}

void Board::WithdrawQueuePairs() {
  for (uint32_t i = 0; i < kBoardQueuePairs; ++i) WithdrawQueuePair(i);
}

}  // namespace sumac::soft_nic
