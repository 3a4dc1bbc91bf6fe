// A long mixture in a pipeline. Both sides draw the same plan from the seed, so each knows what the
// other does: the requester what a READ or an atomic must return, the responder what it receives
// and what its memory must hold in the end.
//
// The responder's zone: a part that is only read, words for atomics, the rest is written. A READ of
// what was written is followed by a fence, as nothing else orders what comes after it (IBTA vol. 1,
// 10.8.3.3).
#include <endian.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <random>

#include "absl/strings/str_cat.h"

#include "tests/interop/rc_peer/cases.h"

namespace sumac::interop {
namespace {

constexpr size_t kReadOnlyBytes = 256 << 10;
constexpr size_t kWords = 64;
constexpr size_t kWritten = kReadOnlyBytes + kWords * 8;  // where it begins
constexpr size_t kWrittenBytes = 1 << 20;
constexpr size_t kBytesMax = 64 << 10;
constexpr size_t kWindow = 32;       // requests posted and not yet completed
constexpr size_t kSlots = kWindow;   // of the requester's memory, one a request
constexpr size_t kReceives = 64;     // that the responder keeps posted
constexpr size_t kCreditEvery = 32;  // receives used before the requester waits for word of them
static_assert(kCreditEvery * 2 <= kReceives);

struct Step {
  ibv_wr_opcode opcode = IBV_WR_SEND;
  size_t offset = 0;
  size_t size = 0;
  uint64_t data = 0;  // seed of the pattern; operand of an atomic
  bool fence = false;
};

bool TakesReceive(const Step& step) {
  return step.opcode == IBV_WR_SEND || step.opcode == IBV_WR_SEND_WITH_IMM ||
         step.opcode == IBV_WR_RDMA_WRITE_WITH_IMM;
}

class Plan {
 public:
  Plan(uint64_t seed, uint32_t mtu) : random_(seed), mtu_(mtu) {}

  Step Next() {
    Step step;
    step.fence = std::exchange(fence_next_, false);
    step.data = random_();
    const uint64_t kind = random_() % 100;
    step.size = Size();
    if (kind < 30) {
      step.opcode = IBV_WR_RDMA_WRITE;
    } else if (kind < 40) {
      step.opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
    } else if (kind < 60) {
      step.opcode = kind < 50 ? IBV_WR_SEND : IBV_WR_SEND_WITH_IMM;
      return step;
    } else if (kind < 85) {
      step.opcode = IBV_WR_RDMA_READ;
      if (kind >= 65) {
        step.offset = random_() % (kReadOnlyBytes - step.size);
        return step;
      }
      fence_next_ = true;
    } else {
      step.opcode = kind < 92 ? IBV_WR_ATOMIC_CMP_AND_SWP : IBV_WR_ATOMIC_FETCH_AND_ADD;
      step.offset = kReadOnlyBytes + random_() % kWords * 8;
      step.size = 8;
      return step;
    }
    step.offset = kWritten + random_() % (kWrittenBytes - step.size);
    return step;
  }

 private:
  size_t Size() {
    switch (random_() % 16) {
      case 0:
        return 0;
      case 1:  // around the borders of packets
        return (1 + random_() % 4) * mtu_ + random_() % 3 - 1;
      case 2:
        return random_() % (8 * mtu_);
      case 3:
        return random_() % 8 == 0 ? random_() % kBytesMax : 4096;
      default:
        return random_() % 1500;
    }
  }

  std::mt19937_64 random_;
  uint32_t mtu_;
  bool fence_next_ = false;
};

// What the responder's zone holds once all steps so far are done.
class Model {
 public:
  explicit Model(uint64_t seed) { Fill(zone_, seed); }
  std::span<uint8_t> zone() { return zone_; }
  std::vector<uint8_t> Copy(const Step& step) const {
    return {zone_.begin() + static_cast<ptrdiff_t>(step.offset),
            zone_.begin() + static_cast<ptrdiff_t>(step.offset + step.size)};
  }
  uint64_t Compare(const Step& step) const {  // a comparison that holds, mostly
    return step.data % 4 == 0 ? step.data : Word(step);
  }
  void Apply(const Step& step) {
    uint8_t* const at = &zone_[step.offset];
    uint64_t word = 0;
    switch (step.opcode) {
      case IBV_WR_RDMA_WRITE:
      case IBV_WR_RDMA_WRITE_WITH_IMM:
        Fill({at, step.size}, step.data);
        break;
      case IBV_WR_ATOMIC_CMP_AND_SWP:
        word = Word(step) == Compare(step) ? ~step.data : Word(step);
        std::memcpy(at, &word, 8);
        break;
      case IBV_WR_ATOMIC_FETCH_AND_ADD:
        word = Word(step) + step.data;
        std::memcpy(at, &word, 8);
        break;
      default:
        break;
    }
  }

 private:
  uint64_t Word(const Step& step) const {
    uint64_t word;
    std::memcpy(&word, &zone_[step.offset], 8);
    return word;
  }
  std::vector<uint8_t> zone_ = std::vector<uint8_t>(kWritten + kWrittenBytes);
};

class Requester {
 public:
  Requester(Context& c, uint64_t seed) : c_(c), plan_(seed, c.end.mtu_bytes_max()), model_(seed) {}

