#include "transport/rdma_cm/calls.h"

namespace sumac::transport::rdma_cm {

const Calls& Librdmacm() {
  static constexpr Calls kCalls = {
      .create_event_channel = rdma_create_event_channel,
      .destroy_event_channel = rdma_destroy_event_channel,
      .get_cm_event = rdma_get_cm_event,
      .ack_cm_event = rdma_ack_cm_event,
      .create_id = rdma_create_id,
      .destroy_id = rdma_destroy_id,
      .set_option = rdma_set_option,
      .bind_addr = rdma_bind_addr,
      .listen = rdma_listen,
      .get_src_port = rdma_get_src_port,
      .resolve_addr = rdma_resolve_addr,
      .resolve_route = rdma_resolve_route,
      .connect = rdma_connect,
      .accept = rdma_accept,
      .reject = rdma_reject,
      .establish = rdma_establish,
      .disconnect = rdma_disconnect,
      .init_qp_attr = rdma_init_qp_attr,
  };
  return kCalls;
}

}  // namespace sumac::transport::rdma_cm
