#include "verbs/soft_nic/local/board.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <atomic>
#include <memory>
#include <thread>

namespace sumac::soft_nic {
namespace {

// What a peer sees of a board.
class View {
 public:
  explicit View(const Board& board)
      : layout_(static_cast<const BoardLayout*>(
            mmap(nullptr, sizeof(BoardLayout), PROT_READ, MAP_SHARED, board.board_fd(), 0))),
        hazards_(
            static_cast<HazardLayout*>(mmap(nullptr, sizeof(HazardLayout), PROT_READ | PROT_WRITE,
                                            MAP_SHARED, board.hazard_fd(), 0))) {}
  ~View() {
    munmap(const_cast<BoardLayout*>(layout_), sizeof(*layout_));
    munmap(hazards_, sizeof(*hazards_));
  }
  View(const View&) = delete;
  View& operator=(const View&) = delete;

  // How many records of this key there are; the last one.
  int Find(uint32_t key, KeyRecord* record) const {
    int found = 0;
    for (uint32_t i = 0; i < kBoardKeyPlaces; ++i) {
      KeyRecord there;
      uint64_t sequence = 0;
      if (!layout_->keys[KeyPlace(key, i)].Read(&there, &sequence) || there.key != key) continue;
      *record = there;
      ++found;
    }
    return found;
  }
  const BoardLayout& layout() const { return *layout_; }
  HazardLayout& hazards() const { return *hazards_; }

