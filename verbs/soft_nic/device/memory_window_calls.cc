// Memory windows.

#include <cerrno>

#include "verbs/soft_nic/device/control_path.h"
#include "verbs/soft_nic/device/data_path.h"
#include "verbs/soft_nic/device/protection_domain.h"
#include "verbs/soft_nic/device/soft_context.h"

namespace sumac::soft_nic {

ibv_mw* AllocMw(ibv_pd* pd, ibv_mw_type type) {
  if (type != IBV_MW_TYPE_1 && type != IBV_MW_TYPE_2) {
    errno = EINVAL;
    return nullptr;
  }
  SoftContext& context = SoftContext::Of(pd->context);
  auto* window = OrNoMemory([] { return new ibv_mw{}; });
  if (window == nullptr) return nullptr;
  const uint32_t key =
      context.progress().Exclusive([&] { return context.keys().AddWindow(RightsOf(pd), type); });
  if (key == 0) {
    delete window;
    errno = ENOMEM;
    return nullptr;
  }
  *window = {.context = pd->context, .pd = pd, .rkey = key, .handle = key, .type = type};
  AddObject(pd);
  return window;
}

int DeallocMw(ibv_mw* window) {
  SoftContext& context = SoftContext::Of(window->context);
  context.progress().Exclusive([&] { context.keys().RemoveWindow(window->handle); });
  RemoveObject(window->pd);
  delete window;
  return 0;
}

int BindMw(ibv_qp* qp, ibv_mw* window, ibv_mw_bind* bind) {
  const uint32_t rkey = ibv_inc_rkey(window->rkey);
  ibv_send_wr request{};
  request.wr_id = bind->wr_id;
  request.opcode = IBV_WR_BIND_MW;
  request.send_flags = bind->send_flags;
  request.bind_mw.mw = window;
  request.bind_mw.rkey = rkey;
  request.bind_mw.bind_info = bind->bind_info;
  ibv_send_wr* bad = nullptr;
  const int error = PostSend(qp, &request, &bad);
  if (error == 0) window->rkey = rkey;
  return error;
}

}  // namespace sumac::soft_nic
