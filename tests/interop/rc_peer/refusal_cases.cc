#include <array>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

#include "tests/interop/rc_peer/cases.h"
#include "verbs/status.h"

namespace sumac::interop {
namespace {

constexpr uint8_t kUntouched = 0xee;
constexpr size_t kBytes = 9000;  // three packets

// What both sides see of a refused request.
struct Outcome {
  ibv_wc_status request;                        // completes with this, and a later one is flushed
  ibv_wc_status receive = IBV_WC_WR_FLUSH_ERR;  // the receive that was posted, if any was
  ibv_wc_status later = IBV_WC_WR_FLUSH_ERR;    // a request posted after it
};

struct Refusal {
  const char* what;
  ibv_wr_opcode opcode;
  Outcome expected;  // as IBTA vol. 1 has it
  Outcome by_rxe;    // of an rxe responder: docs/testing_with_rxe.md lists where it differs
  Path path;
  void (*spoil)(const Record& peer,
                ibv_send_wr& request);  // null: nothing about the request is wrong
  size_t receive_bytes = kBytes;        // that the responder posts; 0: none
  bool without_peer = false;            // its queue pair is gone
};

constexpr auto kBadKey = [](const Record&, ibv_send_wr& request) {
  if (request.opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
    request.wr.atomic.rkey ^= 0x5a5a00;
  } else {
    request.wr.rdma.rkey ^= 0x5a5a00;
  }
};
constexpr auto kBeyond = [](const Record& peer, ibv_send_wr& request) {
  request.wr.rdma.remote_addr = peer.zone + kZoneBytes - kBytes + 1;
};
constexpr auto kReadOnly = [](const Record& peer, ibv_send_wr& request) {
  if (request.opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
    request.wr.atomic.rkey = peer.read_only_rkey;
  } else {
    request.wr.rdma.rkey = peer.read_only_rkey;
  }
};

constexpr auto kItsKey = [](const Record& peer, ibv_send_wr& request) {
  request.invalidate_rkey = peer.rkey;
};

// Long enough for emulated machines, short enough for a test.
constexpr Path kImpatient = {.timeout = 12, .retry_count = 3, .rnr_retry = 1};
constexpr Path kNothing = {.access = IBV_ACCESS_LOCAL_WRITE};

constexpr Outcome kAccess{IBV_WC_REM_ACCESS_ERR};
constexpr Outcome kInvalid{IBV_WC_REM_INV_REQ_ERR};

constexpr auto kRefusals = std::to_array<Refusal>({
    {"WRITE, key of none", IBV_WR_RDMA_WRITE, kAccess, kAccess, {}, kBadKey},
    {"READ, key of none", IBV_WR_RDMA_READ, kAccess, kAccess, {}, kBadKey},
    {"atomic, key of none", IBV_WR_ATOMIC_FETCH_AND_ADD, kAccess, kAccess, {}, kBadKey},
    {"WRITE over the end", IBV_WR_RDMA_WRITE, kAccess, kAccess, {}, kBeyond},
    {"READ over the end", IBV_WR_RDMA_READ, kAccess, kAccess, {}, kBeyond},
    {"WRITE, only reading granted", IBV_WR_RDMA_WRITE, kAccess, kAccess, {}, kReadOnly},
    {"atomic, only reading granted", IBV_WR_ATOMIC_FETCH_AND_ADD, kAccess, kAccess, {}, kReadOnly},
    {"WRITE, none on this QP", IBV_WR_RDMA_WRITE, kInvalid, kInvalid, kNothing, nullptr},
    {"READ, none on this QP", IBV_WR_RDMA_READ, kInvalid, kInvalid, kNothing, nullptr},
    {"atomic, none on this QP", IBV_WR_ATOMIC_FETCH_AND_ADD, kInvalid, kInvalid, kNothing, nullptr},
    {"SEND longer than its receive",
     IBV_WR_SEND,
     {IBV_WC_REM_INV_REQ_ERR, IBV_WC_LOC_LEN_ERR},
     {IBV_WC_REM_OP_ERR, IBV_WC_LOC_QP_OP_ERR},
     {},
     nullptr,
     kBytes - 1},
    {"SEND with invalidate, key of a region",
     IBV_WR_SEND_WITH_INV,
     {IBV_WC_REM_ACCESS_ERR, IBV_WC_REM_ACCESS_ERR},
     {IBV_WC_SUCCESS, IBV_WC_REM_INV_REQ_ERR, IBV_WC_RETRY_EXC_ERR},
     kImpatient,
     kItsKey},
    {"SEND that never finds a receive",
     IBV_WR_SEND,
     {IBV_WC_RNR_RETRY_EXC_ERR},
     {IBV_WC_RNR_RETRY_EXC_ERR},
     kImpatient,
     nullptr,
     0},
    {"WRITE, QP gone",
     IBV_WR_RDMA_WRITE,
     {IBV_WC_RETRY_EXC_ERR},
     {IBV_WC_RETRY_EXC_ERR},
     kImpatient,
     nullptr,
     0,
     true},
});

bool IsAtomic(const Refusal& refusal) { return refusal.opcode == IBV_WR_ATOMIC_FETCH_AND_ADD; }
bool IsSend(const Refusal& refusal) {
  return refusal.opcode == IBV_WR_SEND || refusal.opcode == IBV_WR_SEND_WITH_INV;
}

void Ask(Context& c, const Refusal& refusal, const Outcome& outcome) {
  End& end = c.end;
  std::memset(end.source().data(), 1, kBytes);
  ibv_sge sge = end.Sge(end.source().data(), IsAtomic(refusal) ? 8 : kBytes);
  ibv_send_wr request = end.Request(refusal.opcode, std::span(&sge, 1));
  if (refusal.spoil != nullptr) refusal.spoil(end.peer(), request);
  end.Post(request);
  ExpectStatus(end.NextSend(), outcome.request, refusal.what);
  ibv_send_wr late = end.Request(IBV_WR_RDMA_WRITE, std::span(&sge, 1));
  end.Post(late);
  ExpectStatus(end.NextSend(), outcome.later, absl::StrCat("what was posted after ", refusal.what));
}

void Refuse(Context& c, const Refusal& refusal, const Outcome& outcome) {
  End& end = c.end;
  if (refusal.receive_bytes != 0) {
    ExpectStatus(end.NextReceive(), outcome.receive, absl::StrCat("receive of ", refusal.what));
  }
  // A receive that is too small may have been filled before it ran over.
  ExpectAll(end.target().subspan(IsSend(refusal) ? refusal.receive_bytes : 0), kUntouched,
            refusal.what);
}

}  // namespace

uint64_t Refusals(Context& c) {
  End& end = c.end;
  for (const Refusal& refusal : kRefusals) {
    end.Reconnect(refusal.path);
    if (!c.requester) {
      std::memset(end.target().data(), kUntouched, end.target().size());
      if (refusal.receive_bytes != 0) {
        end.PostReceive((IsSend(refusal) ? end.target() : end.source()).data(),
                        refusal.receive_bytes);
      }
      if (refusal.without_peer) end.DestroyQueuePair();
    }
    c.channel.Sync();
    const Kind responder = c.requester ? end.peer().kind : end.self().kind;
    const Outcome& outcome = responder == Kind::kRxe ? refusal.by_rxe : refusal.expected;
    if (c.requester) Ask(c, refusal, outcome);
    c.channel.Sync();
    if (!c.requester) Refuse(c, refusal, outcome);
  }
  end.Reconnect({});
  if (c.requester) {
    // Nobody checks the key of nothing (IBTA vol. 1, 9.7.4.1.5: a DMA length of 0).
    ibv_sge sge = end.Sge(end.source().data(), 0);
    ibv_send_wr request = end.Request(IBV_WR_RDMA_WRITE, std::span(&sge, 1));
    request.wr.rdma.rkey ^= 0x5a5a00;
    end.Post(request);
    ExpectStatus(end.NextSend(), IBV_WC_SUCCESS, "WRITE of no bytes with a key that is none");
    // An atomic at an odd address never leaves: both refuse it as it is posted.
    sge = end.Sge(end.source().data(), 8);
    ibv_send_wr odd = end.Request(IBV_WR_ATOMIC_FETCH_AND_ADD, std::span(&sge, 1), 4);
    Check(end.qp().PostSend(odd) == EINVAL, "an atomic at an address that is no multiple of 8");
  }
  return kRefusals.size() + 2;
}

}  // namespace sumac::interop
