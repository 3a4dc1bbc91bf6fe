#include <poll.h>

#include "verbs/provider.h"

namespace sumac::verbs {
namespace {

int WaitCqEvent(ibv_comp_channel* channel, int timeout_ms) {
  pollfd event{.fd = channel->fd, .events = POLLIN, .revents = 0};
  return poll(&event, 1, timeout_ms);
}

}  // namespace

const Provider& LibibverbsProvider() {
  // The names that verbs.h makes macros of (ibv_reg_mr, ibv_query_port) need lambdas around them.
  static constexpr Provider kProvider = {
      .name = "libibverbs",
      .get_device_list = ibv_get_device_list,
      .free_device_list = ibv_free_device_list,
      .open_device = ibv_open_device,
      .close_device = ibv_close_device,
      .query_device = ibv_query_device,
      .query_port = [](ibv_context* context, uint8_t port,
                       ibv_port_attr* attr) { return ibv_query_port(context, port, attr); },
      .query_gid = ibv_query_gid,
      .query_gid_ex =
          [](ibv_context* context, uint32_t port, uint32_t index, ibv_gid_entry* entry) {
            return ibv_query_gid_ex(context, port, index, entry, 0);
          },
      .alloc_pd = ibv_alloc_pd,
      .dealloc_pd = ibv_dealloc_pd,
      .reg_mr = [](ibv_pd* pd, void* addr, size_t length,
                   int access) { return ibv_reg_mr(pd, addr, length, access); },
      .dereg_mr = ibv_dereg_mr,
      .create_comp_channel = ibv_create_comp_channel,
      .destroy_comp_channel = ibv_destroy_comp_channel,
      .create_cq = ibv_create_cq,
      .destroy_cq = ibv_destroy_cq,
      .get_cq_event = ibv_get_cq_event,
      .ack_cq_events = ibv_ack_cq_events,
      .create_qp = ibv_create_qp,
      .modify_qp = ibv_modify_qp,
      .query_qp = ibv_query_qp,
      .destroy_qp = ibv_destroy_qp,
      .get_async_event = ibv_get_async_event,
      .ack_async_event = ibv_ack_async_event,
      .wait_cq_event = WaitCqEvent,
  };
  return kProvider;
}

}  // namespace sumac::verbs
