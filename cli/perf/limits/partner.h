// A thread on the other CPU that answers, for ping-pong benchmarks.
#pragma once

#include <pthread.h>
#include <sched.h>

#include <thread>
#include <utility>

#include "cli/perf/machine.h"

namespace sumac::cli {

inline void PinSelf(int cpu) {
  if (cpu < 0) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

// This thread goes to the first allowed CPU, `answer` runs on the second; both go back at the end.
class Partner {
 public:
  template <typename Answer>
  explicit Partner(Answer answer) {
    pthread_getaffinity_np(pthread_self(), sizeof(before_), &before_);
    const CpuPair cpus = AllowedCpus();
    thread_ = std::thread([cpus, answer = std::move(answer)] {
      PinSelf(cpus.second);
      answer();
    });
    PinSelf(cpus.first);
  }
  // `answer` has been told to end.
  ~Partner() {
    thread_.join();
    pthread_setaffinity_np(pthread_self(), sizeof(before_), &before_);
  }
  Partner(const Partner&) = delete;
  Partner& operator=(const Partner&) = delete;

 private:
  cpu_set_t before_{};
  std::thread thread_;
};

}  // namespace sumac::cli
