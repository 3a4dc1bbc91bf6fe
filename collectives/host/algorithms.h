// The collectives in shared memory: small ones by a flat exchange, large ones in chunks.
//
// Called by HostRunner, whose checks the arguments have passed; `arguments.count` is that of the
// virtual vector. Which of the two depends on what all ranks know alike. Functions of one session:
// its thread, its ownership. False: the session's status() says why, and it is of no more use.
//
//   small   every rank writes its data beside its arrival, reads the others' and computes the
//           result itself, in the order of ranks: all get the same bits.
//   large   the vector is cut into a share a rank. A rank reduces its share from everybody's data
//           and writes it to everybody's result: straight from and to buffers that were allocated
//           from the communicator; through chunks of a stage for other memory, in which case
//           filling the stage, reducing and fetching results overlap, or (allreduce) by the
//           kernel's copies where those are faster. Each rank's buffers are handled as they are:
//           some may be registered and others not.
#pragma once

#include "collectives/buffers.h"
#include "collectives/executor/execution.h"
#include "collectives/host/session.h"
#include "collectives/reduce/fusion.h"
#include "collectives/schedule/schedule.h"

namespace sumac::collectives {

struct HostCall {
  Collective collective = Collective::kAllReduce;
  int root = 0;
  Arguments arguments;
  uint32_t signature = 0;
};

bool IsSmall(const HostCall& call, int ranks);
bool RunSmall(HostSession& session, const HostCall& call);
bool RunLargeAllReduce(HostSession& session, const BufferTable& buffers, const HostCall& call);
// The part of it behind the meeting, when private data go by the kernel's copies (method.h).
bool RunCopyingAllReduce(HostSession& session, const HostCall& call);
bool RunLargeReduceScatter(HostSession& session, const BufferTable& buffers, const HostCall& call);
// All-gather and broadcast.
bool RunLargeCopy(HostSession& session, const BufferTable& buffers, const HostCall& call);

// Where `bytes` at `addr` lie for peers.
Placement PlacementOf(const BufferTable& buffers, const void* addr, size_t bytes);
// Are results of a call that moves so many bytes better written past the caches?
bool WorthStreaming(size_t bytes);
// `count` elements of every rank, at `session.from`, reduced into the first `outputs` places of
// `session.to`.
inline Fusion FusionOf(const HostSession& session, const Arguments& a, int outputs, size_t count) {
  Fusion fusion;
  fusion.from = session.from.data();
  fusion.inputs = session.size();
  fusion.to = session.to.data();
  fusion.outputs = outputs;
  fusion.count = count;
  fusion.type = a.type;
  fusion.op = a.op;
  // What an average is divided by at the end.
  fusion.divisor = a.op == ReduceOp::kAvg ? session.size() : 1;
  return fusion;
}

}  // namespace sumac::collectives
