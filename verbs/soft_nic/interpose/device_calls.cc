// Exported calls about devices: finding, opening and asking them; asynchronous events.

#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <string>

#include "verbs/soft_nic/interpose/dispatch.h"

namespace sumac::soft_nic::interpose {
namespace {

constexpr int kEntriesMax = 1 << 16;  // of a device list: more than there can be

// What ibv_get_device_list returns is the array at the end; before it, the list of the real library
// that its other entries come from.
struct DeviceList {
  ibv_device** real;
  ibv_device* entries[1];
};

using GetList = ibv_device** (*)(int*);
using FreeList = void (*)(ibv_device**);

ibv_device** GetMergedList(int* count) {
  static const auto real_get =
      reinterpret_cast<GetList>(RealSymbol("ibv_get_device_list", "IBVERBS_1.1"));
  int real_count = 0;
  // No devices, no kernel support (ENOSYS), no library: all the same, there is still ours.
  ibv_device** const real = real_get != nullptr ? real_get(&real_count) : nullptr;
  if (real == nullptr || real_count < 0 || real_count > kEntriesMax) real_count = 0;
  auto* list = static_cast<DeviceList*>(std::calloc(
      1, sizeof(DeviceList) + sizeof(ibv_device*) * (static_cast<size_t>(real_count) + 1)));
  if (list == nullptr) return nullptr;
  list->real = real;
  // Ours comes first: whoever preloads this library wants it, and programs take the first.
  list->entries[0] = SoftDevice();
  for (int i = 0; i < real_count; ++i) list->entries[i + 1] = real[i];
  if (count != nullptr) *count = real_count + 1;
  errno = 0;
  return list->entries;
}

void FreeMergedList(ibv_device** entries) {
  if (entries == nullptr) return;
  auto* list = reinterpret_cast<DeviceList*>(reinterpret_cast<std::byte*>(entries) -
                                             offsetof(DeviceList, entries));
  static const auto real_free =
      reinterpret_cast<FreeList>(RealSymbol("ibv_free_device_list", "IBVERBS_1.1"));
  if (list->real != nullptr && real_free != nullptr) real_free(list->real);
  std::free(list);
}

// The context behind an event; null for those of a port or a device.
const ibv_context* ContextOf(const ibv_async_event& event) {
  switch (event.event_type) {
    case IBV_EVENT_CQ_ERR:
      return event.element.cq->context;
    case IBV_EVENT_QP_FATAL:
    case IBV_EVENT_QP_REQ_ERR:
    case IBV_EVENT_QP_ACCESS_ERR:
    case IBV_EVENT_COMM_EST:
    case IBV_EVENT_SQ_DRAINED:
    case IBV_EVENT_PATH_MIG:
    case IBV_EVENT_PATH_MIG_ERR:
    case IBV_EVENT_QP_LAST_WQE_REACHED:
      return event.element.qp->context;
    case IBV_EVENT_SRQ_ERR:
    case IBV_EVENT_SRQ_LIMIT_REACHED:
      return event.element.srq->context;
    case IBV_EVENT_WQ_FATAL:
      return event.element.wq->context;
    default:
      return nullptr;
  }
}

// GIDs come with the length of the caller's struct: an older program's is shorter.
int CopyGidEntry(ibv_context* context, uint32_t port, uint32_t index, ibv_gid_entry* entry,
                 uint32_t flags, size_t entry_bytes) {
  if (flags != 0 || entry_bytes < sizeof(*entry)) return EINVAL;
  return QueryGidEntry(context, port, index, entry);
}

ssize_t CopyGidTable(ibv_context* context, ibv_gid_entry* entries, size_t entries_max,
                     uint32_t flags, size_t entry_bytes) {
  if (flags != 0 || entry_bytes < sizeof(*entries)) return -EINVAL;
  if (entries_max == 0) return -EINVAL;
  return QueryGidEntry(context, 1, 0, entries) == 0 ? 1 : -EIO;
}

// Programs from before 2018 have a struct that ends with `flags`.
int QueryOldPort(ibv_context* context, uint8_t port, _compat_ibv_port_attr* attr) {
  return QueryPortExtended(context, port, reinterpret_cast<ibv_port_attr*>(attr),
                           offsetof(ibv_port_attr, port_cap_flags2));
}

// libibverbs' numbers of the files in gid_attrs/types (driver.h): 1 is RoCE v2.
constexpr int kSysfsTypeRoceV2 = 1;
int GidTypeOf(ibv_context*, uint8_t port, unsigned int index, int* type) {
  if (port != 1 || index != 0) {
    errno = EINVAL;
    return -1;
  }
  *type = kSysfsTypeRoceV2;
  return 0;
}

// Whether the descriptor is ibv_context.cmd_fd of a soft NIC, or a duplicate of one.
bool IsCommandFile(int fd) {
  char target[64] = {};
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  if (readlink(link.c_str(), target, sizeof(target) - 1) < 0) return false;
  return std::string(target).find(std::string("memfd:") + kCommandFile) != std::string::npos;
}

// A soft NIC is this process's own: there is nothing in the kernel that another could take over.
ibv_context* ImportDevice(int fd) {
  if (IsCommandFile(fd)) return NoSuchObject<ibv_context>();
  static const auto real =
      reinterpret_cast<ibv_context* (*)(int)>(RealSymbol("ibv_import_device", "IBVERBS_1.10"));
  return real(fd);
}

constexpr __be16 kDefaultPkeyWire = 0xffff;  // the same in either byte order
int QueryPkey(ibv_context*, uint8_t port, int index, __be16* pkey) {
  if (port != 1 || index != 0) return -1;
  *pkey = kDefaultPkeyWire;
  return 0;
}

}  // namespace
}  // namespace sumac::soft_nic::interpose

