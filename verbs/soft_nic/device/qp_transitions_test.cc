// Every pair of states, and each attribute that is required, against the table of the standard as
// `man 3 ibv_modify_qp` gives it for RC, UC and UD.
#include "verbs/soft_nic/device/qp_transitions.h"

#include <vector>

#include "gtest/gtest.h"

namespace sumac::soft_nic {
namespace {

constexpr int kInit = IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS;
constexpr int kInitUd = IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY;
constexpr int kReceiveUc = IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN;
constexpr int kReceive = kReceiveUc | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
constexpr int kSend =
    IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC;

ibv_qp_attr Valid() {
  ibv_qp_attr attr{};
  attr.port_num = 1;
  attr.path_mtu = IBV_MTU_1024;
  attr.ah_attr.is_global = 1;
  attr.retry_cnt = attr.rnr_retry = 7;
  return attr;
}

bool Legal(ibv_qp_type type, ibv_qp_state from, ibv_qp_state to, int mask,
           const ibv_qp_attr& attr = Valid()) {
  return CheckTransition(type, from, to, IBV_QP_STATE | mask, attr).ok();
}
bool Legal(ibv_qp_state from, ibv_qp_state to, int mask, const ibv_qp_attr& attr = Valid()) {
  return Legal(IBV_QPT_RC, from, to, mask, attr);
}

struct Step {
  ibv_qp_state from, to;
  int required;
};
struct Service {
  ibv_qp_type type;
  std::vector<Step> steps;
  int never;  // an attribute that it does not have
};
const std::vector<Service> kServices = {{IBV_QPT_RC,
                                         {{IBV_QPS_RESET, IBV_QPS_INIT, kInit},
                                          {IBV_QPS_INIT, IBV_QPS_INIT, 0},
                                          {IBV_QPS_INIT, IBV_QPS_RTR, kReceive},
                                          {IBV_QPS_RTR, IBV_QPS_RTS, kSend},
                                          {IBV_QPS_RTS, IBV_QPS_RTS, 0},
                                          {IBV_QPS_RTS, IBV_QPS_SQD, 0},
                                          {IBV_QPS_SQD, IBV_QPS_SQD, 0},
                                          {IBV_QPS_SQD, IBV_QPS_RTS, 0}},
                                         IBV_QP_QKEY},
                                        {IBV_QPT_UC,
                                         {{IBV_QPS_RESET, IBV_QPS_INIT, kInit},
                                          {IBV_QPS_INIT, IBV_QPS_INIT, 0},
                                          {IBV_QPS_INIT, IBV_QPS_RTR, kReceiveUc},
                                          {IBV_QPS_RTR, IBV_QPS_RTS, IBV_QP_SQ_PSN},
                                          {IBV_QPS_RTS, IBV_QPS_RTS, 0}},
                                         IBV_QP_TIMEOUT},
                                        {IBV_QPT_UD,
                                         {{IBV_QPS_RESET, IBV_QPS_INIT, kInitUd},
                                          {IBV_QPS_INIT, IBV_QPS_INIT, 0},
                                          {IBV_QPS_INIT, IBV_QPS_RTR, 0},
                                          {IBV_QPS_RTR, IBV_QPS_RTS, IBV_QP_SQ_PSN},
                                          {IBV_QPS_RTS, IBV_QPS_RTS, 0}},
                                         IBV_QP_AV}};

TEST(QpTransitions, OnlyThePathFromResetToReadyToSendAndTheWaysOut) {
  for (const Service& service : kServices) {
    for (int from = IBV_QPS_RESET; from <= IBV_QPS_ERR; ++from) {
      for (int to = IBV_QPS_RESET; to <= IBV_QPS_ERR; ++to) {
        const auto a = static_cast<ibv_qp_state>(from), b = static_cast<ibv_qp_state>(to);
        int mask = 0;
        bool expected = b == IBV_QPS_RESET || b == IBV_QPS_ERR;
        for (const Step& step : service.steps) {
          if (step.from == a && step.to == b) {
            mask = step.required;
            expected = true;
          }
        }
        EXPECT_EQ(Legal(service.type, a, b, mask), expected)
            << NameOf(service.type) << " " << NameOf(a) << " to " << NameOf(b);
      }
    }
  }
}

TEST(QpTransitions, EachRequiredAttributeIsMissedByName) {
  for (const Service& service : kServices) {
    for (const Step& step : service.steps) {
      for (int bit = 1; bit <= step.required; bit <<= 1) {
        if ((step.required & bit) == 0) continue;
        const auto status = CheckTransition(service.type, step.from, step.to,
                                            IBV_QP_STATE | (step.required & ~bit), Valid());
        EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bit;
        EXPECT_NE(status.message().find("needs also"), absl::string_view::npos) << status;
      }
      const auto extra = CheckTransition(service.type, step.from, step.to,
                                         IBV_QP_STATE | step.required | service.never, Valid());
      EXPECT_NE(extra.message().find("does not take: "), absl::string_view::npos) << extra;
    }
  }
}

TEST(QpTransitions, OptionalAttributesWhereTheStandardHasThem) {
  EXPECT_TRUE(Legal(IBV_QPS_INIT, IBV_QPS_INIT, kInit));
  EXPECT_TRUE(Legal(IBV_QPS_INIT, IBV_QPS_RTR, kReceive | IBV_QP_ACCESS_FLAGS));
  EXPECT_TRUE(Legal(IBV_QPS_RTR, IBV_QPS_RTS, kSend | IBV_QP_ACCESS_FLAGS | IBV_QP_MIN_RNR_TIMER));
  EXPECT_TRUE(Legal(IBV_QPS_RTS, IBV_QPS_RTS, IBV_QP_ACCESS_FLAGS | IBV_QP_MIN_RNR_TIMER));
  EXPECT_FALSE(Legal(IBV_QPS_RTS, IBV_QPS_RTS, IBV_QP_PATH_MTU));
  EXPECT_FALSE(Legal(IBV_QPS_RTS, IBV_QPS_ERR, IBV_QP_PATH_MTU));
}

TEST(QpTransitions, OptionalAttributesOfTheUnreliableServices) {
  const int tunable = IBV_QP_ACCESS_FLAGS | IBV_QP_ALT_PATH | IBV_QP_PATH_MIG_STATE;
  EXPECT_TRUE(Legal(IBV_QPT_UC, IBV_QPS_INIT, IBV_QPS_INIT, kInit));
  EXPECT_TRUE(
      Legal(IBV_QPT_UC, IBV_QPS_INIT, IBV_QPS_RTR, kReceiveUc | tunable | IBV_QP_PKEY_INDEX));
  EXPECT_TRUE(Legal(IBV_QPT_UC, IBV_QPS_RTR, IBV_QPS_RTS, IBV_QP_SQ_PSN | tunable));
  EXPECT_TRUE(Legal(IBV_QPT_UC, IBV_QPS_RTS, IBV_QPS_RTS, tunable));
  EXPECT_FALSE(Legal(IBV_QPT_UC, IBV_QPS_RTS, IBV_QPS_RTS, IBV_QP_MIN_RNR_TIMER));

  EXPECT_TRUE(Legal(IBV_QPT_UD, IBV_QPS_INIT, IBV_QPS_INIT, kInitUd));
  EXPECT_TRUE(Legal(IBV_QPT_UD, IBV_QPS_INIT, IBV_QPS_RTR, IBV_QP_PKEY_INDEX | IBV_QP_QKEY));
  EXPECT_TRUE(Legal(IBV_QPT_UD, IBV_QPS_RTR, IBV_QPS_RTS, IBV_QP_SQ_PSN | IBV_QP_QKEY));
  EXPECT_TRUE(Legal(IBV_QPT_UD, IBV_QPS_RTS, IBV_QPS_RTS, IBV_QP_QKEY));
  EXPECT_FALSE(Legal(IBV_QPT_UD, IBV_QPS_RTS, IBV_QPS_RTS, IBV_QP_ACCESS_FLAGS));
}

TEST(QpTransitions, ValuesOutOfRangeAreRefused) {
  const auto refused = [](ibv_qp_state from, ibv_qp_state to, int mask, auto set) {
    ibv_qp_attr attr = Valid();
    set(attr);
    return !Legal(from, to, mask, attr);
  };
  const auto rtr = [&](auto set) { return refused(IBV_QPS_INIT, IBV_QPS_RTR, kReceive, set); };
  const auto rts = [&](auto set) { return refused(IBV_QPS_RTR, IBV_QPS_RTS, kSend, set); };
  const auto init = [&](auto set) { return refused(IBV_QPS_RESET, IBV_QPS_INIT, kInit, set); };
  EXPECT_TRUE(init([](ibv_qp_attr& a) { a.port_num = 2; }));
  EXPECT_TRUE(init([](ibv_qp_attr& a) { a.pkey_index = 1; }));
  EXPECT_TRUE(rtr([](ibv_qp_attr& a) { a.path_mtu = static_cast<ibv_mtu>(0); }));
  EXPECT_TRUE(rtr([](ibv_qp_attr& a) { a.path_mtu = static_cast<ibv_mtu>(6); }));
  EXPECT_TRUE(rtr([](ibv_qp_attr& a) { a.ah_attr.is_global = 0; }));
  EXPECT_TRUE(rtr([](ibv_qp_attr& a) { a.ah_attr.grh.sgid_index = 1; }));
  EXPECT_TRUE(rtr([](ibv_qp_attr& a) { a.dest_qp_num = 1u << 24; }));
  EXPECT_TRUE(rtr([](ibv_qp_attr& a) { a.max_dest_rd_atomic = 17; }));
  EXPECT_TRUE(rtr([](ibv_qp_attr& a) { a.min_rnr_timer = 32; }));
  EXPECT_TRUE(rts([](ibv_qp_attr& a) { a.timeout = 32; }));
  EXPECT_TRUE(rts([](ibv_qp_attr& a) { a.retry_cnt = 8; }));
  EXPECT_TRUE(rts([](ibv_qp_attr& a) { a.rnr_retry = 8; }));
  EXPECT_TRUE(rts([](ibv_qp_attr& a) { a.max_rd_atomic = 17; }));
}

}  // namespace
}  // namespace sumac::soft_nic
