// The control calls of the soft NIC: what libibverbs exports as functions (man 3 ibv_*).
//
// Each has the contract of the function of its name: null or a positive errno on failure. Any
// thread. They meet the running engine only through Progress::Exclusive.
#pragma once

#include <infiniband/verbs.h>

#include <string>

namespace sumac::soft_nic {

// Device (soft_device.cc).
inline constexpr char kCommandFile[] = "sumac-soft-nic";  // what ibv_context.cmd_fd is open on
ibv_device* SoftDevice();  // the one there is, for the life of the process
ibv_device** GetDeviceList(int* count);
void FreeDeviceList(ibv_device** list);
ibv_context* OpenDevice(ibv_device* device);
uint64_t SoftDeviceGuid();        // as ibv_get_device_guid has it; 0 if the settings are wrong
std::string SoftDeviceAddress();  // where it would be opened; empty if the settings are wrong
int CloseDevice(ibv_context* context);
int QueryDevice(ibv_context* context, ibv_device_attr* attr);
int QueryDeviceExtended(ibv_context* context, const ibv_query_device_ex_input* input,
                        ibv_device_attr_ex* attr, size_t attr_bytes);
int QueryPort(ibv_context* context, uint8_t port, ibv_port_attr* attr);
int QueryPortExtended(ibv_context* context, uint8_t port, ibv_port_attr* attr, size_t attr_bytes);
int QueryGid(ibv_context* context, uint8_t port, int index, ibv_gid* gid);
int QueryGidEntry(ibv_context* context, uint32_t port, uint32_t index, ibv_gid_entry* entry);
int GetAsyncEvent(ibv_context* context, ibv_async_event* event);
void AckAsyncEvent(ibv_async_event* event);

// Protection domains (protection_domain_calls.cc).
ibv_pd* AllocPd(ibv_context* context);
// Around another one, with rights in common. Neither td nor allocators change anything.
ibv_pd* AllocParentDomain(ibv_context* context, ibv_parent_domain_init_attr* attr);
int DeallocPd(ibv_pd* pd);  // EBUSY while objects are left
ibv_td* AllocTd(ibv_context* context, ibv_td_init_attr* attr);
int DeallocTd(ibv_td* td);

// Memory (memory_calls.cc).
ibv_mr* RegMr(ibv_pd* pd, void* addr, size_t length, int access);
// Work requests and peers name the region's bytes by `iova` and up.
ibv_mr* RegMrIova(ibv_pd* pd, void* addr, size_t length, uint64_t iova, int access);
ibv_mr* RegDmabufMr(ibv_pd* pd, uint64_t offset, size_t length, uint64_t iova, int fd,
                    int access);  // not offered
// 0 or an ibv_rereg_mr_err_code, with errno. The keys stay.
int ReregMr(ibv_mr* mr, int flags, ibv_pd* pd, void* addr, size_t length, int access);
int DeregMr(ibv_mr* mr);  // EBUSY while windows are bound to it
// Prefetches pages of on-demand regions (on_demand.cc), before it returns in any case.
int AdviseMr(ibv_pd* pd, ibv_advise_mr_advice advice, uint32_t flags, ibv_sge* ranges,
             uint32_t count);

// Memory windows (memory_window_calls.cc). BindMw is for type 1; type 2 is bound by posting.
ibv_mw* AllocMw(ibv_pd* pd, ibv_mw_type type);
int BindMw(ibv_qp* qp, ibv_mw* window, ibv_mw_bind* bind);
int DeallocMw(ibv_mw* window);

// Completions (completion_calls.cc).
ibv_comp_channel* CreateCompChannel(ibv_context* context);
int DestroyCompChannel(ibv_comp_channel* channel);
ibv_cq* CreateCq(ibv_context* context, int cqe, void* cq_context, ibv_comp_channel* channel,
                 int comp_vector);
// A queue to poll with ibv_start_poll (extended_completion_queue.cc).
ibv_cq_ex* CreateCqEx(ibv_context* context, ibv_cq_init_attr_ex* attr);
// The device's clock as completion timestamps have it, in nanoseconds, all in tv_nsec.
int QueryRtValues(ibv_context* context, ibv_values_ex* values);
int ResizeCq(ibv_cq* cq, int cqe);
int DestroyCq(ibv_cq* cq);
int GetCqEvent(ibv_comp_channel* channel, ibv_cq** cq, void** cq_context);
void AckCqEvents(ibv_cq* cq, unsigned int count);
int WaitCqEvent(ibv_comp_channel* channel, int timeout_ms);

// XRC domains (xrc_domain_calls.cc). The number of an XRC shared receive queue is what packets
// name.
ibv_xrcd* OpenXrcd(ibv_context* context, ibv_xrcd_init_attr* attr);
int CloseXrcd(ibv_xrcd* xrcd);  // EBUSY while objects are left
int GetSrqNum(ibv_srq* srq, uint32_t* number);

// Shared receive queues (shared_receive_calls.cc). ibv_create_srq_ex of the header calls CreateSrq
// for basic ones; XRC ones need CreateSrqEx; those with tag matching are not offered.
ibv_srq* CreateSrq(ibv_pd* pd, ibv_srq_init_attr* attr);
ibv_srq* CreateSrqEx(ibv_context* context, ibv_srq_init_attr_ex* attr);
int ModifySrq(ibv_srq* srq, ibv_srq_attr* attr, int mask);
int QuerySrq(ibv_srq* srq, ibv_srq_attr* attr);
int DestroySrq(ibv_srq* srq);

// Queue pairs (queue_pair_calls.cc).
ibv_qp* CreateQp(ibv_pd* pd, ibv_qp_init_attr* attr);
ibv_qp* CreateXrcTarget(ibv_xrcd* xrcd, ibv_qp_init_attr* attr);
// Another handle on an XRC target: the same one, which is destroyed with its last handle.
ibv_qp* OpenQp(ibv_context* context, ibv_qp_open_attr* attr);
// Queue pairs to post to with ibv_wr_* calls (extended_queue_pair.cc).
ibv_qp* CreateQpEx(ibv_context* context, ibv_qp_init_attr_ex* attr);
ibv_qp_ex* QpToQpEx(ibv_qp* qp);  // null unless created with IBV_QP_INIT_ATTR_SEND_OPS_FLAGS
int ModifyQp(ibv_qp* qp, ibv_qp_attr* attr, int mask);
int ModifyQpRateLimit(ibv_qp* qp, ibv_qp_rate_limit_attr* attr);
int QueryQp(ibv_qp* qp, ibv_qp_attr* attr, int mask, ibv_qp_init_attr* init_attr);
int DestroyQp(ibv_qp* qp);

// Address handles of UD (address_handle_calls.cc). InitAhFromWc returns -1 with errno.
ibv_ah* CreateAh(ibv_pd* pd, ibv_ah_attr* attr);
ibv_ah* CreateAhFromWc(ibv_pd* pd, ibv_wc* wc, ibv_grh* grh, uint8_t port);
int InitAhFromWc(ibv_context* context, uint8_t port, ibv_wc* wc, ibv_grh* grh, ibv_ah_attr* attr);
int DestroyAh(ibv_ah* ah);

// librdmacm (connection_manager.cc): what the system calls on /dev/infiniband/rdma_cm do.
int OpenConnectionManager(int flags);
ssize_t WriteConnectionManager(int fd, const void* command, size_t bytes);
void CloseConnectionManager(int fd);  // the caller closes the descriptor afterwards
void LeaveConnectionManager();        // the process ends

}  // namespace sumac::soft_nic
