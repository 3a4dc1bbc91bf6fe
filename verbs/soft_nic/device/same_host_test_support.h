// Whether a connection's one-sided requests go without packets, for tests.
//
// Tests only; everything on the test's thread.
#pragma once

#include <cstdint>

#include "verbs/soft_nic/device/counters.h"
#include "verbs/soft_nic/device/device_test_support.h"
#include "verbs/soft_nic/device/soft_context.h"

namespace sumac::verbs {

inline bool DirectIsUp(const End& end) {
  auto* const qp = static_cast<soft_nic::SoftQueuePair*>(end.qp->qp());
  return soft_nic::SoftContext::Of(end.device->context()).progress().Exclusive([qp] {
    return qp->direct.up();
  });
}

inline uint64_t DirectRequests(const End& end) {
  return soft_nic::ReadCounters(end.device->context()).queue_pairs.direct_requests;
}

}  // namespace sumac::verbs