 private:
  const BoardLayout* layout_;
  HazardLayout* hazards_;
};

class BoardTest : public ::testing::Test {
 protected:
  std::unique_ptr<Board> board = *Board::Create();
  View view{*board};
};

TEST_F(BoardTest, KeysComeChangeAndGo) {
  KeyRecord record;
  EXPECT_EQ(view.Find(0x12345678, &record), 0);
  board->PublishKey({.key = 0x12345678, .access = 3, .addr = 100, .length = 50});
  board->PublishKey({.key = 0x12345678, .access = 1, .addr = 200, .length = 60});
  ASSERT_EQ(view.Find(0x12345678, &record), 1);
  EXPECT_EQ(record.addr, 200u);
  EXPECT_EQ(record.access, 1);
  board->WithdrawKey(0x12345678);
  EXPECT_EQ(view.Find(0x12345678, &record), 0);
  board->WithdrawKey(0x12345678);
}

TEST_F(BoardTest, RememberedRecordHoldsUntilItIsWrittenAnew) {
  Remembered<KeyRecord> remembered;
  EXPECT_FALSE(remembered.StillHolds());
  const auto& place = view.layout().keys[KeyPlace(0x12345678, 0)];
  board->PublishKey({.key = 0x12345678, .access = 3, .addr = 100, .length = 50});
  ASSERT_TRUE(remembered.Read(place));
  EXPECT_TRUE(remembered.StillHolds());
  EXPECT_EQ(remembered.record().addr, 100u);
  board->PublishKey({.key = 0x12345678, .access = 1, .addr = 200, .length = 60});
  EXPECT_FALSE(remembered.StillHolds());
  ASSERT_TRUE(remembered.Read(place));
  EXPECT_EQ(remembered.record().addr, 200u);
  board->WithdrawKey(0x12345678);
  EXPECT_FALSE(remembered.StillHolds());
  ASSERT_TRUE(remembered.Read(place));
  EXPECT_EQ(remembered.record().key, 0u);
  // Another place is another record, whatever its sequence number.
  EXPECT_TRUE(remembered.Read(view.layout().keys[KeyPlace(0x12345678, 1)]));
  remembered.Forget();
  EXPECT_FALSE(remembered.StillHolds());
}

TEST_F(BoardTest, KeysOfOnePlaceStandBesideEachOther) {
  // They differ in the low 8 bits, which choose nothing.
  const auto key = [](uint32_t i) { return 0xabcdef00u + i; };
  KeyRecord record;
  for (uint32_t i = 0; i < kBoardKeyPlaces + 2; ++i) {
    board->PublishKey({.key = key(i), .addr = i, .length = 1});
  }
  for (uint32_t i = 0; i < kBoardKeyPlaces; ++i) {
    ASSERT_EQ(view.Find(key(i), &record), 1);
    EXPECT_EQ(record.addr, i);
  }
  EXPECT_EQ(view.Find(key(kBoardKeyPlaces), &record), 0) << "no room: it works by packets";
  board->WithdrawKey(key(3));
  EXPECT_EQ(view.Find(key(3), &record), 0);
  EXPECT_EQ(view.Find(key(4), &record), 1) << "behind a gap";
  board->PublishKey({.key = key(kBoardKeyPlaces), .addr = 99, .length = 1});
  EXPECT_EQ(view.Find(key(kBoardKeyPlaces), &record), 1);
  // One that has a place keeps it, also when there is a gap before it.
  board->WithdrawKey(key(0));
  board->PublishKey({.key = key(5), .addr = 55, .length = 1});
  EXPECT_EQ(view.Find(key(5), &record), 1);
}

TEST_F(BoardTest, QueuePairsComeAndGo) {
  QueuePairRecord record;
  uint64_t sequence = 0;
  board->PublishQueuePair(kBoardQueuePairs + 7, {.qpn = 0x1007, .remote_qpn = 5, .access = 2});
  ASSERT_TRUE(view.layout().queue_pairs[7].Read(&record, &sequence));
  EXPECT_EQ(record.qpn, 0x1007u);
  EXPECT_TRUE(board->WithdrawQueuePair(7));
  EXPECT_FALSE(board->WithdrawQueuePair(7));
  uint64_t later = 0;
  ASSERT_TRUE(view.layout().queue_pairs[7].Read(&record, &later));
  EXPECT_EQ(record.qpn, 0u);
  EXPECT_NE(later, sequence);
}

TEST_F(BoardTest, HazardsNameQueuePairAndKey) {
  view.hazards().lines[3].in_use.store(HazardOf(0x00abcdef, 0x87654321));
  EXPECT_TRUE(board->UsesKey(3, 0x87654321));
  EXPECT_TRUE(board->UsesQueuePair(3, 0x00abcdef));
  EXPECT_FALSE(board->UsesKey(3, 0x87654320));
  EXPECT_FALSE(board->UsesKey(2, 0x87654321));
  board->ClearLine(3);
  EXPECT_FALSE(board->UsesKey(3, 0x87654321));
}

TEST_F(BoardTest, PeersCanNeitherWriteNorShrinkIt) {
  EXPECT_EQ(
      mmap(nullptr, sizeof(BoardLayout), PROT_READ | PROT_WRITE, MAP_SHARED, board->board_fd(), 0),
      MAP_FAILED);
  EXPECT_NE(ftruncate(board->hazard_fd(), 0), 0);
  EXPECT_EQ(view.layout().nonce, board->nonce());
}

// A reader sees whole records only.
TEST_F(BoardTest, RecordsAreNeverTorn) {
  std::atomic<bool> stop{false};
  std::thread reader([&] {
    KeyRecord record;
    while (!stop) {
      if (view.Find(0x500, &record) == 0) continue;
      ASSERT_EQ(record.addr, record.length);
      ASSERT_EQ(record.addr, record.place);
      ASSERT_EQ(record.addr, record.file);
    }
  });
  for (uint64_t i = 0; i < 100'000; ++i) {
    board->PublishKey({.key = 0x500, .domain = i, .addr = i, .length = i, .place = i, .file = i});
    if (i % 16 == 0) board->WithdrawKey(0x500);
  }
  stop = true;
  reader.join();
}

// The promise of it all: once a key is withdrawn and no line names it, nobody gets at it.
TEST_F(BoardTest, NobodyUsesAKeyAfterItsOwnerHasWaited) {
  constexpr uint32_t kKey = 0x700;
  std::atomic<bool> open{false};  // between publishing, and withdrawing and waiting
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> uses{0};
  std::thread user([&] {
    KeyRecord record;
    std::atomic<uint64_t>& line = view.hazards().lines[0].in_use;
    while (!stop) {
      line.exchange(HazardOf(1, kKey));
      if (view.Find(kKey, &record) != 0) {
        ASSERT_TRUE(open);
        ++uses;
      }
      line.store(0, std::memory_order_release);
    }
  });
  uint64_t rounds = 0;
  for (; rounds < 20'000; ++rounds) {
    open = true;
    board->PublishKey({.key = kKey, .length = 1});
    // Now and then long enough to be used, also on one processor.
    const uint64_t before = uses;
    while (rounds % 256 == 0 && uses == before) std::this_thread::yield();
    board->WithdrawKey(kKey);
    while (board->UsesKey(0, kKey)) std::this_thread::yield();
    open = false;
  }
  stop = true;
  user.join();
}

}  // namespace
}  // namespace sumac::soft_nic
