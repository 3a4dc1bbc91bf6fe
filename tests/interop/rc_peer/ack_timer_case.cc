#include <chrono>

#include "absl/strings/str_cat.h"

#include "tests/interop/rc_peer/cases.h"
#include "tests/interop/rc_peer/counters.h"

namespace sumac::interop {
namespace {

using Clock = std::chrono::steady_clock;
constexpr uint8_t kTimeout = 12;
constexpr auto kTimeoutTime = std::chrono::microseconds(16'777);  // 4.096 us * 2^12
constexpr auto kLong = std::chrono::seconds(2);                   // a hundred timers
constexpr auto kLongOfRxe = std::chrono::seconds(20);             // until it is seen

uint64_t Retries(End& end) {
  return CounterOf(end.device(),
                   end.self().kind == Kind::kSoft ? "timeouts" : "completer_retry_err");
}

// One small WRITE after the other. True once one was retried that took far less than the timeout.
bool RetriesEarly(End& end, Clock::duration duration, uint64_t& count) {
  ibv_sge sge = end.Sge(end.source().data(), 8);
  const auto stop = Clock::now() + duration;
  uint64_t retries = Retries(end);
  while (Clock::now() < stop) {
    const auto posted = Clock::now();
    ibv_send_wr request = end.Request(IBV_WR_RDMA_WRITE, std::span(&sge, 1));
    end.Post(request);
    ExpectStatus(end.NextSend(), IBV_WC_SUCCESS, "WRITE with an ACK timeout");
    const auto took = Clock::now() - posted;
    const uint64_t before = retries;
    retries = Retries(end);
    ++count;
    if (retries != before && took < kTimeoutTime / 2) return true;
  }
  return false;
}

}  // namespace

uint64_t AckTimer(Context& c) {
  c.end.Reconnect({.timeout = kTimeout});
  uint64_t count = 0;
  if (c.requester) {
    const bool rxe = c.end.self().kind == Kind::kRxe;
    const bool early = RetriesEarly(c.end, rxe ? kLongOfRxe : kLong, count);
    Check(early == rxe, early ? "a WRITE was retried before its ACK timeout"
                              : "rxe doesn't retry WRITEs before their ACK timeout any more");
  }
  return count;
}

}  // namespace sumac::interop
