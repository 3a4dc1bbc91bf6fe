// Virtual time, and links that lose, repeat, reorder, damage, delay and queue packets under a seed.
//
// Packets travel as bytes: encoded with their ICRC when sent, verified and decoded when they
// arrive, so that damage is refused for the reason it is refused on a real wire. One thread; runs
// until no event is left or a limit is reached. The trace hash covers everything that happened, in
// order: two runs of one seed must agree on it.
#pragma once

#include <cstdint>
#include <functional>
#include <queue>
#include <utility>
#include <vector>

#include "tests/simulation/random.h"
#include "verbs/soft_nic/engine/ports.h"

namespace sumac::soft_nic::simulation {

// Rates in 1/10,000 of packets. Faults stop at `until`.
struct Faults {
  uint32_t loss = 0;
  uint32_t duplicate = 0;
  uint32_t reorder = 0;
  uint32_t corrupt = 0;
  Duration reorder_delay_max{};
  Time until{};
  std::vector<std::pair<Time, Time>> blackouts;  // nothing passes; also after `until`
};

struct LinkOptions {
  Duration delay = std::chrono::microseconds(5);
  uint64_t bytes_per_second = 0;  // 0: no limit
  uint64_t queue_bytes = 0;       // packets beyond are lost; 0: no limit
  Faults faults;
};

struct NetworkCounters {
  uint64_t sent = 0;
  uint64_t delivered = 0;
  uint64_t lost = 0;
  uint64_t queue_lost = 0;
  uint64_t duplicated = 0;
  uint64_t reordered = 0;
  uint64_t corrupted = 0;
  uint64_t refused = 0;  // ICRC or Decode
};

class VirtualNetwork {
 public:
  using Receiver = std::function<void(const PacketView& packet)>;

  explicit VirtualNetwork(uint64_t seed) : random(seed) {}

  Time now() const { return now_; }
  void At(Time time, std::function<void()> action);
  void After(Duration delay, std::function<void()> action) { At(now_ + delay, std::move(action)); }
  // Runs the next event. False when there is none.
  bool Step();

  // Returns the link's index.
  size_t AddLink(const LinkOptions& options);
  void AddReceiver(size_t link, uint32_t qpn, Receiver receiver);
  void Send(size_t link, const OutgoingPacket& packet);

  void Trace(uint64_t value) { trace_ = (trace_ ^ value) * 0x100000001b3 + (trace_ >> 29); }
  uint64_t trace() const { return trace_; }
  const NetworkCounters& counters() const { return counters_; }

  Random random;

 private:
  struct Event {
    Time time;
    uint64_t order;
    std::function<void()> action;
    bool operator<(const Event& other) const {  // std::priority_queue has the largest on top
      return time != other.time ? time > other.time : order > other.order;
    }
  };
  struct Link {
    LinkOptions options;
    Time free_at{};
    std::vector<std::pair<uint32_t, Receiver>> receivers;
  };
  using Bytes = std::vector<std::byte>;

  void Deliver(size_t link, const Bytes& bytes);

  Time now_{std::chrono::seconds(1)};
  uint64_t order_ = 0;
  uint64_t trace_ = 0xcbf29ce484222325;
  std::priority_queue<Event> events_;
  std::vector<Link> links_;
  NetworkCounters counters_;
};

}  // namespace sumac::soft_nic::simulation
