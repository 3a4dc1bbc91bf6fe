// Runs a function as several ranks, each on a thread of its own with a worker on the test's device.
//
// Used by tests. Ends when all have; a worker that can't be made is a test failure. Workers go away
// by themselves, each when its rank is done, as in processes.
#pragma once

#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

#include "tests/support/device.h"
#include "transport/testing/fake_bootstrap.h"
#include "transport/worker.h"

namespace sumac::transport {

inline void RunRanks(FakeJob& job, const WorkerOptions& options,
                     const std::function<void(Worker& worker, int rank)>& body) {
  std::vector<std::thread> threads;
  for (int rank = 0; rank < job.size(); ++rank) {
    threads.emplace_back([&job, &options, &body, rank] {
      WorkerOptions mine = options;
      mine.device = test_support::TestDevice(rank);
      auto worker = Worker::Create(job.rank(rank), mine);
      ASSERT_TRUE(worker.ok()) << worker.status();
      body(**worker, rank);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

inline WorkerOptions TestOptions() {
  WorkerOptions options;
  options.device = test_support::TestDevice(0);
  return options;
}

inline absl::Time Soon() { return absl::Now() + absl::Seconds(20); }

}  // namespace sumac::transport
