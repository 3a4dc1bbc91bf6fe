// READ and atomic responses that a responder still owes, in PSN order, and the results of recent
// atomics.
//
// Owned by the responder; owner-only; memory is taken at construction. Every peer's request may
// come again (a retry, or the network's duplicate): a READ is simply carried out again, an atomic
// must not be, so its result is remembered as long as the peer may still ask: the last
// max_dest_rd_atomic of them (IBTA vol. 1, 9.7.5.1.1, responder resources).
//
// Invariant: jobs are sorted by sequence and do not overlap. A repeated request replaces the jobs
// that it overlaps, since the peer has whatever comes before the place it asks from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace sumac::soft_nic {

struct ResponseJob {
  uint64_t next = 0;  // sequence of the next packet to send
  uint64_t end = 0;
  uint64_t addr = 0;  // READ: of the next packet
  uint64_t remaining = 0;
  uint64_t atomic_result = 0;
  uint32_t rkey = 0;
  uint32_t msn = 0;
  uint32_t xrc_srqn = 0;
  bool atomic = false;
  bool started = false;
  bool repeated = false;
};

class ResponseQueue {
 public:
  // `requests_max`: how many READ and atomic requests the peer may have outstanding at most.
  explicit ResponseQueue(uint32_t requests_max);

  void Clear();
  bool empty() const { return jobs_.empty(); }
  ResponseJob& front() { return jobs_.front(); }
  void PopFront() { jobs_.erase(jobs_.begin()); }
  // First-time requests that are not answered in full.
  uint32_t first_time_jobs() const;
  // False: no room (only when the peer repeats many requests at once); as if the request had been
  // lost.
  [[nodiscard]] bool Insert(const ResponseJob& job);

  // The last `count` results are kept.
  void LimitResults(uint32_t count);
  // Fills in the job of the atomic at `sequence` (the youngest job), and remembers its result.
  void SetResult(uint64_t sequence, uint64_t result);
  std::optional<uint64_t> ResultOf(uint64_t sequence) const;

 private:
  struct Result {
    uint64_t sequence;
    uint64_t value;
  };

  std::vector<ResponseJob> jobs_;  // reserved: never grows past its capacity
  std::vector<Result> results_;
  size_t jobs_max_;
  size_t results_used_ = 0;
  size_t next_result_ = 0;
};

}  // namespace sumac::soft_nic
