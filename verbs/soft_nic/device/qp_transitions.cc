#include "verbs/soft_nic/device/qp_transitions.h"

#include <string>

#include "absl/strings/str_cat.h"

#include "verbs/soft_nic/device/address_vector.h"
#include "verbs/soft_nic/device/limits.h"

namespace sumac::soft_nic {
namespace {

struct Transition {
  ibv_qp_type type;
  ibv_qp_state from;
  ibv_qp_state to;
  int required;
  int optional;
};

constexpr int kInit = IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS;
constexpr int kInitUd = IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY;
constexpr int kReceiveUc = IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN;
constexpr int kReceiveRc = kReceiveUc | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
constexpr int kSendRc =
    IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC;
constexpr int kUnusedPaths = IBV_QP_ALT_PATH | IBV_QP_PATH_MIG_STATE;
// What may change later without a new connection.
constexpr int kTunableUc = IBV_QP_ACCESS_FLAGS | IBV_QP_RATE_LIMIT | kUnusedPaths;
constexpr int kTunableRc = kTunableUc | IBV_QP_MIN_RNR_TIMER;
constexpr int kConnect = IBV_QP_PKEY_INDEX | IBV_QP_ACCESS_FLAGS | kUnusedPaths;

// An XRC connection's initiator sends as RC does and receives nothing; its target the reverse.
constexpr int kSendTarget = IBV_QP_TIMEOUT | IBV_QP_SQ_PSN;

constexpr Transition kTransitions[] = {
    {IBV_QPT_RC, IBV_QPS_RESET, IBV_QPS_INIT, kInit, 0},
    {IBV_QPT_RC, IBV_QPS_INIT, IBV_QPS_INIT, 0, kInit},
    {IBV_QPT_RC, IBV_QPS_INIT, IBV_QPS_RTR, kReceiveRc, kConnect},
    {IBV_QPT_RC, IBV_QPS_RTR, IBV_QPS_RTS, kSendRc, kTunableRc},
    {IBV_QPT_RC, IBV_QPS_RTS, IBV_QPS_RTS, 0, kTunableRc},
    {IBV_QPT_RC, IBV_QPS_RTS, IBV_QPS_SQD, 0, IBV_QP_EN_SQD_ASYNC_NOTIFY},
    {IBV_QPT_RC, IBV_QPS_SQD, IBV_QPS_SQD, 0, kTunableRc},
    {IBV_QPT_RC, IBV_QPS_SQD, IBV_QPS_RTS, 0, kTunableRc},

    {IBV_QPT_UC, IBV_QPS_RESET, IBV_QPS_INIT, kInit, 0},
    {IBV_QPT_UC, IBV_QPS_INIT, IBV_QPS_INIT, 0, kInit},
    {IBV_QPT_UC, IBV_QPS_INIT, IBV_QPS_RTR, kReceiveUc, kConnect},
    {IBV_QPT_UC, IBV_QPS_RTR, IBV_QPS_RTS, IBV_QP_SQ_PSN, kTunableUc},
    {IBV_QPT_UC, IBV_QPS_RTS, IBV_QPS_RTS, 0, kTunableUc},

    {IBV_QPT_XRC_SEND, IBV_QPS_RESET, IBV_QPS_INIT, kInit, 0},
    {IBV_QPT_XRC_SEND, IBV_QPS_INIT, IBV_QPS_INIT, 0, kInit},
    {IBV_QPT_XRC_SEND, IBV_QPS_INIT, IBV_QPS_RTR, kReceiveUc, kConnect},
    {IBV_QPT_XRC_SEND, IBV_QPS_RTR, IBV_QPS_RTS, kSendRc, kTunableUc},
    {IBV_QPT_XRC_SEND, IBV_QPS_RTS, IBV_QPS_RTS, 0, kTunableUc},
    {IBV_QPT_XRC_SEND, IBV_QPS_RTS, IBV_QPS_SQD, 0, IBV_QP_EN_SQD_ASYNC_NOTIFY},
    {IBV_QPT_XRC_SEND, IBV_QPS_SQD, IBV_QPS_SQD, 0, kTunableUc},
    {IBV_QPT_XRC_SEND, IBV_QPS_SQD, IBV_QPS_RTS, 0, kTunableUc},

    {IBV_QPT_XRC_RECV, IBV_QPS_RESET, IBV_QPS_INIT, kInit, 0},
    {IBV_QPT_XRC_RECV, IBV_QPS_INIT, IBV_QPS_INIT, 0, kInit},
    {IBV_QPT_XRC_RECV, IBV_QPS_INIT, IBV_QPS_RTR, kReceiveRc, kConnect},
    {IBV_QPT_XRC_RECV, IBV_QPS_RTR, IBV_QPS_RTS, kSendTarget, kTunableRc},
    {IBV_QPT_XRC_RECV, IBV_QPS_RTS, IBV_QPS_RTS, 0, kTunableRc},

    {IBV_QPT_UD, IBV_QPS_RESET, IBV_QPS_INIT, kInitUd, 0},
    {IBV_QPT_UD, IBV_QPS_INIT, IBV_QPS_INIT, 0, kInitUd},
    {IBV_QPT_UD, IBV_QPS_INIT, IBV_QPS_RTR, 0, IBV_QP_PKEY_INDEX | IBV_QP_QKEY},
    {IBV_QPT_UD, IBV_QPS_RTR, IBV_QPS_RTS, IBV_QP_SQ_PSN, IBV_QP_QKEY | IBV_QP_RATE_LIMIT},
    {IBV_QPT_UD, IBV_QPS_RTS, IBV_QPS_RTS, 0, IBV_QP_QKEY | IBV_QP_RATE_LIMIT},
};

struct AttributeName {
  int bit;
  const char* name;
};
constexpr AttributeName kNames[] = {
    {IBV_QP_EN_SQD_ASYNC_NOTIFY, "en_sqd_async_notify"},
    {IBV_QP_PKEY_INDEX, "pkey_index"},
    {IBV_QP_PORT, "port_num"},
    {IBV_QP_QKEY, "qkey"},
    {IBV_QP_ACCESS_FLAGS, "qp_access_flags"},
    {IBV_QP_AV, "ah_attr"},
    {IBV_QP_PATH_MTU, "path_mtu"},
    {IBV_QP_DEST_QPN, "dest_qp_num"},
    {IBV_QP_RQ_PSN, "rq_psn"},
    {IBV_QP_MAX_DEST_RD_ATOMIC, "max_dest_rd_atomic"},
    {IBV_QP_MIN_RNR_TIMER, "min_rnr_timer"},
    {IBV_QP_TIMEOUT, "timeout"},
    {IBV_QP_RETRY_CNT, "retry_cnt"},
    {IBV_QP_RNR_RETRY, "rnr_retry"},
    {IBV_QP_SQ_PSN, "sq_psn"},
    {IBV_QP_MAX_QP_RD_ATOMIC, "max_rd_atomic"},
    {IBV_QP_ALT_PATH, "alt_ah_attr"},
    {IBV_QP_PATH_MIG_STATE, "path_mig_state"},
    {IBV_QP_RATE_LIMIT, "rate_limit"},
};

std::string NamesIn(int mask) {
  std::string names;
  for (const AttributeName& attribute : kNames) {
    if ((mask & attribute.bit) == 0) continue;
    absl::StrAppend(&names, names.empty() ? "" : ", ", attribute.name);
    mask &= ~attribute.bit;
  }
  if (mask != 0) absl::StrAppend(&names, names.empty() ? "" : ", ", "mask bits ", mask);
  return names;
}

absl::Status OutOfRange(const char* name, int64_t value, int64_t max) {
  return absl::InvalidArgumentError(absl::StrCat(name, " = ", value, ": must be 0 to ", max));
}

absl::Status CheckRanges(int mask, const ibv_qp_attr& attr) {
  struct Range {
    int bit;
    const char* name;
    int64_t value;
    int64_t max;
  };
  const Range ranges[] = {
      {IBV_QP_PKEY_INDEX, "pkey_index", attr.pkey_index, 0},
      {IBV_QP_MAX_DEST_RD_ATOMIC, "max_dest_rd_atomic", attr.max_dest_rd_atomic, kReadAtomicsMax},
      {IBV_QP_MAX_QP_RD_ATOMIC, "max_rd_atomic", attr.max_rd_atomic, kReadAtomicsMax},
      {IBV_QP_MIN_RNR_TIMER, "min_rnr_timer", attr.min_rnr_timer, 31},
      {IBV_QP_TIMEOUT, "timeout", attr.timeout, 31},
      {IBV_QP_RETRY_CNT, "retry_cnt", attr.retry_cnt, 7},
      {IBV_QP_RNR_RETRY, "rnr_retry", attr.rnr_retry, 7},
      {IBV_QP_DEST_QPN, "dest_qp_num", attr.dest_qp_num, 0xffffff},
  };
  for (const Range& range : ranges) {
    if ((mask & range.bit) != 0 && range.value > range.max) {
      return OutOfRange(range.name, range.value, range.max);
    }
  }
  if ((mask & IBV_QP_RATE_LIMIT) != 0) {
    if (absl::Status legal = CheckRateLimit(attr.rate_limit); !legal.ok()) return legal;
  }
  if ((mask & IBV_QP_PORT) != 0 && attr.port_num != 1) {
    return absl::InvalidArgumentError(absl::StrCat("port_num = ", attr.port_num, ": must be 1"));
  }
  if ((mask & IBV_QP_PATH_MTU) != 0 &&
      (attr.path_mtu < IBV_MTU_256 || attr.path_mtu > IBV_MTU_4096)) {
    return absl::InvalidArgumentError(absl::StrCat("path_mtu = ", attr.path_mtu));
  }
  if ((mask & IBV_QP_AV) != 0) return CheckAddressVector(attr.ah_attr);
  return absl::OkStatus();
}

}  // namespace

const char* NameOf(ibv_qp_state state) {
  static constexpr const char* kStates[] = {"RESET", "INIT", "RTR", "RTS", "SQD", "SQE", "ERR"};
  return state <= IBV_QPS_ERR ? kStates[state] : "UNKNOWN";
}

const char* NameOf(ibv_qp_type type) {
  switch (type) {
    case IBV_QPT_RC:
      return "RC";
    case IBV_QPT_UC:
      return "UC";
    case IBV_QPT_UD:
      return "UD";
    case IBV_QPT_XRC_SEND:
      return "XRC_SEND";
    case IBV_QPT_XRC_RECV:
      return "XRC_RECV";
    default:
      return "?";
  }
}

absl::Status CheckRateLimit(uint32_t kbps) {
  if (kbps == 0 || (kbps >= kRateLimitMin && kbps <= kRateLimitMax)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("rate_limit = ", kbps, " kbit/s: must be ",
                                                 kRateLimitMin, " to ", kRateLimitMax,
                                                 ", or 0 for none"));
}

absl::Status CheckTransition(ibv_qp_type type, ibv_qp_state from, ibv_qp_state to, int mask,
                             const ibv_qp_attr& attr) {
  const int given = mask & ~(IBV_QP_STATE | IBV_QP_CUR_STATE);
  // To RESET or ERR from anywhere, without attributes.
  const Transition always{type, from, to, 0, 0};
  const Transition* transition = nullptr;
  if (to == IBV_QPS_RESET || to == IBV_QPS_ERR) transition = &always;
  for (const Transition& row : kTransitions) {
    if (row.type == type && row.from == from && row.to == to) transition = &row;
  }
  const std::string where = absl::StrCat(NameOf(from), " to ", NameOf(to));
  if (transition == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("a ", NameOf(type), " queue pair does not go from ", where));
  }
  if (const int missing = transition->required & ~given; missing != 0) {
    return absl::InvalidArgumentError(absl::StrCat(where, " needs also: ", NamesIn(missing)));
  }
  if (const int extra = given & ~(transition->required | transition->optional); extra != 0) {
    return absl::InvalidArgumentError(absl::StrCat(where, " does not take: ", NamesIn(extra)));
  }
  return CheckRanges(mask, attr);
}

}  // namespace sumac::soft_nic
