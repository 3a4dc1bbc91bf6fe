// Opening the soft NIC and asking it what it is.

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <optional>
#include <string>

#include "verbs/log.h"
#include "verbs/soft_nic/device/control_path.h"
#include "verbs/soft_nic/device/limits.h"
#include "verbs/soft_nic/device/on_demand.h"
#include "verbs/soft_nic/device/options.h"
#include "verbs/soft_nic/device/soft_context.h"
#include "verbs/soft_nic/engine/send_queue.h"
#include "verbs/soft_nic/link/local_link.h"

namespace sumac::soft_nic {
namespace {

// Providers of hardware look past ibv_device into their own struct before they know it is not
// theirs: zeroes are what they must find.
struct PaddedDevice : ibv_device {
  char padding[1024];
};

// Unique per address, in the EUI-64 shape that programs print (IBTA vol. 1, 4.1.1).
uint64_t GuidOf(const Gid& gid) {
  uint64_t guid = 0;
  std::memcpy(&guid, gid.data() + 8, sizeof(guid));
  return guid ^ 0x02;  // locally administered
}

ibv_mtu MtuOf(uint32_t bytes) {
  int mtu = IBV_MTU_256;
  while (mtu < IBV_MTU_4096 && (128u << (mtu + 1)) <= bytes) ++mtu;
  return static_cast<ibv_mtu>(mtu);
}

int ErrnoOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
      return EINVAL;
    case absl::StatusCode::kNotFound:
      return ENODEV;
    case absl::StatusCode::kAlreadyExists:
      return EADDRINUSE;
    case absl::StatusCode::kResourceExhausted:
      return EAGAIN;
    case absl::StatusCode::kDeadlineExceeded:
      return ETIMEDOUT;
    case absl::StatusCode::kPermissionDenied:
      return EPERM;
    default:
      return EIO;
  }
}

absl::StatusOr<std::unique_ptr<Link>> OpenLink(const DeviceOptions& options) {
  auto network = UdpLink::Open(options.link);
  if (!network.ok()) return network.status();
  if (!options.local || !(*network)->shares_port()) return *std::move(network);
  const uint32_t slots = (*network)->slots();
  std::string names = (*network)->names();
  return LocalLink::Create(*std::move(network), slots, std::move(names));
}

// Where the device would be opened now.
std::optional<Gid> ConfiguredAddress() {
  const auto options = ReadDeviceOptions([](const char* name) { return std::getenv(name); });
  if (!options.ok()) return std::nullopt;
  if (options->link.interface.empty()) return options->link.address;
  const auto address = AddressOfInterface(options->link.interface);
  return address.ok() ? std::optional(address->gid) : std::nullopt;
}

}  // namespace

ibv_device* SoftDevice() {
  static PaddedDevice* const device = [] {
    auto* made = new PaddedDevice{};
    made->node_type = IBV_NODE_CA;
    made->transport_type = IBV_TRANSPORT_IB;
    std::strcpy(made->name, "soft0");
    std::strcpy(made->dev_name, "soft0");
    // Nothing is there, except for programs under `sumac soft` (interpose/paths.cc).
    std::strcpy(made->dev_path, "/sys/class/infiniband_verbs/soft0");
    std::strcpy(made->ibdev_path, "/sys/class/infiniband/soft0");
    return made;
  }();
  return device;
}

ibv_device** GetDeviceList(int* count) {
  auto** list = static_cast<ibv_device**>(std::calloc(2, sizeof(ibv_device*)));
  if (list == nullptr) return nullptr;
  list[0] = SoftDevice();
  if (count != nullptr) *count = 1;
  return list;
}

void FreeDeviceList(ibv_device** list) { std::free(list); }