  void Run() {
    for (uint64_t i = 0; i < c_.operations; ++i) {
      const Step step = plan_.Next();
      if (pending_.size() == kWindow) Complete();
      if (TakesReceive(step) && ++receives_ % kCreditEvery == 0 && receives_ > kCreditEvery) {
        c_.channel.Sync();  // the responder has posted anew what the last ones used
      }
      Post(step, i);
      model_.Apply(step);
    }
    while (!pending_.empty()) Complete();
  }
  Model& model() { return model_; }

 private:
  struct Pending {
    Step step;
    uint64_t index;
    std::vector<uint8_t> expected;  // of a READ or an atomic
  };

  std::span<uint8_t> Slot(uint64_t index) {
    return c_.end.source().subspan(index % kSlots * kBytesMax, kBytesMax);
  }

  void Post(const Step& step, uint64_t index) {
    const auto slot = Slot(index).first(step.size);
    Pending pending{step, index, {}};
    ibv_sge sge = c_.end.Sge(slot.data(), step.size);
    ibv_send_wr request = c_.end.Request(step.opcode, std::span(&sge, 1), step.offset);
    request.wr_id = index;
    request.imm_data = htobe32(static_cast<uint32_t>(index));
    if (step.fence) request.send_flags |= IBV_SEND_FENCE;
    switch (step.opcode) {
      case IBV_WR_RDMA_READ:
        pending.expected = model_.Copy(step);
        break;
      case IBV_WR_ATOMIC_CMP_AND_SWP:
        pending.expected = model_.Copy(step);
        request.wr.atomic.compare_add = model_.Compare(step);
        request.wr.atomic.swap = ~step.data;
        break;
      case IBV_WR_ATOMIC_FETCH_AND_ADD:
        pending.expected = model_.Copy(step);
        request.wr.atomic.compare_add = step.data;
        break;
      default:
        Fill(slot, step.data);
    }
    c_.end.Post(request);
    pending_.push_back(std::move(pending));
  }

  void Complete() {
    const ibv_wc wc = c_.end.NextSend();
    const Pending& oldest = pending_.front();
    const std::string what = absl::StrCat("operation ", oldest.index);
    ExpectStatus(wc, IBV_WC_SUCCESS, what);
    Check(wc.wr_id == oldest.index, absl::StrCat(what, ": ", wc.wr_id, " completed before it"));
    Check(std::equal(oldest.expected.begin(), oldest.expected.end(), Slot(oldest.index).begin()),
          absl::StrCat(what, ": ", oldest.expected.size(), " bytes came back wrong"));
    pending_.pop_front();
  }

  Context& c_;
  Plan plan_;
  Model model_;
  uint64_t receives_ = 0;
  std::deque<Pending> pending_;
};

class Responder {
 public:
  Responder(Context& c, uint64_t seed) : c_(c), plan_(seed, c.end.mtu_bytes_max()), model_(seed) {}

  // Before the requester begins.
  void Prepare() {
    std::copy(model_.zone().begin(), model_.zone().end(), c_.end.target().begin());
    for (uint64_t i = 0; i < kReceives; ++i) PostReceive(i);
  }

  void Run() {
    uint64_t receives = 0;
    for (uint64_t i = 0; i < c_.operations; ++i) {
      const Step step = plan_.Next();
      model_.Apply(step);
      if (!TakesReceive(step)) continue;
      if (++receives % kCreditEvery == 0 && receives > kCreditEvery) c_.channel.Sync();
      Receive(step, i, receives - 1);
    }
  }
  // After the requester's last completion.
  void CheckMemory() {
    const auto zone = c_.end.target();
    const auto [mine, theirs] =
        std::mismatch(model_.zone().begin(), model_.zone().end(), zone.begin());
    Check(mine == model_.zone().end(),
          absl::StrCat("byte ", mine - model_.zone().begin(), " of the memory is wrong"));
  }

 private:
  std::span<uint8_t> Slot(uint64_t receive) {
    return c_.end.source().subspan(receive % kReceives * kBytesMax, kBytesMax);
  }
  void PostReceive(uint64_t receive) {
    c_.end.PostReceive(Slot(receive).data(), kBytesMax, receive);
  }

  void Receive(const Step& step, uint64_t index, uint64_t receive) {
    const std::string what = absl::StrCat("operation ", index, ", receive ", receive);
    const ibv_wc wc = c_.end.NextReceive();
    ExpectStatus(wc, IBV_WC_SUCCESS, what);
    Check(wc.wr_id == receive, what + ": another receive completed");
    Check(wc.byte_len == step.size, absl::StrCat(what, ": ", wc.byte_len, " bytes"));
    if (step.opcode != IBV_WR_SEND) {
      Check(wc.imm_data == htobe32(static_cast<uint32_t>(index)), what + ": wrong immediate");
    }
    if (step.opcode != IBV_WR_RDMA_WRITE_WITH_IMM) {
      Expect(Slot(receive).first(step.size), step.data, what);
    }
    PostReceive(receive + kReceives);
  }

  Context& c_;
  Plan plan_;
  Model model_;
};

}  // namespace

uint64_t RandomOperations(Context& c) {
  static_assert(kSlots * kBytesMax <= kZoneBytes && kReceives * kBytesMax <= kZoneBytes);
  c.end.Reconnect({});
  const uint64_t seed = c.seed;
  if (c.requester) {
    Requester requester(c, seed);
    c.channel.Sync();
    requester.Run();
    c.channel.Sync();
  } else {
    Responder responder(c, seed);
    responder.Prepare();
    c.channel.Sync();
    responder.Run();
    c.channel.Sync();
    responder.CheckMemory();
  }
  return c.operations;
}

}  // namespace sumac::interop
