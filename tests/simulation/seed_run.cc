#include "tests/simulation/seed_run.h"

#include <algorithm>
#include <memory>
#include <sstream>
#include <vector>

#include "tests/simulation/workload.h"
#include "verbs/soft_nic/engine/timers.h"

namespace sumac::soft_nic::simulation {
namespace {

constexpr uint64_t kEventsMax = 20'000'000;
constexpr Duration kVirtualTimeMax = std::chrono::hours(24);

struct Drawn {
  LinkOptions links[2];
  ConversationOptions conversation;
  uint32_t conversations = 1;
  bool clean = false;  // nothing can go wrong on the way: nothing may be sent twice
};

Faults DrawFaults(Random& random, const LinkOptions& link, Time start) {
  Faults faults;
  // One kind alone, or all together. Rates stay where eight tries in a row never fail.
  const auto rate = [&random](uint32_t most) {
    return random.Chance(5000) ? static_cast<uint32_t>(random.Below(most)) : 0;
  };
  faults.loss = rate(1000);
  faults.duplicate = rate(2000);
  faults.reorder = rate(2000);
  faults.corrupt = rate(400);
  faults.reorder_delay_max = link.delay * static_cast<int64_t>(random.Between(1, 4));
  faults.until = start + std::chrono::milliseconds(random.Between(1, 400));
  return faults;
}

LinkOptions DrawLink(Random& random, Time start, bool clean) {
  LinkOptions link;
  link.delay = std::chrono::microseconds(random.Between(1, 200));
  if (random.Chance(5000)) link.bytes_per_second = random.Between(50, 2000) * 1'000'000;
  if (clean) return link;
  link.faults = DrawFaults(random, link, start);
  return link;
}

ConversationOptions DrawConversation(Random& random, bool clean) {
  static constexpr uint32_t kMtus[] = {256, 512, 1024, 2048, 4096};
  ConversationOptions options;
  options.mtu = kMtus[random.Below(5)];
  options.requests[0] = static_cast<uint32_t>(random.Between(1, 60));
  options.requests[1] = static_cast<uint32_t>(random.Below(60));
  static constexpr uint32_t kSizes[] = {16, 2000, 20000, 100000};
  options.message_bytes_max = kSizes[random.Below(4)];
  if (options.message_bytes_max == 100000) {
    options.requests[0] = options.requests[0] / 4 + 1;
    options.requests[1] /= 4;
  }
  options.max_wr = static_cast<uint32_t>(random.Between(1, 24));
  options.max_sge = static_cast<uint32_t>(random.Between(1, 5));
  options.max_rd_atomic = static_cast<uint8_t>(random.Between(1, 16));
  options.rnr_timer = static_cast<uint8_t>(random.Between(1, 14));
  for (uint32_t& psn : options.first_psn) {
    psn = static_cast<uint32_t>(random.Chance(5000) ? 0xffffff - random.Below(64)
                                                    : random.Below(1 << 24));
  }
  options.signal_all = random.Chance(3000);
  options.post_gap_max = std::chrono::microseconds(random.Below(500));
  if (!clean && random.Chance(5000)) {
    options.receive_delay_max = std::chrono::microseconds(random.Between(1, 2000));
  }
  options.refuse_rate = random.Chance(3000) ? static_cast<uint32_t>(random.Below(3000)) : 0;
  options.congestion.window_bytes_max = static_cast<uint32_t>(random.Between(4, 256) << 10);
  options.congestion.window_bytes_initial = static_cast<uint32_t>(random.Between(1, 256) << 10);
  options.congestion.read_chunk_bytes = static_cast<uint32_t>(random.Between(1, 64) << 10);
  options.congestion.ack_interval_packets = static_cast<uint32_t>(random.Between(1, 32));
  return options;
}

// A timeout that fires only when something was lost: both ways, with everybody's windows queued
// before us.
uint8_t DrawTimeout(Random& random, const Drawn& drawn) {
  Duration worst{};
  for (const LinkOptions& link : drawn.links) {
    worst += link.delay + link.faults.reorder_delay_max;
    if (link.bytes_per_second != 0) {
      const uint64_t window = std::max(drawn.conversation.congestion.window_bytes_max,
                                       drawn.conversation.congestion.read_chunk_bytes) +
                              8192;
      worst += Duration(static_cast<int64_t>(4 * drawn.conversations * window * 1'000'000'000 /
                                             link.bytes_per_second));
    }
  }
  worst += std::chrono::milliseconds(1);  // refusals by the link
  uint8_t code = 1;
  while (AckTimeout(code) < 2 * worst) ++code;
  return static_cast<uint8_t>(code + random.Below(3));
}

Drawn Draw(Random& random, Time start) {
  Drawn drawn;
  drawn.clean = random.Chance(1000);
  for (LinkOptions& link : drawn.links) link = DrawLink(random, start, drawn.clean);
  drawn.conversations = static_cast<uint32_t>(random.Between(1, 4));
  drawn.conversation = DrawConversation(random, drawn.clean);
  drawn.conversation.ack_timeout = DrawTimeout(random, drawn);
  // Probes that only a loss sets off on a clean network, any others elsewhere.
  const auto longest = static_cast<uint64_t>(AckTimeout(drawn.conversation.ack_timeout).count());
  drawn.conversation.congestion.tail_probe_us = static_cast<uint32_t>(
      drawn.clean ? longest / 1000 - 1 : (random.Chance(5000) ? random.Below(longest / 1000) : 0));
  if (!drawn.clean && random.Chance(2000)) {
    drawn.conversation.doom = static_cast<Doom>(random.Between(1, 5));
  }
  if (!drawn.clean && random.Chance(3000)) {
    // Shorter than the retries last.
    const Duration length = AckTimeout(drawn.conversation.ack_timeout) * random.Between(1, 2);
    const Time begin = start + std::chrono::microseconds(random.Below(2000));
    drawn.links[random.Below(2)].faults.blackouts.emplace_back(begin, begin + length);
  }
  if (drawn.conversation.doom == Doom::kSilence) {
    const Time begin = start + std::chrono::microseconds(random.Below(2000));
    drawn.links[random.Below(2)].faults.blackouts.emplace_back(begin, kNever);
  }
  return drawn;
}

std::string Describe(const Drawn& drawn) {
  std::ostringstream text;
  const ConversationOptions& c = drawn.conversation;
  text << drawn.conversations << " conversations, " << c.requests[0] << "+" << c.requests[1]
       << " requests up to " << c.message_bytes_max << " B, MTU " << c.mtu << ", max_wr "
       << c.max_wr << ", max_rd_atomic " << int{c.max_rd_atomic} << ", ack timeout "
       << int{c.ack_timeout} << ", window " << c.congestion.window_bytes_max << ", read chunk "
       << c.congestion.read_chunk_bytes << ", doom " << static_cast<int>(c.doom)
       << (drawn.clean ? ", clean" : "")
       << (c.receive_delay_max.count() != 0 ? ", late buffers" : "");
  for (const LinkOptions& link : drawn.links) {
    text << "; link: delay " << link.delay.count() / 1000 << " us, "
         << link.bytes_per_second / 1'000'000 << " MB/s, loss " << link.faults.loss
         << ", duplicate " << link.faults.duplicate << ", reorder " << link.faults.reorder
         << ", corrupt " << link.faults.corrupt << ", blackouts " << link.faults.blackouts.size();
  }
  return text.str();
}

}  // namespace

void Accumulate(QueuePairCounters* sum, const QueuePairCounters& more) {
  static_assert(sizeof(QueuePairCounters) % sizeof(uint64_t) == 0);
  auto* to = reinterpret_cast<uint64_t*>(sum);
  const auto* from = reinterpret_cast<const uint64_t*>(&more);
  for (size_t i = 0; i < sizeof(QueuePairCounters) / sizeof(uint64_t); ++i) to[i] += from[i];
}

RunResult RunSeed(uint64_t seed) {
  RunResult result;
  VirtualNetwork network(seed);
  const Time start = network.now();
  const Drawn drawn = Draw(network.random, start);
  result.configuration = Describe(drawn);
  const size_t links[2] = {network.AddLink(drawn.links[0]), network.AddLink(drawn.links[1])};
  std::vector<std::unique_ptr<Conversation>> conversations;
  for (uint32_t i = 0; i < drawn.conversations; ++i) {
    conversations.push_back(
        std::make_unique<Conversation>(network, links, 0x100 + 2 * i, drawn.conversation));
  }
  for (auto& conversation : conversations) conversation->Start();
  // Until nothing at all is left to happen: no packet on its way, no timer.
  while (result.events < kEventsMax && network.now() - start < kVirtualTimeMax && network.Step()) {
    ++result.events;
  }
  std::ostringstream complaints;
  for (auto& conversation : conversations) {
    if (!conversation->finished()) complaints << "unfinished:" << conversation->Progress() << "\n";
    conversation->CheckAtEnd();
    complaints << conversation->complaints();
    for (int side : {0, 1}) Accumulate(&result.engines, conversation->counters(side));
  }
  result.trace = network.trace();
  result.virtual_time = network.now() - start;
  result.network = network.counters();
  if (drawn.clean && (result.engines.retransmitted_packets != 0 || result.engines.timeouts != 0 ||
                      result.engines.sequence_naks_sent != 0)) {
    complaints << "clean network, yet " << result.engines.retransmitted_packets
               << " packets were sent again\n";
  }
  if (result.network.refused > result.network.corrupted)
    complaints << "a sound packet was refused\n";
  result.complaints = complaints.str();
  return result;
}

}  // namespace sumac::soft_nic::simulation
