// The soft NIC's control calls as the table that the floors above use.

#include "verbs/provider.h"
#include "verbs/soft_nic/device/control_path.h"

namespace sumac::verbs {

const Provider& SoftProvider() {
  static constexpr Provider kProvider = {
      .name = "soft",
      .get_device_list = soft_nic::GetDeviceList,
      .free_device_list = soft_nic::FreeDeviceList,
      .open_device = soft_nic::OpenDevice,
      .close_device = soft_nic::CloseDevice,
      .query_device = soft_nic::QueryDevice,
      .query_port = soft_nic::QueryPort,
      .query_gid = soft_nic::QueryGid,
      .query_gid_ex = soft_nic::QueryGidEntry,
      .alloc_pd = soft_nic::AllocPd,
      .dealloc_pd = soft_nic::DeallocPd,
      .reg_mr = soft_nic::RegMr,
      .dereg_mr = soft_nic::DeregMr,
      .create_comp_channel = soft_nic::CreateCompChannel,
      .destroy_comp_channel = soft_nic::DestroyCompChannel,
      .create_cq = soft_nic::CreateCq,
      .destroy_cq = soft_nic::DestroyCq,
      .get_cq_event = soft_nic::GetCqEvent,
      .ack_cq_events = soft_nic::AckCqEvents,
      .create_qp = soft_nic::CreateQp,
      .modify_qp = soft_nic::ModifyQp,
      .query_qp = soft_nic::QueryQp,
      .destroy_qp = soft_nic::DestroyQp,
      .get_async_event = soft_nic::GetAsyncEvent,
      .ack_async_event = soft_nic::AckAsyncEvent,
      .wait_cq_event = soft_nic::WaitCqEvent,
  };
  return kProvider;
}

}  // namespace sumac::verbs
