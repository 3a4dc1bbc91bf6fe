#include "verbs/soft_nic/link/neighbours.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

#include "tests/support/eventually.h"
#include "verbs/soft_nic/link/abstract_socket.h"
#include "verbs/soft_nic/link/packet_ring.h"
#include "verbs/soft_nic/link/sleep_flag.h"

namespace sumac::soft_nic {
namespace {

using test_support::Eventually;

// A process, as far as neighbours see it.
class Process : public NeighbourSink {
 public:
  Process(const std::string& names, uint32_t slot)
      : sleep_(*SharedPages::Create("test-sleep", SleepFlag::kBytes)),
        event_(::eventfd(0, EFD_NONBLOCK)) {
    auto made = Neighbours::Create({names, slot, sleep_.fd(), event_.get()}, *this);
    EXPECT_TRUE(made.ok()) << made.status();
    if (made.ok()) neighbours_ = *std::move(made);
  }

  void SetNeighbour(uint32_t slot, std::optional<Neighbour> neighbour) override {
    ++changes;
    if (neighbour) {
      known[slot] = *std::move(neighbour);
    } else {
      known.erase(slot);
    }
  }

  Neighbours& neighbours() { return *neighbours_; }
  void Serve() { neighbours_->OnReadable(); }

  std::map<uint32_t, Neighbour> known;
  int changes = 0;

 private:
  SharedPages sleep_;
  UniqueFd event_;
  std::unique_ptr<Neighbours> neighbours_;
};

class NeighboursTest : public ::testing::Test {
 protected:
  NeighboursTest() {
    static int count = 0;
    names_ = absl::StrCat("sumac/neighbours/", ::getpid(), "/", ++count, "/");
  }

  static bool ServeUntil(const std::vector<Process*>& processes,
                         const std::function<bool()>& done) {
    return Eventually([&] {
      for (Process* process : processes) process->Serve();
      return done();
    });
  }
  // Everything that is on its way arrives within these turns: nothing here waits for a clock.
  static void ServeForAWhile(const std::vector<Process*>& processes) {
    for (int turn = 0; turn < 20; ++turn) {
      for (Process* process : processes) process->Serve();
    }
  }

  // What one writes the other reads, both ways.
  static void ExpectConnected(Process& a, uint32_t slot_a, Process& b, uint32_t slot_b) {
    for (auto [from, to, at_from, at_to] :
         {std::tuple(&a, &b, slot_b, slot_a), std::tuple(&b, &a, slot_a, slot_b)}) {
      PacketRingWriter writer(from->known.at(at_from).outgoing.bytes());
      PacketRingReader reader(to->known.at(at_to).incoming.bytes());
      ASSERT_TRUE(writer.Write(OutgoingPacket{}));
      EXPECT_FALSE(reader.Front().empty());
    }
  }

  std::string names_;
};

TEST_F(NeighboursTest, EitherMayCall) {
  for (const bool lower_calls : {true, false}) {
    Process low(names_, 3);
    Process high(names_, 9);
    lower_calls ? low.neighbours().Want(9) : high.neighbours().Want(3);
    ASSERT_TRUE(ServeUntil({&low, &high},
                           [&] { return low.known.count(9) == 1 && high.known.count(3) == 1; }));
    ExpectConnected(low, 3, high, 9);
  }
}

TEST_F(NeighboursTest, WhenBothCallOneConnectionRemains) {
  for (int order = 0; order < 20; ++order) {
    const std::string names = absl::StrCat(names_, order, "/");
    Process low(names, 3);
    Process high(names, 9);
    low.neighbours().Want(9);
    high.neighbours().Want(3);
    // In every order of the first steps.
    for (int step = 0; step < 4; ++step) ((order >> step) % 2 != 0 ? low : high).Serve();
    ASSERT_TRUE(ServeUntil({&low, &high},
                           [&] { return low.known.count(9) == 1 && high.known.count(3) == 1; }));
    ServeForAWhile({&low, &high});
    ASSERT_EQ(low.known.count(9), 1u) << order;
    ASSERT_EQ(high.known.count(3), 1u) << order;
    ExpectConnected(low, 3, high, 9);
  }
}

TEST_F(NeighboursTest, WantingAgainChangesNothing) {
  Process low(names_, 3);
  Process high(names_, 9);
  low.neighbours().Want(9);
  ASSERT_TRUE(ServeUntil({&low, &high},
                         [&] { return low.known.count(9) == 1 && high.known.count(3) == 1; }));
  low.neighbours().Want(9);
  high.neighbours().Want(3);
  ServeForAWhile({&low, &high});
  EXPECT_EQ(low.changes, 1);
  EXPECT_EQ(high.changes, 1);
}

TEST_F(NeighboursTest, NobodyIsThereAndOneself) {
  Process process(names_, 3);
  process.neighbours().Want(9);
  process.neighbours().Want(3);
  ServeForAWhile({&process});
  EXPECT_EQ(process.changes, 0);
}

TEST_F(NeighboursTest, ALeaverIsNoticed) {
  Process low(names_, 3);
  {
    Process high(names_, 9);
    low.neighbours().Want(9);
    ASSERT_TRUE(ServeUntil({&low, &high},
                           [&] { return low.known.count(9) == 1 && high.known.count(3) == 1; }));
  }
  EXPECT_TRUE(ServeUntil({&low}, [&] { return low.known.empty(); }));
}

TEST_F(NeighboursTest, ASuccessorIsMetEvenBeforeTheLeaverIsNoticed) {
  for (const uint32_t successor_calls : {0, 1}) {
    Process low(names_, 3);
    auto high = std::make_unique<Process>(names_, 9);
    low.neighbours().Want(9);
    ASSERT_TRUE(ServeUntil({&low, high.get()},
                           [&] { return low.known.count(9) == 1 && high->known.count(3) == 1; }));
    high.reset();
    high = std::make_unique<Process>(names_, 9);
    if (successor_calls != 0) {
      high->neighbours().Want(3);
      high->Serve();
    } else {
      low.neighbours().Want(9);
    }
    ASSERT_TRUE(ServeUntil({&low, high.get()}, [&] { return high->known.count(3) == 1; }));
    ServeForAWhile({&low, high.get()});
    ASSERT_EQ(low.known.count(9), 1u);
    ExpectConnected(low, 3, *high, 9);
  }
}

TEST_F(NeighboursTest, ANameThatIsTakenIsAnError) {
  const Process first(names_, 3);
  const SharedPages sleep = *SharedPages::Create("test-sleep", SleepFlag::kBytes);
  const UniqueFd event(::eventfd(0, EFD_NONBLOCK));
  class Nobody : public NeighbourSink {
    void SetNeighbour(uint32_t, std::optional<Neighbour>) override {}
  } nobody;
  EXPECT_FALSE(Neighbours::Create({names_, 3, sleep.fd(), event.get()}, nobody).ok());
}

// What a stranger, or another version, may say instead of the message.
class NonsenseTest : public NeighboursTest {
 protected:
  struct Said {
    char magic[16];
    uint32_t slot;
  };

