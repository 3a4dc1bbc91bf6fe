// The calls of librdmacm that connecting needs, as one table, so that tests can be the kernel.
//
// Each entry has the contract of the librdmacm function of the same name (man 3 rdma_*). Tables
// live for the life of the process and may be used from any thread.
#pragma once

#include <rdma/rdma_cma.h>

namespace sumac::transport::rdma_cm {

struct Calls {
  rdma_event_channel* (*create_event_channel)();
  void (*destroy_event_channel)(rdma_event_channel* channel);
  int (*get_cm_event)(rdma_event_channel* channel, rdma_cm_event** event);
  int (*ack_cm_event)(rdma_cm_event* event);
  int (*create_id)(rdma_event_channel* channel, rdma_cm_id** id, void* context,
                   rdma_port_space space);
  int (*destroy_id)(rdma_cm_id* id);
  int (*set_option)(rdma_cm_id* id, int level, int name, void* value, size_t length);
  int (*bind_addr)(rdma_cm_id* id, sockaddr* address);
  int (*listen)(rdma_cm_id* id, int backlog);
  __be16 (*get_src_port)(rdma_cm_id* id);
  int (*resolve_addr)(rdma_cm_id* id, sockaddr* source, sockaddr* destination, int timeout_ms);
  int (*resolve_route)(rdma_cm_id* id, int timeout_ms);
  int (*connect)(rdma_cm_id* id, rdma_conn_param* parameters);
  int (*accept)(rdma_cm_id* id, rdma_conn_param* parameters);
  int (*reject)(rdma_cm_id* id, const void* private_data, uint8_t length);
  int (*establish)(rdma_cm_id* id);
  int (*disconnect)(rdma_cm_id* id);
  int (*init_qp_attr)(rdma_cm_id* id, ibv_qp_attr* attr, int* mask);
};

const Calls& Librdmacm();

}  // namespace sumac::transport::rdma_cm