ibv_context* OpenDevice(ibv_device* device) {
  auto options = ReadDeviceOptions([](const char* name) { return std::getenv(name); });
  absl::Status failure = options.status();
  if (failure.ok()) {
    auto link = OpenLink(*options);
    failure = link.status();
    if (link.ok()) {
      try {
        return &(new SoftContext(device, *std::move(link), options->send_quota, options->local))
                    ->context;
      } catch (const std::exception& error) {  // no memory, descriptor or thread
        failure = absl::ResourceExhaustedError(error.what());
      }
    }
  }
  // ibv_open_device has only errno to say why; the log has the reason.
  Log().error("can't open {}: {}", device->name, std::string(failure.message()));
  errno = ErrnoOf(failure);
  return nullptr;
}

uint64_t SoftDeviceGuid() {
  const std::optional<Gid> address = ConfiguredAddress();
  return address ? GuidOf(*address) : 0;
}

std::string SoftDeviceAddress() {
  const std::optional<Gid> address = ConfiguredAddress();
  return address ? ToString(*address) : "";
}

int CloseDevice(ibv_context* context) {
  SoftContext& soft = SoftContext::Of(context);
  soft.Stop();
  soft.Release();
  return 0;
}

int QueryDevice(ibv_context* context, ibv_device_attr* attr) {
  SoftContext& soft = SoftContext::Of(context);
  *attr = {};
  std::strcpy(attr->fw_ver, "1.0");
  attr->node_guid = attr->sys_image_guid = GuidOf(soft.link().local_gid());
  attr->max_mr_size = UINT64_MAX;
  attr->page_size_cap = 0xfffff000;
  attr->vendor_id = 0xffffff;  // as rxe: no company has it, and 0 is none to programs that check
  attr->max_qp = static_cast<int>(kQueuePairsMax);
  attr->max_qp_wr = static_cast<int>(kWorkRequestsMax);
  attr->device_cap_flags = IBV_DEVICE_CURR_QP_STATE_MOD | IBV_DEVICE_RC_RNR_NAK_GEN |
                           IBV_DEVICE_SRQ_RESIZE | IBV_DEVICE_MEM_WINDOW |
                           IBV_DEVICE_MEM_WINDOW_TYPE_2B | IBV_DEVICE_SYS_IMAGE_GUID |
                           IBV_DEVICE_XRC;
  attr->max_sge = attr->max_sge_rd = static_cast<int>(kSgesMax);
  attr->max_cq = static_cast<int>(kCompletionQueuesMax);
  attr->max_cqe = static_cast<int>(kCompletionsMax);
  attr->max_mr = static_cast<int>(kMemoryRegionsMax);
  attr->max_ah = static_cast<int>(kAddressHandlesMax);
  attr->max_mw = static_cast<int>(kMemoryWindowsMax);
  attr->max_pd = static_cast<int>(kProtectionDomainsMax);
  attr->max_qp_rd_atom = attr->max_qp_init_rd_atom = kReadAtomicsMax;
  attr->max_res_rd_atom = static_cast<int>(kReadAtomicsMax * kQueuePairsMax);
  // The engine uses the processor's atomic instructions, so the processor's own count as well.
  attr->atomic_cap = IBV_ATOMIC_GLOB;
  attr->max_srq = static_cast<int>(kSharedReceiveQueuesMax);
  attr->max_srq_wr = static_cast<int>(kWorkRequestsMax);
  attr->max_srq_sge = static_cast<int>(kSgesMax);
  attr->max_pkeys = 1;
  attr->phys_port_cnt = 1;
  return 0;
}

