// What a seed draws before its run: nodes, links with their faults, and who talks to whom.
//
// A seed has one of three weathers. Clean: nothing goes wrong on the way, so nothing may be sent
// twice and nothing may be missing. Mixed: rates at which eight tries in a row never fail (nor the
// five that a partition leaves), so every connection must survive. Harsh: up to the worst rates;
// connections may say "retries exceeded", but nothing may be wrong. Most seeds are small, so that
// many run; some have up to 16 nodes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/simulation/mailbox.h"
#include "tests/simulation/workload.h"

namespace sumac::soft_nic::simulation {

enum class Weather : uint8_t { kClean, kMixed, kHarsh };

struct PlannedConversation {
  uint32_t nodes[2];
  ConversationOptions options;
};

struct PlannedMailbox {
  uint32_t node;
  std::vector<uint32_t> senders;  // nodes
  MailboxOptions options;
};

struct SeedPlan {
  Weather weather = Weather::kMixed;
  uint32_t nodes = 2;
  std::vector<PortOptions> ports;  // one per node
  std::vector<LinkOptions> links;  // from * nodes + to
  std::vector<PlannedConversation> conversations;
  std::vector<PlannedMailbox> mailboxes;

  LinkOptions& link(uint32_t from, uint32_t to) { return links[from * nodes + to]; }
  const LinkOptions& link(uint32_t from, uint32_t to) const { return links[from * nodes + to]; }
};

SeedPlan DrawPlan(Random& random, Time start);
std::string Describe(const SeedPlan& plan);

}  // namespace sumac::soft_nic::simulation