  NonsenseTest() : process_(names_, 9), pages_(*SharedPages::Create("test", ring_bytes_)) {}

  void Say(const Said& said, const std::vector<int>& fds, size_t bytes = sizeof(Said)) {
    const UniqueFd call = ConnectToName(absl::StrCat(names_, "neighbour/9"));
    ASSERT_TRUE(call.valid());
    ASSERT_TRUE(SendDescriptors(call.get(), &said, bytes, fds));
    ServeForAWhile({&process_});
    EXPECT_EQ(process_.changes, 0);
  }

  const size_t ring_bytes_ = kPacketRingLine + (512 << 10);
  Process process_;
  SharedPages pages_;
  const Said good_ = {"sumac-neighbr-1", 3};
};

TEST_F(NonsenseTest, IsRefused) {
  const UniqueFd event(::eventfd(0, EFD_NONBLOCK));
  const int ring = pages_.fd();
  const SharedPages small = *SharedPages::Create("test", 4096);
  Say({"sumac-neighbr-2", 3}, {ring, ring, ring, event.get()});
  Say({"sumac-neighbr-1", 9}, {ring, ring, ring, event.get()});           // itself
  Say({"sumac-neighbr-1", 64}, {ring, ring, ring, event.get()});          // no slot
  Say({"sumac-neighbr-1", 0xffffffff}, {ring, ring, ring, event.get()});  // no slot
  Say(good_, {ring});
  Say(good_, {ring, event.get()});  // the lower slot makes the rings
  Say(good_, {ring, ring, ring, ring, event.get()});
  Say(good_, {small.fd(), ring, ring, event.get()});
  Say(good_, {ring, small.fd(), ring, event.get()});
  Say(good_, {event.get(), ring, ring, event.get()});
  Say(good_, {ring, ring, event.get(), event.get()});
  Say(good_, {ring, ring, ring, event.get()}, sizeof(Said) - 1);
}

TEST_F(NonsenseTest, TheGoodMessageIsNot) {
  const UniqueFd event(::eventfd(0, EFD_NONBLOCK));
  const UniqueFd call = ConnectToName(absl::StrCat(names_, "neighbour/9"));
  const int ring = pages_.fd();
  ASSERT_TRUE(SendDescriptors(call.get(), &good_, sizeof(good_), {ring, ring, ring, event.get()}));
  EXPECT_TRUE(ServeUntil({&process_}, [&] { return process_.known.count(3) == 1; }));
  // But only once.
  ASSERT_TRUE(SendDescriptors(call.get(), &good_, sizeof(good_), {ring, ring, ring, event.get()}));
  EXPECT_TRUE(ServeUntil({&process_}, [&] { return process_.known.empty(); }));
}

TEST_F(NonsenseTest, SilentCallersAreBounded) {
  std::vector<UniqueFd> calls;
  for (int i = 0; i < 300; ++i) {
    UniqueFd call = ConnectToName(absl::StrCat(names_, "neighbour/9"));
    if (call.valid()) calls.push_back(std::move(call));
    process_.Serve();
  }
  calls.clear();
  ServeForAWhile({&process_});
  Process low(names_, 3);
  low.neighbours().Want(9);
  EXPECT_TRUE(ServeUntil({&process_, &low}, [&] { return process_.known.count(3) == 1; }));
}

}  // namespace
}  // namespace sumac::soft_nic
