// The ibv_wr_* way to post: the functions of an ibv_qp_ex and what they collect.
//
// ibv_wr_start takes the send queue's lock, which ibv_wr_complete or ibv_wr_abort gives back; what
// lies between belongs to that thread. A request is staged in the engine's ring when the next one
// begins or the batch completes, and none is seen before all are in: a batch is posted as a whole
// or, with an error from ibv_wr_complete, not at all (man 3 ibv_wr_post). Nothing is allocated
// after creation.
#pragma once

#include <infiniband/verbs.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

#include "verbs/soft_nic/engine/queue_pair.h"

namespace sumac::soft_nic {

// The IBV_QP_EX_WITH_* operations that a queue pair of this type can be asked for.
uint64_t SendOperationsOf(ibv_qp_type type);

// The request being built. The first error of a batch stands until its end.
class WorkRequestBuilder {
 public:
  WorkRequestBuilder(QueuePair& engine, const ibv_qp_cap& cap);

  // Stages the request before it, and begins one.
  ibv_send_wr& Begin(ibv_wr_opcode opcode, uint64_t wr_id, unsigned int flags);
  // The request that setters are about; null, and an error, when none has begun.
  ibv_send_wr* current();
  void SetPieces(absl::Span<const ibv_sge> pieces);
  void SetInline(absl::Span<const ibv_data_buf> buffers);
  void Fail(int error) {
    if (error_ == 0) error_ = error;
  }
  // 0: the batch is posted. Otherwise nothing is.
  int Complete();
  void Abort();

 private:
  void Stage();

  QueuePair& engine_;
  const size_t pieces_max_;
  ibv_send_wr request_{};
  std::vector<ibv_sge> pieces_;
  std::vector<std::byte> inline_bytes_;
  bool begun_ = false;
  int error_ = 0;
};

}  // namespace sumac::soft_nic