int QueryDeviceExtended(ibv_context* context, const ibv_query_device_ex_input*,
                        ibv_device_attr_ex* attr, size_t attr_bytes) {
  ibv_device_attr_ex full{};
  if (int error = QueryDevice(context, &full.orig_attr); error != 0) return error;
  full.phys_port_cnt_ex = full.orig_attr.phys_port_cnt;
  full.device_cap_flags_ex = full.orig_attr.device_cap_flags;
  full.completion_timestamp_mask = UINT64_MAX;
  full.hca_core_clock = 1'000'000;  // kHz: timestamps count nanoseconds
  full.packet_pacing_caps.qp_rate_limit_min = kRateLimitMin;
  full.packet_pacing_caps.qp_rate_limit_max = kRateLimitMax;
  full.packet_pacing_caps.supported_qpts =
      (1u << IBV_QPT_RC) | (1u << IBV_QPT_UC) | (1u << IBV_QPT_UD);
  if (OnDemandOffered()) {
    constexpr uint32_t kDatagrams =
        IBV_ODP_SUPPORT_SEND | IBV_ODP_SUPPORT_RECV | IBV_ODP_SUPPORT_SRQ_RECV;
    constexpr uint32_t kUnreliable = kDatagrams | IBV_ODP_SUPPORT_WRITE;
    full.odp_caps.general_caps = IBV_ODP_SUPPORT | IBV_ODP_SUPPORT_IMPLICIT;
    full.odp_caps.per_transport_caps.ud_odp_caps = kDatagrams;
    full.odp_caps.per_transport_caps.uc_odp_caps = kUnreliable;
    full.odp_caps.per_transport_caps.rc_odp_caps =
        kUnreliable | IBV_ODP_SUPPORT_READ | IBV_ODP_SUPPORT_ATOMIC;
    full.xrc_odp_caps =
        full.odp_caps.per_transport_caps.rc_odp_caps & ~uint32_t{IBV_ODP_SUPPORT_RECV};
  }
  // Programs built with an older or newer header have a struct of another length.
  std::memset(static_cast<void*>(attr), 0, attr_bytes);
  std::memcpy(static_cast<void*>(attr), &full, std::min(attr_bytes, sizeof(full)));
  return 0;
}

int QueryPort(ibv_context* context, uint8_t port, ibv_port_attr* attr) {
  return QueryPortExtended(context, port, attr, sizeof(*attr));
}

int QueryPortExtended(ibv_context* context, uint8_t port, ibv_port_attr* attr, size_t attr_bytes) {
  if (port != 1) return EINVAL;
  ibv_port_attr full{};
  const bool up = SoftContext::Of(context).port().up();
  full.state = up ? IBV_PORT_ACTIVE : IBV_PORT_DOWN;
  full.port_cap_flags = IBV_PORT_IP_BASED_GIDS;
  full.flags = IBV_QPF_GRH_REQUIRED;  // RoCE addresses are GIDs (Annex A16.4)
  full.max_mtu = IBV_MTU_4096;
  full.active_mtu = MtuOf(SoftContext::Of(context).link().mtu_bytes());
  full.gid_tbl_len = 1;
  full.max_msg_sz = static_cast<uint32_t>(kMessageBytesMax);
  full.pkey_tbl_len = 1;
  full.active_width = 2;         // 4x
  full.active_speed = 4;         // 10 Gb/s a lane; as rxe, a number that has to be there
  full.phys_state = up ? 5 : 3;  // link up, disabled (IBTA vol. 1, 14.2.5.6)
  full.link_layer = IBV_LINK_LAYER_ETHERNET;
  // Older programs have a shorter struct.
  std::memcpy(attr, &full, std::min(attr_bytes, sizeof(full)));
  return 0;
}

int QueryGid(ibv_context* context, uint8_t port, int index, ibv_gid* gid) {
  if (port != 1 || index != 0) return EINVAL;
  std::memcpy(gid->raw, SoftContext::Of(context).link().local_gid().data(), sizeof(gid->raw));
  return 0;
}

int QueryGidEntry(ibv_context* context, uint32_t port, uint32_t index, ibv_gid_entry* entry) {
  *entry = {};
  if (port != 1 || index != 0) return EINVAL;
  entry->port_num = port;
  entry->gid_type = IBV_GID_TYPE_ROCE_V2;
  return QueryGid(context, 1, 0, &entry->gid);
}

int GetAsyncEvent(ibv_context* context, ibv_async_event* event) {
  return SoftContext::Of(context).async_events().Take(event);
}

void AckAsyncEvent(ibv_async_event* event) { AsyncEvents::Acknowledge(*event); }

}  // namespace sumac::soft_nic
