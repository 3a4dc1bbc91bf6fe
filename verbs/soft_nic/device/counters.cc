#include "verbs/soft_nic/device/counters.h"

#include "verbs/soft_nic/device/soft_context.h"

namespace sumac::soft_nic {

DeviceCounters ReadCounters(ibv_context* context) {
  SoftContext& soft = SoftContext::Of(context);
  DeviceCounters counters;
  soft.progress().Exclusive([&] {
    counters.link = soft.link().counters();
    counters.scheduler = soft.scheduler().counters();
    counters.queue_pairs = soft.scheduler().QueuePairTotals();
  });
  counters.progress = soft.progress().counters();
  return counters;
}

}  // namespace sumac::soft_nic
