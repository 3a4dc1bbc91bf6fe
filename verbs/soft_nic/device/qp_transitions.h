// Which attributes ibv_modify_qp requires and allows for each state change of an RC, UC, UD or
// XRC queue pair (IBTA vol. 1, 11.2.5.2, table 91), as one table.
//
// Pure functions, any thread.
#pragma once

#include <infiniband/verbs.h>

#include "absl/status/status.h"

namespace sumac::soft_nic {

// InvalidArgument says which attribute is missing, not allowed or out of range.
absl::Status CheckTransition(ibv_qp_type type, ibv_qp_state from, ibv_qp_state to, int mask,
                             const ibv_qp_attr& attr);

// 0 or [kRateLimitMin, kRateLimitMax].
absl::Status CheckRateLimit(uint32_t kbps);

// "RTS"
const char* NameOf(ibv_qp_state state);
// "UD"
const char* NameOf(ibv_qp_type type);

}  // namespace sumac::soft_nic
