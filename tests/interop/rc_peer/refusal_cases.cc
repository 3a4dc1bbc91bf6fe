#include <array>
#include <cstring>

#include "absl/strings/str_cat.h"

#include "tests/interop/rc_peer/cases.h"
#include "verbs/status.h"

namespace sumac::interop {
namespace {

constexpr uint8_t kUntouched = 0xee;
constexpr size_t kBytes = 9000;  // three packets

struct Refusal {
  const char* what;
  ibv_wr_opcode opcode;
  ibv_wc_status expected;  // as IBTA vol. 1 has it
  ibv_wc_status
      by_rxe;  // of an rxe responder, where that differs; docs/testing_with_rxe.md lists them
  Path path;
  void (*spoil)(const Record& peer,
                ibv_send_wr& request);  // null: nothing about the request is wrong
  size_t receive_bytes = 0;             // that the responder posts; 0: none
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

// Long enough for emulated machines, short enough for a test.
constexpr Path kImpatient = {.timeout = 12, .retry_count = 3, .rnr_retry = 1};
constexpr Path kMayNotWrite = {.access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ};

constexpr std::array kRefusals = {
    Refusal{"WRITE with a key that is none",
            IBV_WR_RDMA_WRITE,
            IBV_WC_REM_ACCESS_ERR,
            IBV_WC_REM_ACCESS_ERR,
            {},
            kBadKey},
    Refusal{"READ with a key that is none",
            IBV_WR_RDMA_READ,
            IBV_WC_REM_ACCESS_ERR,
            IBV_WC_REM_ACCESS_ERR,
            {},
            kBadKey},
    Refusal{"atomic with a key that is none",
            IBV_WR_ATOMIC_FETCH_AND_ADD,
            IBV_WC_REM_ACCESS_ERR,
            IBV_WC_REM_ACCESS_ERR,
            {},
            kBadKey},
    Refusal{"WRITE over the end",
            IBV_WR_RDMA_WRITE,
            IBV_WC_REM_ACCESS_ERR,
            IBV_WC_REM_ACCESS_ERR,
            {},
            kBeyond},
    Refusal{"READ over the end",
            IBV_WR_RDMA_READ,
            IBV_WC_REM_ACCESS_ERR,
            IBV_WC_REM_ACCESS_ERR,
            {},
            kBeyond},
    Refusal{"WRITE where only reading is granted",
            IBV_WR_RDMA_WRITE,
            IBV_WC_REM_ACCESS_ERR,
            IBV_WC_REM_ACCESS_ERR,
            {},
            kReadOnly},
    Refusal{"atomic where only reading is granted",
            IBV_WR_ATOMIC_FETCH_AND_ADD,
            IBV_WC_REM_ACCESS_ERR,
            IBV_WC_REM_ACCESS_ERR,
            {},
            kReadOnly},
    Refusal{"WRITE to a queue pair that grants none", IBV_WR_RDMA_WRITE, IBV_WC_REM_INV_REQ_ERR,
            IBV_WC_REM_INV_REQ_ERR, kMayNotWrite, nullptr},
    Refusal{"SEND longer than its receive",
            IBV_WR_SEND,
            IBV_WC_REM_INV_REQ_ERR,
            IBV_WC_REM_OP_ERR,
            {},
            nullptr,
            kBytes - 1},
    Refusal{"SEND that never finds a receive", IBV_WR_SEND, IBV_WC_RNR_RETRY_EXC_ERR,
            IBV_WC_RNR_RETRY_EXC_ERR, kImpatient, nullptr},
    Refusal{"WRITE to a queue pair that is gone", IBV_WR_RDMA_WRITE, IBV_WC_RETRY_EXC_ERR,
            IBV_WC_RETRY_EXC_ERR, kImpatient, nullptr, 0, true},
};

}  // namespace

uint64_t Refusals(Context& c) {
  End& end = c.end;
  for (const Refusal& refusal : kRefusals) {
    end.Reconnect(refusal.path);
    const auto target = end.target();
    if (!c.requester) {
      std::memset(target.data(), kUntouched, target.size());
      if (refusal.receive_bytes != 0) end.PostReceive(target.data(), refusal.receive_bytes);
      if (refusal.without_peer) end.DestroyQueuePair();
    }
    c.channel.Sync();
    if (c.requester) {
      const bool is_atomic = refusal.opcode == IBV_WR_ATOMIC_FETCH_AND_ADD;
      std::memset(end.source().data(), 1, kBytes);
      ibv_sge sge = end.Sge(end.source().data(), is_atomic ? 8 : kBytes);
      ibv_send_wr request = end.Request(refusal.opcode, std::span(&sge, 1));
      if (refusal.spoil != nullptr) refusal.spoil(end.peer(), request);
      end.Post(request);
      const bool by_rxe = end.peer().kind == Kind::kRxe;
      ExpectStatus(end.NextSend(), by_rxe ? refusal.by_rxe : refusal.expected, refusal.what);
    }
    c.channel.Sync();
    // A receive that is too small may have been filled before it ran over.
    if (!c.requester) {
      ExpectAll(target.subspan(refusal.receive_bytes), kUntouched, refusal.what);
    }
  }
  // Nobody checks the key of nothing (IBTA vol. 1, 9.7.4.1.5: a DMA length of 0).
  end.Reconnect({});
  if (c.requester) {
    ibv_sge sge = end.Sge(end.source().data(), 0);
    ibv_send_wr request = end.Request(IBV_WR_RDMA_WRITE, std::span(&sge, 1));
    request.wr.rdma.rkey ^= 0x5a5a00;
    end.Post(request);
    ExpectStatus(end.NextSend(), IBV_WC_SUCCESS, "WRITE of no bytes with a key that is none");
  }
  return kRefusals.size() + 1;
}

}  // namespace sumac::interop
