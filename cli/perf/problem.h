// One operation of a perf program: its buffers' shapes, its data, and the check of its result.
//
// The data are small whole numbers that every type holds exactly, as are their sums and products,
// so that a result is right or wrong, not nearly right; only averages may be off by a rounding.
// Values depend on rank, position and a salt, so that stale or misplaced data show.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/perf/options.h"

#include "collectives/communicator.h"

namespace sumac::cli {

struct Problem {
  Collective collective = Collective::kAllReduce;
  collectives::DataType type = collectives::DataType::kFloat32;
  collectives::ReduceOp op = collectives::ReduceOp::kSum;
  int root = 0;
  int ranks = 1;
  int rank = 0;
  size_t count =
      0;  // elements as the call takes them: a rank's share for all-gather and reduce-scatter

  size_t send_elements() const;
  size_t recv_elements() const;
  // What the table calls size: the larger of both buffers, all ranks' shares together.
  uint64_t total_bytes() const;
  // busbw = algbw * this (nccl-tests, PERFORMANCE.md).
  double bus_factor() const;
};

// The largest problem of at most `bytes` in nccl-tests' sense of size.
Problem SizedProblem(Collective collective, collectives::DataType type, collectives::ReduceOp op,
                     int root, const collectives::Communicator& communicator, uint64_t bytes);

// Memory for problems of up to `max_bytes`, out of place or in place: allocated from the
// communicator (registered), or from the heap.
class Buffers {
 public:
  static absl::StatusOr<Buffers> Make(collectives::Communicator& communicator, BufferKind kind,
                                      uint64_t max_bytes);
  void* send(const Problem& problem, bool in_place);
  void* recv(const Problem& problem, bool in_place);

 private:
  Buffers() = default;

  std::vector<collectives::RegisteredBuffer> registered_;  // send, recv
  std::vector<std::byte> heap_[2];
  std::byte* send_ = nullptr;
  std::byte* recv_ = nullptr;
};

// Writes the input, and wipes the output where it is another place.
void Fill(const Problem& problem, Buffers& buffers, bool in_place, uint32_t salt);
absl::Status Run(const Problem& problem, collectives::Communicator& communicator, Buffers& buffers,
                 bool in_place);
// How many elements of the output are not what they must be.
uint64_t CountWrong(const Problem& problem, Buffers& buffers, bool in_place, uint32_t salt);

}  // namespace sumac::cli
