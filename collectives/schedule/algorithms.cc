#include "collectives/schedule/algorithms.h"

#include <set>

#include "absl/strings/str_join.h"

namespace sumac::collectives {
namespace {

constexpr Algorithm kAlgorithms[] = {
    {Collective::kAllReduce, "ring", "large: every rank sends 2(n-1)/n of the data", 0, true,
     RingAllReduce},
    {Collective::kAllReduce, "recursive_doubling", "small: log2(n) rounds", 1, false,
     RecursiveDoublingAllReduce},
    {Collective::kReduceScatter, "ring", "large: neighbours only", 2, true, RingReduceScatter},
    {Collective::kReduceScatter, "direct", "small: one round", 0, true, DirectReduceScatter},
    {Collective::kAllGather, "ring", "large: neighbours only", 0, true, RingAllGather},
    {Collective::kAllGather, "direct", "small, few ranks: one round", 0, true, DirectAllGather},
    {Collective::kAllGather, "bruck", "small, many ranks: log2(n) rounds and peers", 0, true,
     BruckAllGather},
    {Collective::kBroadcast, "tree", "small: log2(n) rounds", 0, false, TreeBroadcast},
    {Collective::kBroadcast, "chain", "large: pieces flow from rank to rank", 0, false,
     ChainBroadcast},
    {Collective::kBarrier, "dissemination", "log2(n) rounds", 0, false, DisseminationBarrier},
};

}  // namespace

std::span<const Algorithm> Algorithms() { return kAlgorithms; }

const Algorithm* FindAlgorithm(Collective collective, absl::string_view name) {
  for (const Algorithm& algorithm : kAlgorithms) {
    if (algorithm.collective == collective && name == algorithm.name) return &algorithm;
  }
  return nullptr;
}

std::string KnownAlgorithms(Collective collective) {
  std::vector<std::string> names;
  for (const Algorithm& algorithm : kAlgorithms) {
    if (algorithm.collective == collective) names.emplace_back(algorithm.name);
  }
  return absl::StrJoin(names, ", ");
}

std::string KnownAlgorithms() {
  std::set<std::string> names;
  for (const Algorithm& algorithm : kAlgorithms) names.insert(algorithm.name);
  return absl::StrJoin(names, ", ");
}

Schedule BuildSchedule(const Algorithm& algorithm, int ranks, int root) {
  Schedule schedule;
  schedule.collective = algorithm.collective;
  schedule.algorithm = algorithm.name;
  schedule.ranks = ranks;
  schedule.root = root;
  schedule.blocks = algorithm.Blocks(ranks);
  schedule.temp_slots = algorithm.temp_slots;
  for (int rank = 0; rank < ranks; ++rank) {
    schedule.programs.push_back(algorithm.program(ranks, rank, root));
  }
  return schedule;
}

}  // namespace sumac::collectives
