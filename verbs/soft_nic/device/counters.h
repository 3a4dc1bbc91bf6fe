// What a soft NIC has counted since it was opened: a snapshot of link, dispatch, queue pairs and
// helper thread.
//
// For tests and tools. Any thread; control path (it stops the engine for a moment). Queue pairs
// that were destroyed are in the sum.
#pragma once

#include <infiniband/verbs.h>

#include "verbs/soft_nic/device/progress.h"
#include "verbs/soft_nic/device/scheduler.h"
#include "verbs/soft_nic/engine/queue_pair.h"
#include "verbs/soft_nic/link/link.h"

namespace sumac::soft_nic {

struct DeviceCounters {
  LinkCounters link;
  SchedulerCounters scheduler;
  QueuePairCounters queue_pairs;
  ProgressCounters progress;
};

// `context` is one of the soft NIC's.
DeviceCounters ReadCounters(ibv_context* context);

}  // namespace sumac::soft_nic
