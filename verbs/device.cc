#include "verbs/device.h"

#include <arpa/inet.h>
#include <net/if.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "verbs/log.h"
#include "verbs/status.h"

namespace sumac::verbs {
namespace {

std::array<const Provider*, 2> Providers() { return {&LibibverbsProvider(), &SoftProvider()}; }

// A provider's device list for the length of a scope.
class ScopedDeviceList {
 public:
  explicit ScopedDeviceList(const Provider& provider) : provider_(provider) {
    list_ = provider.get_device_list(&count_);
    if (list_ == nullptr) count_ = 0;  // ENOSYS: no such kind of device on this system
  }
  ~ScopedDeviceList() {
    if (list_ != nullptr) provider_.free_device_list(list_);
  }
  ScopedDeviceList(const ScopedDeviceList&) = delete;
  ScopedDeviceList& operator=(const ScopedDeviceList&) = delete;

  ibv_device** begin() const { return list_; }
  ibv_device** end() const { return list_ + count_; }

 private:
  const Provider& provider_;
  ibv_device** list_ = nullptr;
  int count_ = 0;
};

GidType TypeOf(uint32_t gid_type) {
  switch (gid_type) {
    case IBV_GID_TYPE_ROCE_V1:
      return GidType::kRoceV1;
    case IBV_GID_TYPE_ROCE_V2:
      return GidType::kRoceV2;
    default:
      return GidType::kInfiniBand;
  }
}

}  // namespace

const char* NameOf(GidType type) {
  switch (type) {
    case GidType::kInfiniBand:
      return "InfiniBand";
    case GidType::kRoceV1:
      return "RoCE v1";
    case GidType::kRoceV2:
      return "RoCE v2";
  }
  return "unknown";
}

bool GidEntry::is_ipv4() const {
  static constexpr uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  return std::memcmp(gid.raw, kMapped, sizeof(kMapped)) == 0;
}

std::string GidEntry::address() const {
  char text[INET6_ADDRSTRLEN] = "";
  if (is_ipv4()) {
    inet_ntop(AF_INET, gid.raw + 12, text, sizeof(text));
  } else {
    inet_ntop(AF_INET6, gid.raw, text, sizeof(text));
  }
  return text;
}

std::string GidEntry::interface() const {
  char name[IF_NAMESIZE] = "";
  return interface_index != 0 && if_indextoname(interface_index, name) != nullptr ? name : "";
}

std::vector<DeviceInfo> ListDevices() {
  std::vector<DeviceInfo> devices;
  for (const Provider* provider : Providers()) {
    for (ibv_device* device : ScopedDeviceList(*provider)) {
      devices.push_back({device->name, provider->name});
    }
  }
  return devices;
}

absl::StatusOr<std::shared_ptr<Device>> Device::Open(absl::string_view name) {
  std::vector<std::string> seen;
  for (const Provider* provider : Providers()) {
    for (ibv_device* device : ScopedDeviceList(*provider)) {
      seen.emplace_back(device->name);
      if (seen.back() != name) continue;
      errno = 0;
      ibv_context* context = provider->open_device(device);
      if (context == nullptr) {
        return ErrnoStatus(errno != 0 ? errno : EIO, "ibv_open_device", name);
      }
      return std::shared_ptr<Device>(new Device(std::string(name), *provider, context));
    }
  }
  return absl::NotFoundError(
      absl::StrCat("no RDMA device named '", name, "'; there is: ", absl::StrJoin(seen, ", ")));
}

Device::~Device() {
  if (int error = provider_.close_device(context_); error != 0) {
    Log().error("closing {}: {}", name_, ErrnoStatus(error, "ibv_close_device", name_).ToString());
  }
}

absl::StatusOr<ibv_device_attr> Device::QueryDevice() const {
  ibv_device_attr attr{};
  if (int error = provider_.query_device(context_, &attr); error != 0) {
    return ErrnoStatus(error, "ibv_query_device", name_);
  }
  return attr;
}

absl::StatusOr<ibv_port_attr> Device::QueryPort(uint8_t port) const {
  ibv_port_attr attr{};
  if (int error = provider_.query_port(context_, port, &attr); error != 0) {
    return ErrnoStatus(error, "ibv_query_port", absl::StrCat(name_, " port ", port));
  }
  return attr;
}

absl::StatusOr<std::vector<GidEntry>> Device::QueryGids(uint8_t port) const {
  auto attr = QueryPort(port);
  if (!attr.ok()) return attr.status();
  std::vector<GidEntry> gids;
  for (int i = 0; i < attr->gid_tbl_len; ++i) {
    ibv_gid_entry raw{};
    if (provider_.query_gid_ex(context_, port, static_cast<uint32_t>(i), &raw) != 0) continue;
    GidEntry entry{.index = i,
                   .type = TypeOf(raw.gid_type),
                   .gid = raw.gid,
                   .interface_index = raw.ndev_ifindex};
    const bool empty = std::all_of(std::begin(entry.gid.raw), std::end(entry.gid.raw),
                                   [](uint8_t byte) { return byte == 0; });
    if (!empty) gids.push_back(entry);
  }
  return gids;
}

uint32_t BytesOf(ibv_mtu mtu) { return 128u << static_cast<uint32_t>(mtu); }

absl::StatusOr<ibv_mtu> MtuOf(uint32_t bytes) {
  for (const ibv_mtu mtu : {IBV_MTU_256, IBV_MTU_512, IBV_MTU_1024, IBV_MTU_2048, IBV_MTU_4096}) {
    if (BytesOf(mtu) == bytes) return mtu;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("path MTU ", bytes, ": must be 256, 512, 1024, 2048 or 4096 bytes"));
}

}  // namespace sumac::verbs
