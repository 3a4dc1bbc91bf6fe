// All ranks of a job in one thread, over the fake network: for tests of the executor.
//
// Each rank has a list of operations and works through it at its own pace, chosen at random.
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "collectives/executor/execution.h"
#include "collectives/executor/fake_transport.h"
#include "collectives/schedule/algorithms.h"

namespace sumac::collectives {

class FakeCluster {
 public:
  FakeCluster(int ranks, const FakeNetworkOptions& options) : network_(options) {
    for (int r = 0; r < ranks; ++r) ranks_.push_back(std::make_unique<Rank>(network_, r));
  }

  FakeNetwork& network() { return network_; }
  FakeTransport& transport(int rank) { return ranks_[rank]->transport; }
  Execution& execution(int rank) { return ranks_[rank]->execution; }

  // Queues one operation of every rank; `arguments` by rank.
  void Add(const Algorithm& algorithm, int root, const std::vector<Arguments>& arguments) {
    schedules_.push_back(BuildSchedule(algorithm, static_cast<int>(ranks_.size()), root));
    for (int r = 0; r < std::ssize(ranks_); ++r) {
      ranks_[r]->queue.push_back({MakeReady(schedules_.back(), r), arguments[r]});
    }
  }

  // Until all is done. Internal: stuck.
  absl::Status Run() {
    auto& random = network_.random();
    for (int idle = 0; idle < 2;) {
      if (random() % 4 != 0 && network_.Step()) {
        idle = 0;
        continue;
      }
      if (random() % 8 != 0) {
        absl::Status status = AdvanceOne(*ranks_[random() % ranks_.size()]);
        if (!status.ok()) return status;
        continue;
      }
      // Now and then everyone, to find out whether anything is left to do.
      bool all_done = true;
      for (auto& rank : ranks_) {
        absl::Status status = AdvanceOne(*rank);
        if (!status.ok()) return status;
        all_done &= rank->queue.empty();
      }
      if (all_done) return absl::OkStatus();
      idle = network_.Step() ? 0 : idle + 1;
    }
    return absl::InternalError("stuck");
  }

 private:
  struct Operation {
    ReadyProgram program;
    Arguments arguments;
  };
  struct Rank {
    Rank(FakeNetwork& network, int rank) : transport(network, rank), execution(transport) {}
    FakeTransport transport;
    Execution execution;
    std::deque<Operation> queue;
    bool running = false;
  };

  static absl::Status AdvanceOne(Rank& rank) {
    if (rank.queue.empty()) return absl::OkStatus();
    if (!rank.running) {
      absl::Status status =
          rank.execution.Start(rank.queue.front().program, rank.queue.front().arguments);
      if (!status.ok()) return status;
      rank.running = true;
    }
    if (absl::Status status = rank.execution.Advance(); !status.ok()) return status;
    if (rank.execution.done()) {
      rank.execution.Stop();
      rank.queue.pop_front();
      rank.running = false;
    }
    return absl::OkStatus();
  }

  FakeNetwork network_;
  std::deque<Schedule> schedules_;  // programs point at their names
  std::vector<std::unique_ptr<Rank>> ranks_;
};

}  // namespace sumac::collectives
