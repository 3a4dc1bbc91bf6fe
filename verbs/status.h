// Turning what verbs say (errno, ibv_wc_status) into absl::Status with names and advice.
//
// Control path only; pure functions, any thread.
#pragma once

#include <infiniband/verbs.h>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace sumac::verbs {

// A failed verbs call: "ibv_reg_mr on soft0: Cannot allocate memory (errno 12): raise ulimit -l".
absl::Status ErrnoStatus(int error, absl::string_view call, absl::string_view where);

// The status by its name: "IBV_WC_REM_ACCESS_ERR".
const char* NameOf(ibv_wc_status status);

// The canonical code for a completion status: REM_ACCESS_ERR is PermissionDenied, RETRY_EXC_ERR and
// RNR_RETRY_EXC_ERR are Unavailable, WR_FLUSH_ERR is Aborted, local errors are Internal or
// InvalidArgument.
absl::StatusCode CodeOf(ibv_wc_status status);

// What a user can try about it; static storage, never null.
const char* AdviceFor(ibv_wc_status status);

// Code, name and advice in one: "<where>: IBV_WC_RETRY_EXC_ERR: the peer does not answer; ...".
absl::Status CompletionStatus(ibv_wc_status status, absl::string_view where);

}  // namespace sumac::verbs
