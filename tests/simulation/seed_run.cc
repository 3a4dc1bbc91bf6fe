#include "tests/simulation/seed_run.h"

#include <memory>
#include <sstream>
#include <vector>

#include "tests/simulation/seed_plan.h"

namespace sumac::soft_nic::simulation {
namespace {

constexpr uint64_t kEventsMax = 5'000'000;
constexpr Duration kVirtualTimeMax = std::chrono::hours(24);
constexpr uint32_t kFirstQpn = 0x100;

template <typename Counters>
void Add(Counters* sum, const Counters& more) {
  static_assert(sizeof(Counters) % sizeof(uint64_t) == 0);
  auto* to = reinterpret_cast<uint64_t*>(sum);
  const auto* from = reinterpret_cast<const uint64_t*>(&more);
  for (size_t i = 0; i < sizeof(Counters) / sizeof(uint64_t); ++i) to[i] += from[i];
}

// The plan's nodes, links and traffic, alive.
class World {
 public:
  World(VirtualNetwork& network, const SeedPlan& plan) : plan_(plan) {
    std::vector<size_t> ports;
    for (const PortOptions& port : plan.ports) ports.push_back(network.AddPort(port));
    for (const LinkOptions& link : plan.links) links_.push_back(network.AddLink(link));
    uint32_t qpn = kFirstQpn;
    for (const PlannedConversation& planned : plan.conversations) {
      conversations_.push_back(std::make_unique<Conversation>(
          network, WayBetween(planned.nodes[0], planned.nodes[1]), qpn, planned.options));
      qpn += 2;
    }
    for (const PlannedMailbox& planned : plan.mailboxes) {
      std::vector<MailboxSender> senders;
      for (const uint32_t node : planned.senders) {
        senders.push_back({node, WayBetween(node, planned.node)});
      }
      mailboxes_.push_back(
          std::make_unique<Mailbox>(network, planned.node, senders, qpn, planned.options));
      qpn += 2 * static_cast<uint32_t>(senders.size());
    }
  }

  void Start() {
    for (auto& conversation : conversations_) conversation->Start();
    for (auto& mailbox : mailboxes_) mailbox->Start();
  }

  // Returns the complaints.
  std::string Judge(RunResult* result) {
    std::ostringstream complaints;
    for (auto& conversation : conversations_) {
      if (!conversation->finished()) {
        complaints << "unfinished:" << conversation->Progress() << "\n";
      }
      conversation->CheckAtEnd();
      complaints << conversation->complaints();
      result->messages += conversation->completed();
      result->broken += conversation->broken();
      for (int side : {0, 1}) Accumulate(&result->engines, conversation->counters(side));
    }
    for (auto& mailbox : mailboxes_) {
      if (!mailbox->finished()) complaints << "unfinished:" << mailbox->Progress() << "\n";
      mailbox->CheckAtEnd();
      complaints << mailbox->complaints();
      result->messages += mailbox->completed();
      result->broken += mailbox->broken();
      for (const QueuePairCounters& counters : mailbox->counters()) {
        Accumulate(&result->engines, counters);
      }
    }
    if (plan_.weather == Weather::kHarsh) {
      result->connections += conversations_.size();
      for (const PlannedMailbox& planned : plan_.mailboxes) {
        if (planned.options.service == IBV_QPT_RC) result->connections += planned.senders.size();
      }
    }
    return complaints.str();
  }

 private:
  Way WayBetween(uint32_t from, uint32_t to) const {
    return {links_[from * plan_.nodes + to], links_[to * plan_.nodes + from]};
  }

  const SeedPlan& plan_;
  std::vector<size_t> links_;
  std::vector<std::unique_ptr<Conversation>> conversations_;
  std::vector<std::unique_ptr<Mailbox>> mailboxes_;
};

}  // namespace

void Accumulate(QueuePairCounters* sum, const QueuePairCounters& more) { Add(sum, more); }
void Accumulate(NetworkCounters* sum, const NetworkCounters& more) { Add(sum, more); }

RunResult RunSeed(uint64_t seed) {
  RunResult result;
  VirtualNetwork network(seed);
  const Time start = network.now();
  const SeedPlan plan = DrawPlan(network.random, start);
  result.configuration = Describe(plan);
  result.nodes = plan.nodes;
  World world(network, plan);
  world.Start();
  // Until nothing at all is left to happen: no packet on its way, no timer.
  bool quiet = false;
  while (!quiet && result.events < kEventsMax && network.now() - start < kVirtualTimeMax) {
    quiet = !network.Step();
    ++result.events;
  }
  std::ostringstream complaints;
  if (!quiet) complaints << "still busy after " << result.events << " events\n";
  complaints << world.Judge(&result);
  result.trace = network.trace();
  result.virtual_time = network.now() - start;
  result.network = network.counters();
  // Not even then is a receiver always ready.
  if (plan.weather == Weather::kClean && result.engines.rnr_naks_sent == 0 &&
      (result.engines.retransmitted_packets != 0 || result.engines.timeouts != 0 ||
       result.engines.sequence_naks_sent != 0)) {
    complaints << "clean network, yet " << result.engines.retransmitted_packets
               << " packets were sent again\n";
  }
  if (result.network.refused > result.network.corrupted) {
    complaints << "a sound packet was refused\n";
  }
  if (result.network.damaged_accepted != 0) complaints << "a damaged packet was accepted\n";
  result.complaints = complaints.str();
  return result;
}

}  // namespace sumac::soft_nic::simulation
