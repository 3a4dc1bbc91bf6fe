// Virtual time, and links between nodes that lose, repeat, reorder, damage, mark, delay and queue
// packets under a seed.
//
// Packets travel as bytes: encoded with their ICRC when sent, verified and decoded when they
// arrive, so that damage is refused for the reason it is refused on a real wire. One thread; runs
// until no event is left or a limit is reached. The trace hash covers everything that happened, in
// order: two runs of one seed must agree on it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <queue>
#include <utility>
#include <vector>

#include "tests/simulation/random.h"
#include "verbs/soft_nic/engine/ports.h"

namespace sumac::soft_nic::simulation {

using Period = std::pair<Time, Time>;  // [begin, end)

// Rates in 1/10,000 of packets. Faults stop at `until`, periods at their own ends.
struct Faults {
  uint32_t loss = 0;
  uint32_t duplicate = 0;
  uint32_t reorder = 0;
  uint32_t corrupt = 0;
  uint32_t mark = 0;  // ECN "congestion experienced"
  // A late packet comes after a random delay up to this. With a depth it waits for up to so many
  // later packets to overtake it, and for no longer than this.
  Duration reorder_delay_max{};
  uint32_t reorder_depth = 0;
  Time until{};
  std::vector<Period> blackouts;  // nothing passes
  std::vector<Period> narrow;     // packets with a longer payload than narrow_bytes are lost
  uint32_t narrow_bytes = 0;
};

inline constexpr size_t kNoPort = ~size_t{0};

struct LinkOptions {
  uint32_t from = 0;  // nodes: they decide about addresses
  uint32_t to = 1;
  size_t port = kNoPort;  // shared with other links: what the receiver can take in
  Duration delay = std::chrono::microseconds(5);
  uint64_t bytes_per_second = 0;  // 0: no limit
  uint64_t queue_bytes = 0;       // packets beyond are lost; 0: no limit
  Faults faults;
};

struct PortOptions {
  uint64_t bytes_per_second = 0;
  uint64_t queue_bytes = 0;  // until `until`; no limit afterwards
  Time until{};
};

struct NetworkCounters {
  uint64_t sent = 0;
  uint64_t delivered = 0;
  uint64_t lost = 0;
  uint64_t blacked_out = 0;
  uint64_t too_long = 0;
  uint64_t queue_lost = 0;
  uint64_t duplicated = 0;
  uint64_t reordered = 0;
  uint64_t corrupted = 0;
  uint64_t marked = 0;
  uint64_t refused = 0;           // ICRC or Decode
  uint64_t damaged_accepted = 0;  // must stay 0
};

// The address of a node: ::ffff:10.0.0.(node + 1).
Gid NodeAddress(uint32_t node);

class VirtualNetwork {
 public:
  using Receiver = std::function<void(const PacketView& packet, const Gid& source)>;

  explicit VirtualNetwork(uint64_t seed) : random(seed) {}

  Time now() const { return now_; }
  void At(Time time, std::function<void()> action);
  void After(Duration delay, std::function<void()> action) { At(now_ + delay, std::move(action)); }
  // Runs the next event. False when there is none.
  bool Step();

  // Each returns the index.
  size_t AddPort(const PortOptions& options);
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
  struct Copy {
    std::vector<std::byte> bytes;
    bool damaged = false;
    bool marked = false;
    uint64_t overtaken_by = 0;  // held until so many later packets have been sent; 0: not held
  };
  struct Link {
    LinkOptions options;
    Time free_at{};
    std::vector<std::pair<uint32_t, Receiver>> receivers;
    std::vector<std::shared_ptr<Copy>> held;
  };
  struct Port {
    PortOptions options;
    Time free_at{};
  };

  bool Passes(const Faults& faults, uint64_t payload_bytes);
  // When a packet that comes to a bottleneck at `arrival` is through; kNever: no room there.
  Time Queue(Time arrival, Time& free_at, uint64_t bytes_per_second, uint64_t queue_bytes,
             uint64_t bytes);
  void SendCopy(size_t link, const std::shared_ptr<Copy>& copy, Duration delay, bool faulty);
  void Damage(Copy& copy);
  void ReleaseHeld(size_t link);
  void Deliver(size_t link, const Copy& copy);

  Time now_{std::chrono::seconds(1)};
  uint64_t order_ = 0;
  uint64_t trace_ = 0xcbf29ce484222325;
  std::priority_queue<Event> events_;
  std::vector<Link> links_;
  std::vector<Port> ports_;
  NetworkCounters counters_;
};

}  // namespace sumac::soft_nic::simulation
