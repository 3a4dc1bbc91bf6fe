// An opened RDMA device: hardware, kernel soft-RoCE or Sumac's soft NIC, all alike.
//
// ListDevices shows what there is; Device::Open gives a shared handle that every object made on it
// keeps alive, so that nothing outlives its parent. Used by transport::Worker and `sumac devices`.
//
// Threads: any thread. Failure: absl::Status naming the device and the verbs call. Control path
// only: data calls go through the ibv_context inline.
#pragma once

#include <infiniband/verbs.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "verbs/provider.h"

namespace sumac::verbs {

enum class GidType : uint8_t { kInfiniBand, kRoceV1, kRoceV2 };
const char* NameOf(GidType type);

struct GidEntry {
  int index = 0;
  GidType type = GidType::kRoceV2;
  ibv_gid gid{};
  uint32_t interface_index = 0;   // of the network interface; 0: the device does not say
  bool is_ipv4() const;           // IPv4-mapped
  std::string address() const;    // "10.0.0.1", "fe80::1"
  std::string interface() const;  // "eth0"; empty if there is none in this network namespace
};

struct DeviceInfo {
  std::string name;
  std::string provider;  // "libibverbs", "soft"
};

// Every device of every provider; hardware first. A provider without devices adds none.
std::vector<DeviceInfo> ListDevices();

class Device {
 public:
  // NotFound lists the devices that there are.
  static absl::StatusOr<std::shared_ptr<Device>> Open(absl::string_view name);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const std::string& name() const { return name_; }
  const Provider& provider() const { return provider_; }
  ibv_context* context() const { return context_; }

  absl::StatusOr<ibv_device_attr> QueryDevice() const;
  absl::StatusOr<ibv_port_attr> QueryPort(uint8_t port) const;
  // The filled entries of the port's GID table.
  absl::StatusOr<std::vector<GidEntry>> QueryGids(uint8_t port) const;

 private:
  Device(std::string name, const Provider& provider, ibv_context* context)
      : name_(std::move(name)), provider_(provider), context_(context) {}

  std::string name_;
  const Provider& provider_;
  ibv_context* context_;
};

// 256 ... 4096, and back.
uint32_t BytesOf(ibv_mtu mtu);
absl::StatusOr<ibv_mtu> MtuOf(uint32_t bytes);

}  // namespace sumac::verbs