using namespace sumac::soft_nic;             // NOLINT: C functions live in no namespace
using namespace sumac::soft_nic::interpose;  // NOLINT

extern "C" __attribute__((visibility("default"))) ibv_device** ibv_get_device_list(int* count) {
  return GetMergedList(count);
}
extern "C" __attribute__((visibility("default"))) void ibv_free_device_list(ibv_device** list) {
  FreeMergedList(list);
}
extern "C" __attribute__((visibility("default"))) ibv_context* ibv_import_device(int fd) {
  return ImportDevice(fd);
}
extern "C" __attribute__((visibility("default"))) void ibv_ack_async_event(ibv_async_event* event) {
  const ibv_context* const context = ContextOf(*event);
  if (context == nullptr) return;
  if (IsSoft(context)) return AckAsyncEvent(event);
  static const auto real = reinterpret_cast<void (*)(ibv_async_event*)>(
      RealSymbol("ibv_ack_async_event", "IBVERBS_1.1"));
  real(event);
}

SUMAC_VERB("IBVERBS_1.1", const char*, ibv_get_device_name, (ibv_device * device), (device), device,
           device->name);
SUMAC_VERB("IBVERBS_1.1", __be64, ibv_get_device_guid, (ibv_device * device), (device), device,
           SoftDeviceGuid());
SUMAC_VERB("IBVERBS_1.9", int, ibv_get_device_index, (ibv_device * device), (device), device, -1);
SUMAC_VERB("IBVERBS_1.1", ibv_context*, ibv_open_device, (ibv_device * device), (device), device,
           OpenDevice(device));
SUMAC_VERB("IBVERBS_1.1", int, ibv_close_device, (ibv_context * context), (context), context,
           CloseDevice(context));
SUMAC_VERB("IBVERBS_1.1", int, ibv_query_device, (ibv_context * context, ibv_device_attr* attr),
           (context, attr), context, QueryDevice(context, attr));
SUMAC_VERB("IBVERBS_1.1", int, ibv_query_port,
           (ibv_context * context, uint8_t port, _compat_ibv_port_attr* attr),
           (context, port, attr), context, QueryOldPort(context, port, attr));
SUMAC_VERB("IBVERBS_1.1", int, ibv_query_gid,
           (ibv_context * context, uint8_t port, int index, ibv_gid* gid),
           (context, port, index, gid), context, QueryGid(context, port, index, gid) == 0 ? 0 : -1);
SUMAC_VERB("IBVERBS_1.11", int, _ibv_query_gid_ex,
           (ibv_context * context, uint32_t port, uint32_t index, ibv_gid_entry* entry,
            uint32_t flags, size_t entry_bytes),
           (context, port, index, entry, flags, entry_bytes), context,
           CopyGidEntry(context, port, index, entry, flags, entry_bytes));
SUMAC_VERB("IBVERBS_1.11", ssize_t, _ibv_query_gid_table,
           (ibv_context * context, ibv_gid_entry* entries, size_t entries_max, uint32_t flags,
            size_t entry_bytes),
           (context, entries, entries_max, flags, entry_bytes), context,
           CopyGidTable(context, entries, entries_max, flags, entry_bytes));
SUMAC_VERB("IBVERBS_PRIVATE_34", int, ibv_query_gid_type,
           (ibv_context * context, uint8_t port, unsigned int index, int* type),
           (context, port, index, type), context, GidTypeOf(context, port, index, type));
SUMAC_VERB("IBVERBS_1.1", int, ibv_query_pkey,
           (ibv_context * context, uint8_t port, int index, __be16* pkey),
           (context, port, index, pkey), context, QueryPkey(context, port, index, pkey));
SUMAC_VERB("IBVERBS_1.5", int, ibv_get_pkey_index,
           (ibv_context * context, uint8_t port, __be16 pkey), (context, port, pkey), context,
           port == 1 && pkey == kDefaultPkeyWire ? 0 : -1);
SUMAC_VERB("IBVERBS_1.1", int, ibv_get_async_event, (ibv_context * context, ibv_async_event* event),
           (context, event), context, GetAsyncEvent(context, event));
SUMAC_VERB("IBVERBS_1.10", ibv_pd*, ibv_import_pd, (ibv_context * context, uint32_t handle),
           (context, handle), context, NoSuchObject<ibv_pd>());
SUMAC_VERB("IBVERBS_1.13", ibv_dm*, ibv_import_dm, (ibv_context * context, uint32_t handle),
           (context, handle), context, NoSuchObject<ibv_dm>());
SUMAC_VERB("IBVERBS_1.1", int, ibv_resolve_eth_l2_from_gid,
           (ibv_context * context, ibv_ah_attr* attr, uint8_t* mac, uint16_t* vlan),
           (context, attr, mac, vlan), context, NotSupported());
