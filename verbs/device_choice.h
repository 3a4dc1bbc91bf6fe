// Which RDMA device, port and GID to use, and why.
//
// Wishes come from a program's option, SUMAC_DEVICE or NCCL_IB_HCA, in this order; with none of
// them the first RDMA device with an active port is taken, else the soft NIC. A wish may name
// several devices: each process of a host then takes one of them. Used by transport::Worker and
// `sumac devices`. The *From functions are pure; threads: any. Failure: a status that names where
// the wish came from, its text, and the devices or GIDs that there are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "verbs/address_family.h"
#include "verbs/device.h"

namespace sumac::verbs {

// `wanted` and SUMAC_DEVICE: "rxe0", "rxe0,rxe1", "mlx5_0:2" (its port 2); names are exact.
// NCCL_IB_HCA: "mlx5" (prefixes), "=mlx5_0,mlx5_1:1" (exact), "^mlx5_2" and "^=mlx5_2" (all
// others); of these only devices with an active port count where there is one, and "^" excludes
// whole devices.
struct DeviceWishes {
  std::string wanted = "";
  std::string sumac_device = "";
  std::string nccl_ib_hca = "";
};

struct DeviceChoice {
  std::string name;
  uint8_t port = 0;    // 0: the first active one
  std::string reason;  // for the log
};

// Whether a port of a device is active; port 0: any of its ports.
using IsActive = absl::FunctionRef<bool(const std::string& device, uint8_t port)>;

// Process number `nth` of a host takes number `nth` modulo their count of the devices wished for.
// InvalidArgument: a wish that can't be read. NotFound: a name that no device has.
absl::StatusOr<DeviceChoice> ChooseDeviceFrom(const std::vector<DeviceInfo>& devices,
                                              const DeviceWishes& wishes, size_t nth,
                                              IsActive is_active);
// From the devices of this machine and the environment.
absl::StatusOr<DeviceChoice> ChooseDevice(absl::string_view wanted, size_t nth = 0);

// The first active port, else 1.
uint8_t FirstActivePort(const Device& device);

// The GID to use on a port: `wanted_index` if it is not negative, else the first RoCE v2 entry of
// `family`; of any family IPv4 before IPv6, and global before link-local. A port without RoCE v2
// gives its first entry when no family was asked for. NotFound lists the entries that there are.
struct GidChoice {
  GidEntry entry;
  std::string reason;  // for the log
};
absl::StatusOr<GidChoice> ChooseGid(const std::vector<GidEntry>& gids, int wanted_index,
                                    AddressFamily family = AddressFamily::kAny);

}  // namespace sumac::verbs
