#include "verbs/soft_nic/engine/response_queue.h"

#include <algorithm>

namespace sumac::soft_nic {
namespace {

constexpr uint64_t kNoSequence = ~uint64_t{0};

}  // namespace

// Twice the limit: besides the requests outstanding, late duplicates of answered ones may be
// waiting.
ResponseQueue::ResponseQueue(uint32_t requests_max) : jobs_max_(2 * requests_max + 1) {
  jobs_.reserve(jobs_max_);
  results_.resize(std::max<uint32_t>(requests_max, 1));
  Clear();
}

void ResponseQueue::Clear() {
  jobs_.clear();
  std::fill(results_.begin(), results_.end(), Result{kNoSequence, 0});
  next_result_ = 0;
  results_used_ = results_.size();
}

uint32_t ResponseQueue::first_time_jobs() const {
  return static_cast<uint32_t>(std::count_if(jobs_.begin(), jobs_.end(),
                                             [](const ResponseJob& job) { return !job.repeated; }));
}

bool ResponseQueue::Insert(const ResponseJob& job) {
  std::erase_if(jobs_, [&job](const ResponseJob& other) {
    return other.next < job.end && job.next < other.end;
  });
  if (jobs_.size() == jobs_max_) return false;
  const auto place = std::find_if(jobs_.begin(), jobs_.end(), [&job](const ResponseJob& other) {
    return other.next >= job.end;
  });
  jobs_.insert(place, job);
  return true;
}

void ResponseQueue::LimitResults(uint32_t count) {
  results_used_ = std::clamp<size_t>(count, 1, results_.size());
}

void ResponseQueue::SetResult(uint64_t sequence, uint64_t result) {
  jobs_.back().atomic_result = result;
  results_[next_result_] = Result{sequence, result};
  next_result_ = (next_result_ + 1) % results_used_;
}

std::optional<uint64_t> ResponseQueue::ResultOf(uint64_t sequence) const {
  for (const Result& result : results_) {
    if (result.sequence == sequence) return result.value;
  }
  return std::nullopt;
}

}  // namespace sumac::soft_nic
