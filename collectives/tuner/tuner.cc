#include "collectives/tuner/tuner.h"

#include <cstdint>

#include "absl/strings/str_cat.h"

namespace sumac::collectives {
namespace {

constexpr size_t kAnySize = SIZE_MAX;
constexpr int kAnyRanks = INT32_MAX;

struct Rule {
  Collective collective;
  size_t bytes_max;
  int ranks_max;
  const char* algorithm;
  const char* reason;
};

// The first rule that fits; each collective ends with one that always does.
constexpr Rule kRules[] = {
    {Collective::kAllReduce, 64 << 10, kAnyRanks, "recursive_doubling",
     "small: the number of rounds decides"},
    {Collective::kAllReduce, kAnySize, kAnyRanks, "ring", "large: the bytes sent decide"},
    {Collective::kReduceScatter, 64 << 10, 32, "direct", "small, few ranks: one round"},
    {Collective::kReduceScatter, kAnySize, kAnyRanks, "ring", "large: the bytes sent decide"},
    {Collective::kAllGather, 64 << 10, 8, "direct", "small, few ranks: one round"},
    {Collective::kAllGather, 64 << 10, kAnyRanks, "bruck", "small: the number of rounds decides"},
    {Collective::kAllGather, kAnySize, kAnyRanks, "ring", "large: the bytes sent decide"},
    {Collective::kBroadcast, 64 << 10, kAnyRanks, "tree", "small: the number of rounds decides"},
    {Collective::kBroadcast, kAnySize, kAnyRanks, "chain", "large: pieces flow down the chain"},
    {Collective::kBarrier, kAnySize, kAnyRanks, "dissemination", "the only one"},
};

}  // namespace

Choice ChooseAlgorithm(Collective collective, size_t bytes, int ranks, absl::string_view forced) {
  if (!forced.empty()) {
    if (const Algorithm* algorithm = FindAlgorithm(collective, forced)) {
      return {algorithm, "asked for"};
    }
  }
  for (const Rule& rule : kRules) {
    if (rule.collective == collective && bytes <= rule.bytes_max && ranks <= rule.ranks_max) {
      return {FindAlgorithm(collective, rule.algorithm), rule.reason};
    }
  }
  return {};  // not reached: see kRules; a test walks it
}

absl::Status CheckAlgorithmName(absl::string_view name) {
  for (const Algorithm& algorithm : Algorithms()) {
    if (name == algorithm.name) return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown algorithm \"", name, "\"; known: ", KnownAlgorithms(), ", host"));
}

}  // namespace sumac::collectives
