#include "verbs/status.h"

#include <cerrno>

#include "absl/strings/str_cat.h"

namespace sumac::verbs {
namespace {

struct WcStatusRow {
  ibv_wc_status status;
  const char* name;
  absl::StatusCode code;
  const char* advice;
};

// Meanings: IBTA vol. 1, 11.6.2 (completion return status).
constexpr WcStatusRow kRows[] = {
    {IBV_WC_SUCCESS, "IBV_WC_SUCCESS", absl::StatusCode::kOk, ""},
    {IBV_WC_LOC_LEN_ERR, "IBV_WC_LOC_LEN_ERR", absl::StatusCode::kInvalidArgument,
     "a message was longer than the receive buffer, or longer than the device allows"},
    {IBV_WC_LOC_QP_OP_ERR, "IBV_WC_LOC_QP_OP_ERR", absl::StatusCode::kInternal,
     "the work request is not consistent with the queue pair"},
    {IBV_WC_LOC_EEC_OP_ERR, "IBV_WC_LOC_EEC_OP_ERR", absl::StatusCode::kInternal, ""},
    {IBV_WC_LOC_PROT_ERR, "IBV_WC_LOC_PROT_ERR", absl::StatusCode::kInvalidArgument,
     "local memory is not registered with this lkey, range and access; was it deregistered?"},
    {IBV_WC_WR_FLUSH_ERR, "IBV_WC_WR_FLUSH_ERR", absl::StatusCode::kAborted,
     "the queue pair was in error before this work request ran; look for the first error"},
    {IBV_WC_MW_BIND_ERR, "IBV_WC_MW_BIND_ERR", absl::StatusCode::kInvalidArgument, ""},
    {IBV_WC_BAD_RESP_ERR, "IBV_WC_BAD_RESP_ERR", absl::StatusCode::kInternal,
     "the peer answered with an opcode that does not fit the request"},
    {IBV_WC_LOC_ACCESS_ERR, "IBV_WC_LOC_ACCESS_ERR", absl::StatusCode::kInvalidArgument, ""},
    {IBV_WC_REM_INV_REQ_ERR, "IBV_WC_REM_INV_REQ_ERR", absl::StatusCode::kPermissionDenied,
     "the peer's queue pair does not allow this operation, or its receive buffer is too small"},
    {IBV_WC_REM_ACCESS_ERR, "IBV_WC_REM_ACCESS_ERR", absl::StatusCode::kPermissionDenied,
     "the peer refused key, range or right; was the registration revoked?"},
    {IBV_WC_REM_OP_ERR, "IBV_WC_REM_OP_ERR", absl::StatusCode::kUnavailable,
     "the peer could not complete the operation on its side; is it going away?"},
    {IBV_WC_RETRY_EXC_ERR, "IBV_WC_RETRY_EXC_ERR", absl::StatusCode::kUnavailable,
     "the peer does not answer: is its process alive, its address reachable over UDP 4791?"},
    {IBV_WC_RNR_RETRY_EXC_ERR, "IBV_WC_RNR_RETRY_EXC_ERR", absl::StatusCode::kUnavailable,
     "the peer posted no receive in time"},
    {IBV_WC_LOC_RDD_VIOL_ERR, "IBV_WC_LOC_RDD_VIOL_ERR", absl::StatusCode::kInternal, ""},
    {IBV_WC_REM_INV_RD_REQ_ERR, "IBV_WC_REM_INV_RD_REQ_ERR", absl::StatusCode::kInternal, ""},
    {IBV_WC_REM_ABORT_ERR, "IBV_WC_REM_ABORT_ERR", absl::StatusCode::kAborted, ""},
    {IBV_WC_INV_EECN_ERR, "IBV_WC_INV_EECN_ERR", absl::StatusCode::kInternal, ""},
    {IBV_WC_INV_EEC_STATE_ERR, "IBV_WC_INV_EEC_STATE_ERR", absl::StatusCode::kInternal, ""},
    {IBV_WC_FATAL_ERR, "IBV_WC_FATAL_ERR", absl::StatusCode::kInternal, "the device failed"},
    {IBV_WC_RESP_TIMEOUT_ERR, "IBV_WC_RESP_TIMEOUT_ERR", absl::StatusCode::kUnavailable, ""},
    {IBV_WC_GENERAL_ERR, "IBV_WC_GENERAL_ERR", absl::StatusCode::kInternal, ""},
};

const WcStatusRow* Find(ibv_wc_status status) {
  for (const WcStatusRow& row : kRows) {
    if (row.status == status) return &row;
  }
  return nullptr;
}

const char* AdviceForErrno(int error) {
  switch (error) {
    case ENOMEM:
      return ": out of memory, queue entries or lockable memory (ulimit -l)";
    case EBUSY:
      return ": something still uses it";
    case EPERM:
    case EACCES:
      return ": no permission";
    case ENOSYS:
      return ": there is no such device support in this system";
    default:
      return "";
  }
}

}  // namespace

absl::Status ErrnoStatus(int error, absl::string_view call, absl::string_view where) {
  const int positive = error < 0 ? -error : error;
  return absl::Status(absl::ErrnoToStatusCode(positive),
                      absl::StrCat(call, " on ", where, absl::ErrnoToStatus(positive, "").message(),
                                   " (errno ", positive, ")", AdviceForErrno(positive)));
}

const char* NameOf(ibv_wc_status status) {
  const WcStatusRow* row = Find(status);
  return row ? row->name : "IBV_WC_UNKNOWN";
}

absl::StatusCode CodeOf(ibv_wc_status status) {
  const WcStatusRow* row = Find(status);
  return row ? row->code : absl::StatusCode::kUnknown;
}

const char* AdviceFor(ibv_wc_status status) {
  const WcStatusRow* row = Find(status);
  return row ? row->advice : "";
}

absl::Status CompletionStatus(ibv_wc_status status, absl::string_view where) {
  if (status == IBV_WC_SUCCESS) return absl::OkStatus();
  const char* advice = AdviceFor(status);
  return absl::Status(CodeOf(status),
                      absl::StrCat(where, ": ", NameOf(status), *advice ? ": " : "", advice));
}

}  // namespace sumac::verbs
