// A SEND with invalidate takes back a memory window (IBTA vol. 1, 9.4.1.1.3 and 10.6.7.2).
#include <memory>

#include "absl/strings/str_cat.h"

#include "tests/interop/rc_peer/cases.h"

namespace sumac::interop {
namespace {

constexpr size_t kBytes = 5000;

struct DestroyWindow {
  void operator()(ibv_mw* window) const { ibv_dealloc_mw(window); }
};
struct Deregister {
  const verbs::Provider& provider;
  void operator()(ibv_mr* region) const { provider.dereg_mr(region); }
};
using Window = std::unique_ptr<ibv_mw, DestroyWindow>;
using Region = std::unique_ptr<ibv_mr, Deregister>;

// The window's key for the peer, after binding it to the target zone.
uint32_t Bind(End& end, ibv_mr* region, ibv_mw* window) {
  ibv_send_wr request{};
  request.opcode = IBV_WR_BIND_MW;
  request.send_flags = IBV_SEND_SIGNALED;
  request.bind_mw.mw = window;
  request.bind_mw.rkey = ibv_inc_rkey(window->rkey);
  request.bind_mw.bind_info = {region, reinterpret_cast<uint64_t>(end.target().data()), kZoneBytes,
                               IBV_ACCESS_REMOTE_WRITE};
  end.Post(request);
  ExpectStatus(end.NextSend(), IBV_WC_SUCCESS, "binding a memory window");
  return request.bind_mw.rkey;
}

ibv_wc Write(End& end, uint32_t rkey) {
  ibv_sge sge = end.Sge(end.source().data(), kBytes);
  ibv_send_wr request = end.Request(IBV_WR_RDMA_WRITE, std::span(&sge, 1));
  request.wr.rdma.rkey = rkey;
  end.Post(request);
  return end.NextSend();
}

uint64_t Ask(Context& c) {
  End& end = c.end;
  const auto rkey = c.channel.Swap<uint32_t>(0);
  if (rkey == 0) return 0;
  Fill(end.source().first(kBytes), c.seed);
  ExpectStatus(Write(end, rkey), IBV_WC_SUCCESS, "WRITE to a window");
  ibv_sge sge = end.Sge(end.source().data(), kBytes);
  ibv_send_wr request = end.Request(IBV_WR_SEND_WITH_INV, std::span(&sge, 1));
  request.invalidate_rkey = rkey;
  end.Post(request);
  ExpectStatus(end.NextSend(), IBV_WC_SUCCESS, "SEND with invalidate");
  Fill(end.source().first(kBytes), c.seed + 1);
  ExpectStatus(Write(end, rkey), IBV_WC_REM_ACCESS_ERR, "WRITE to a window taken back");
  c.channel.Sync();
  return 3;
}

}  // namespace

uint64_t Invalidate(Context& c) {
  End& end = c.end;
  end.Reconnect({});
  if (c.requester) return Ask(c);

  const Window window(ibv_alloc_mw(end.pd().pd(), IBV_MW_TYPE_2));
  if (window == nullptr) {  // this device has none, so there is nothing to take back
    c.channel.Swap<uint32_t>(0);
    return 0;
  }
  const verbs::Provider& provider = end.device().provider();
  const Region region(provider.reg_mr(end.pd().pd(), end.target().data(), kZoneBytes,
                                      kAllAccess | IBV_ACCESS_MW_BIND),
                      Deregister{provider});
  Check(region != nullptr, "registering memory for a window");
  end.PostReceive(end.source().data(), kBytes);
  const uint32_t rkey = Bind(end, region.get(), window.get());
  c.channel.Swap(rkey);
  const ibv_wc wc = end.NextReceive();
  ExpectStatus(wc, IBV_WC_SUCCESS, "receive with invalidate");
  // rxe hands out the kernel's own flag, which is this one in libibverbs.
  const unsigned flag = end.self().kind == Kind::kRxe ? IBV_WC_IP_CSUM_OK : IBV_WC_WITH_INV;
  Check((wc.wc_flags & flag) != 0 && wc.invalidated_rkey == rkey,
        absl::StrCat("the receive does not say which key was taken back: flags ", wc.wc_flags,
                     ", key ", wc.invalidated_rkey, ", not ", rkey));
  Expect(end.source().first(kBytes), c.seed, "receive with invalidate");
  c.channel.Sync();
  Expect(end.target().first(kBytes), c.seed, "what was written to the window");
  end.DestroyQueuePair();  // before its window
  return 3;
}

}  // namespace sumac::interop
