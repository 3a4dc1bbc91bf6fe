// The control calls of libibverbs, as one table filled by whoever provides a device: libibverbs or
// the soft NIC.
//
// Data calls (ibv_post_send, ibv_poll_cq, ...) need no entry: they are inline calls through
// ibv_context on both. The RAII floor above calls only through this table, so everything above it
// runs on either with no `if`. Each entry has the contract of the libibverbs function of the same
// name (man 3 ibv_*). Tables live for the life of the process and may be used from any thread.
#pragma once

#include <infiniband/verbs.h>

namespace sumac::verbs {

struct Provider {
  const char* name;  // "libibverbs", "soft"

  ibv_device** (*get_device_list)(
      int* count);  // null with errno: ENOSYS means that there is no such kind of device here
  void (*free_device_list)(ibv_device** list);
  ibv_context* (*open_device)(ibv_device* device);
  int (*close_device)(ibv_context* context);
  int (*query_device)(ibv_context* context, ibv_device_attr* attr);
  int (*query_port)(ibv_context* context, uint8_t port, ibv_port_attr* attr);
  int (*query_gid)(ibv_context* context, uint8_t port, int index, ibv_gid* gid);
  int (*query_gid_ex)(ibv_context* context, uint32_t port, uint32_t index, ibv_gid_entry* entry);
  ibv_pd* (*alloc_pd)(ibv_context* context);
  int (*dealloc_pd)(ibv_pd* pd);
  ibv_mr* (*reg_mr)(ibv_pd* pd, void* addr, size_t length, int access);
  int (*dereg_mr)(ibv_mr* mr);
  ibv_comp_channel* (*create_comp_channel)(ibv_context* context);
  int (*destroy_comp_channel)(ibv_comp_channel* channel);
  ibv_cq* (*create_cq)(ibv_context* context, int cqe, void* cq_context, ibv_comp_channel* channel,
                       int comp_vector);
  int (*destroy_cq)(ibv_cq* cq);
  int (*get_cq_event)(ibv_comp_channel* channel, ibv_cq** cq, void** cq_context);
  void (*ack_cq_events)(ibv_cq* cq, unsigned int count);
  ibv_qp* (*create_qp)(ibv_pd* pd, ibv_qp_init_attr* attr);
  int (*modify_qp)(ibv_qp* qp, ibv_qp_attr* attr, int mask);
  int (*query_qp)(ibv_qp* qp, ibv_qp_attr* attr, int mask, ibv_qp_init_attr* init_attr);
  int (*destroy_qp)(ibv_qp* qp);
  int (*get_async_event)(ibv_context* context, ibv_async_event* event);
  void (*ack_async_event)(ibv_async_event* event);

  // Waits until `channel` has an event to get, at most `timeout_ms`: 1 ready, 0 timed out, -1 with
  // errno. The soft NIC drives itself on the waiting thread meanwhile, which saves a thread switch;
  // libibverbs polls the descriptor.
  int (*wait_cq_event)(ibv_comp_channel* channel, int timeout_ms);
};

const Provider& LibibverbsProvider();
const Provider& SoftProvider();  // verbs/soft_nic/device/soft_provider.cc

}  // namespace sumac::verbs
