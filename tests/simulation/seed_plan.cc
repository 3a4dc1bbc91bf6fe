#include "tests/simulation/seed_plan.h"

#include <algorithm>
#include <sstream>

#include "verbs/soft_nic/engine/timers.h"

namespace sumac::soft_nic::simulation {
namespace {

uint32_t Draw32(Random& random, uint64_t first, uint64_t last) {
  return static_cast<uint32_t>(random.Between(first, last));
}

// Up to `most` in half of the cases, otherwise 0: one kind of fault alone, or several together.
uint32_t DrawRate(Random& random, uint32_t most) {
  return random.Chance(5000) ? static_cast<uint32_t>(random.Below(most + 1)) : 0;
}

uint32_t DrawNodes(Random& random) {
  const uint64_t kind = random.Below(100);
  if (kind < 45) return 2;
  if (kind < 75) return Draw32(random, 3, 4);
  if (kind < 92) return Draw32(random, 5, 8);
  return Draw32(random, 9, 16);
}

Faults DrawFaults(Random& random, const LinkOptions& link, Weather weather, Time start) {
  const bool harsh = weather == Weather::kHarsh;
  Faults faults;
  faults.loss = DrawRate(random, harsh ? 3000 : 500);
  faults.duplicate = DrawRate(random, harsh ? 5000 : 2000);
  faults.reorder = DrawRate(random, harsh ? 5000 : 2000);
  faults.corrupt = DrawRate(random, harsh ? 500 : 200);
  faults.mark = random.Chance(2000) ? DrawRate(random, 3000) : 0;
  faults.reorder_delay_max = link.delay * static_cast<int64_t>(random.Between(1, 4));
  if (random.Chance(3000)) {
    faults.reorder_depth = random.Chance(5000) ? Draw32(random, 1, 16) : Draw32(random, 1, 256);
  }
  faults.until = start + std::chrono::milliseconds(random.Between(1, harsh ? 100 : 400));
  return faults;
}

// Full mesh; a slow receiver is a port that all links to a node share.
void DrawLinks(Random& random, Time start, SeedPlan* plan) {
  plan->links.resize(size_t{plan->nodes} * plan->nodes);
  plan->ports.resize(plan->nodes);
  for (uint32_t node = 0; node < plan->nodes; ++node) {
    if (!random.Chance(2500)) continue;
    PortOptions& port = plan->ports[node];
    port.bytes_per_second = random.Between(30, 500) * 1'000'000;
    if (plan->weather != Weather::kHarsh) continue;
    port.queue_bytes = random.Between(16, 256) << 10;
    port.until = start + std::chrono::milliseconds(random.Between(1, 100));
  }
  for (uint32_t from = 0; from < plan->nodes; ++from) {
    for (uint32_t to = 0; to < plan->nodes; ++to) {
      if (from == to) continue;
      LinkOptions& link = plan->link(from, to);
      link.from = from;
      link.to = to;
      link.port = to;
      link.delay = std::chrono::microseconds(random.Between(1, 200));
      if (random.Chance(5000)) link.bytes_per_second = random.Between(50, 2000) * 1'000'000;
      if (plan->weather != Weather::kClean) {
        link.faults = DrawFaults(random, link, plan->weather, start);
      }
    }
  }
}

CongestionOptions DrawCongestion(Random& random) {
  CongestionOptions congestion;
  congestion.window_bytes_max = Draw32(random, 4, 256) << 10;
  congestion.window_bytes_initial = Draw32(random, 1, 256) << 10;
  congestion.read_chunk_bytes = Draw32(random, 1, 64) << 10;
  congestion.ack_interval_packets = Draw32(random, 1, 32);
  return congestion;
}

uint32_t DrawPsn(Random& random) {
  return static_cast<uint32_t>(random.Chance(5000) ? 0xffffff - random.Below(64)
                                                   : random.Below(1 << 24));
}

uint32_t DrawMtu(Random& random) {
  static constexpr uint32_t kMtus[] = {256, 512, 1024, 2048, 4096};
  return kMtus[random.Below(5)];
}

// `share`: among how many conversations the seed's work is divided.
ConversationOptions DrawConversation(Random& random, Weather weather, uint32_t share) {
  ConversationOptions options;
  options.mtu = DrawMtu(random);
  const uint32_t requests_max = std::max<uint32_t>(240 / (share + 1), 12);
  options.requests[0] = Draw32(random, 1, requests_max);
  options.requests[1] = Draw32(random, 0, requests_max);
  static constexpr uint32_t kSizes[] = {16, 2000, 20000, 100000};
  options.message_bytes_max = kSizes[random.Below(4)];
  if (options.message_bytes_max == 100000) {
    options.requests[0] = options.requests[0] / 4 + 1;
    options.requests[1] /= 4;
  }
  options.max_wr = Draw32(random, 1, 24);
  options.max_sge = Draw32(random, 1, 5);
  options.max_rd_atomic = static_cast<uint8_t>(random.Between(1, 16));
  options.rnr_timer = static_cast<uint8_t>(random.Between(1, 14));
  for (uint32_t& psn : options.first_psn) psn = DrawPsn(random);
  options.signal_all = random.Chance(3000);
  options.post_gap_max = std::chrono::microseconds(random.Below(500));
  if (weather != Weather::kClean && random.Chance(5000)) {
    options.receive_delay_max = std::chrono::microseconds(random.Between(1, 2000));
    if (random.Chance(4000)) options.buffers_per_turn = Draw32(random, 1, 2);
  }
  options.refuse_rate = random.Chance(3000) ? static_cast<uint32_t>(random.Below(3000)) : 0;
  options.congestion = DrawCongestion(random);
  if (weather == Weather::kHarsh) {
    options.doom = Doom::kSilence;
  } else if (weather == Weather::kMixed && random.Chance(1500)) {
    options.doom = static_cast<Doom>(random.Between(1, 4));
  }
  return options;
}

MailboxOptions DrawMailbox(Random& random, Weather weather, uint32_t senders, uint32_t share) {
  static constexpr ibv_qp_type kServices[] = {IBV_QPT_RC, IBV_QPT_UC, IBV_QPT_UD};
  MailboxOptions options;
  options.service = kServices[random.Below(3)];
  options.mtu = DrawMtu(random);
  options.letters = Draw32(random, 1, std::max<uint32_t>(240 / (share + senders), 12));
  options.letter_bytes_max = Draw32(random, 16, 6 * options.mtu);
  options.may_break = weather == Weather::kHarsh && options.service == IBV_QPT_RC;
  options.clean = weather == Weather::kClean;
  options.shared = random.Chance(7000);
  // A queue pair that broke down keeps the buffer that it had taken.
  const bool one_each = options.may_break || !options.shared;
  options.buffers = Draw32(random, one_each ? senders + 1 : 1, senders + 16);
  options.max_wr = Draw32(random, 1, 24);
  options.rnr_timer = static_cast<uint8_t>(random.Between(1, 14));
  options.first_psn = DrawPsn(random);
  options.post_gap_max = std::chrono::microseconds(random.Below(500));
  if (weather != Weather::kClean && random.Chance(5000)) {
    options.return_delay_max = std::chrono::microseconds(random.Between(1, 1000));
  }
  options.refuse_rate = random.Chance(3000) ? static_cast<uint32_t>(random.Below(3000)) : 0;
  options.congestion = DrawCongestion(random);
  return options;
}

uint32_t OtherNode(Random& random, uint32_t nodes, uint32_t node) {
  return (node + Draw32(random, 1, nodes - 1)) % nodes;
}

void DrawTraffic(Random& random, SeedPlan* plan) {
  const uint32_t conversations =
      plan->nodes == 2 ? Draw32(random, 1, 3) : Draw32(random, 1, plan->nodes);
  const uint32_t mailboxes = random.Chance(3000) ? 0 : Draw32(random, 1, 3);
  for (uint32_t i = 0; i < conversations; ++i) {
    PlannedConversation planned{};
    planned.nodes[0] = static_cast<uint32_t>(random.Below(plan->nodes));
    planned.nodes[1] = OtherNode(random, plan->nodes, planned.nodes[0]);
    planned.options = DrawConversation(random, plan->weather, conversations + 2 * mailboxes);
    plan->conversations.push_back(planned);
  }
  for (uint32_t i = 0; i < mailboxes; ++i) {
    PlannedMailbox planned{};
    planned.node = static_cast<uint32_t>(random.Below(plan->nodes));
    for (uint32_t left = Draw32(random, 1, std::min<uint32_t>(plan->nodes, 6)); left > 0; --left) {
      planned.senders.push_back(OtherNode(random, plan->nodes, planned.node));
    }
    const auto senders = static_cast<uint32_t>(planned.senders.size());
    planned.options = DrawMailbox(random, plan->weather, senders, conversations + mailboxes);
    planned.options.orderly = true;
    for (const uint32_t sender : planned.senders) {
      const Faults& faults = plan->link(sender, planned.node).faults;
      if (faults.reorder != 0 || faults.duplicate != 0) planned.options.orderly = false;
    }
    plan->mailboxes.push_back(planned);
  }
}

// What everybody may have on the wire at once.
uint64_t BytesInFlight(const SeedPlan& plan) {
  uint64_t bytes = 0;
  const auto window = [](const CongestionOptions& congestion) {
    return uint64_t{std::max(congestion.window_bytes_max, congestion.read_chunk_bytes)} + 8192;
  };
  for (const PlannedConversation& planned : plan.conversations) {
    bytes += 4 * window(planned.options.congestion);
  }
  for (const PlannedMailbox& planned : plan.mailboxes) {
    const MailboxOptions& options = planned.options;
    const uint64_t each = options.service == IBV_QPT_RC
                              ? 4 * window(options.congestion)
                              : options.letters * (options.letter_bytes_max + 512);
    bytes += planned.senders.size() * each;
  }
  return bytes;
}

// A timeout that fires only when something was lost: there and back, with everything that may be on
// the wire queued before us.
uint8_t DrawTimeout(Random& random, const SeedPlan& plan, uint32_t one, uint32_t other) {
  const uint64_t bytes = BytesInFlight(plan);
  const auto time_of = [bytes](uint64_t bytes_per_second) {
    return bytes_per_second == 0
               ? Duration::zero()
               : Duration(static_cast<int64_t>(bytes * 1'000'000'000 / bytes_per_second));
  };
  Duration worst = std::chrono::milliseconds(1);  // refusals by the link
  for (const LinkOptions& link : {plan.link(one, other), plan.link(other, one)}) {
    worst += link.delay + link.faults.reorder_delay_max + time_of(link.bytes_per_second) +
             time_of(plan.ports[link.to].bytes_per_second);
  }
  uint8_t code = 1;
  while (AckTimeout(code) < 2 * worst) ++code;
  return static_cast<uint8_t>(code + random.Below(3));
}

// Probes that only a loss sets off on a clean network, any others elsewhere.
uint32_t DrawProbe(Random& random, Weather weather, uint8_t timeout) {
  const auto longest = static_cast<uint64_t>(AckTimeout(timeout).count()) / 1000;
  if (weather == Weather::kClean) return static_cast<uint32_t>(longest - 1);
  return static_cast<uint32_t>(random.Chance(5000) ? random.Below(longest) : 0);
}

// Returns the shortest.
Duration DrawTimeouts(Random& random, SeedPlan* plan) {
  Duration shortest = Duration::max();
  for (PlannedConversation& planned : plan->conversations) {
    ConversationOptions& options = planned.options;
    options.ack_timeout = DrawTimeout(random, *plan, planned.nodes[0], planned.nodes[1]);
    options.congestion.tail_probe_us = DrawProbe(random, plan->weather, options.ack_timeout);
    shortest = std::min(shortest, AckTimeout(options.ack_timeout));
  }
  for (PlannedMailbox& planned : plan->mailboxes) {
    MailboxOptions& options = planned.options;
    for (const uint32_t sender : planned.senders) {
      options.ack_timeout =
          std::max(options.ack_timeout, DrawTimeout(random, *plan, sender, planned.node));
    }
    options.congestion.tail_probe_us = DrawProbe(random, plan->weather, options.ack_timeout);
    shortest = std::min(shortest, AckTimeout(options.ack_timeout));
  }
  return shortest;
}

// Partitions: of one link, or of everything into or out of a node. In mixed weather shorter than
// any connection's retries last.
void DrawPartitions(Random& random, Time start, Duration shortest_timeout, SeedPlan* plan) {
  const bool harsh = plan->weather == Weather::kHarsh;
  const auto period = [&] {
    const Time begin = start + std::chrono::microseconds(random.Below(2000));
    if (harsh && random.Chance(1500)) return Period(begin, kNever);
    return Period(begin, begin + shortest_timeout * random.Between(1, harsh ? 12 : 2));
  };
  const auto node = static_cast<uint32_t>(random.Below(plan->nodes));
  if (random.Chance(3000)) {
    const uint32_t other = OtherNode(random, plan->nodes, node);
    plan->link(node, other).faults.blackouts.push_back(period());
  } else if (random.Chance(1500)) {
    const bool into = random.Chance(5000);
    const Period cut = period();
    for (uint32_t other = 0; other < plan->nodes; ++other) {
      if (other == node) continue;
      LinkOptions& link = into ? plan->link(other, node) : plan->link(node, other);
      link.faults.blackouts.push_back(cut);
    }
  }
  // The way became narrow: packets that are too long vanish, others draw NAKs at once and spend the
  // retries.
  if (harsh && random.Chance(3000)) {
    Faults& faults = plan->link(node, OtherNode(random, plan->nodes, node)).faults;
    faults.narrow_bytes = Draw32(random, 64, 2048);
    faults.narrow.push_back(period());
  }
}

}  // namespace

SeedPlan DrawPlan(Random& random, Time start) {
  SeedPlan plan;
  const uint64_t weather = random.Below(100);
  plan.weather = weather < 10 ? Weather::kClean : weather < 65 ? Weather::kMixed : Weather::kHarsh;
  plan.nodes = DrawNodes(random);
  DrawLinks(random, start, &plan);
  DrawTraffic(random, &plan);
  const Duration shortest = DrawTimeouts(random, &plan);
  if (plan.weather != Weather::kClean) DrawPartitions(random, start, shortest, &plan);
  return plan;
}

std::string Describe(const SeedPlan& plan) {
  static constexpr const char* kWeathers[] = {"clean", "mixed", "harsh"};
  static constexpr const char* kServices[] = {"RC", "UC", "UD"};
  std::ostringstream text;
  text << plan.nodes << " nodes, " << kWeathers[static_cast<int>(plan.weather)] << " weather";
  for (const PlannedConversation& planned : plan.conversations) {
    const ConversationOptions& c = planned.options;
    text << "\n  conversation " << planned.nodes[0] << "-" << planned.nodes[1] << ": "
         << c.requests[0] << "+" << c.requests[1] << " requests up to " << c.message_bytes_max
         << " B, MTU " << c.mtu << ", max_wr " << c.max_wr << ", max_rd_atomic "
         << int{c.max_rd_atomic} << ", ack timeout " << int{c.ack_timeout} << ", window "
         << c.congestion.window_bytes_max << ", doom " << static_cast<int>(c.doom)
         << ", late buffers " << c.receive_delay_max.count() / 1000 << " us";
  }
  for (const PlannedMailbox& planned : plan.mailboxes) {
    const MailboxOptions& m = planned.options;
    text << "\n  mailbox at " << planned.node << ": " << planned.senders.size() << " senders by "
         << kServices[m.service - IBV_QPT_RC] << ", " << m.letters << " letters up to "
         << m.letter_bytes_max << " B, MTU " << m.mtu << ", " << m.buffers
         << (m.shared ? " shared" : "") << " buffers back after "
         << m.return_delay_max.count() / 1000 << " us, ack timeout " << int{m.ack_timeout};
  }
  for (const LinkOptions& link : plan.links) {
    if (link.from == link.to || plan.nodes > 4) continue;
    const Faults& f = link.faults;
    text << "\n  link " << link.from << "-" << link.to << ": delay " << link.delay.count() / 1000
         << " us, " << link.bytes_per_second / 1'000'000 << " MB/s, loss " << f.loss
         << ", duplicate " << f.duplicate << ", reorder " << f.reorder << " depth "
         << f.reorder_depth << ", corrupt " << f.corrupt << ", mark " << f.mark << ", blackouts "
         << f.blackouts.size() << ", narrow " << (f.narrow.empty() ? 0 : f.narrow_bytes);
  }
  return text.str();
}

}  // namespace sumac::soft_nic::simulation
