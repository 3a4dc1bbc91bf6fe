#include "verbs/device_choice.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace sumac::verbs {
namespace {

constexpr int kPortMax = 255;

// One entry of a list: "mlx5_0" or "mlx5_0:1".
struct Item {
  std::string name;
  uint8_t port = 0;  // 0: not said
};

// What a wish says and where it comes from: "SUMAC_DEVICE='rxe0,'".
std::string Quote(absl::string_view origin, absl::string_view text) {
  return absl::StrCat(origin, "='", absl::CEscape(text), "'");
}

absl::StatusOr<std::vector<Item>> ParseList(absl::string_view list, absl::string_view quoted) {
  std::vector<Item> items;
  for (const absl::string_view part : absl::StrSplit(list, ',')) {
    const std::pair<absl::string_view, absl::string_view> halves =
        absl::StrSplit(part, absl::MaxSplits(':', 1));
    Item item{std::string(halves.first)};
    if (item.name.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(quoted,
                       ": a device of the list has no name; expected names with commas "
                       "between them"));
    }
    if (absl::StrContains(part, ':')) {
      int port = 0;
      if (!absl::SimpleAtoi(halves.second, &port) || port < 1 || port > kPortMax) {
        return absl::InvalidArgumentError(absl::StrCat(quoted, ": after the ':' of '", part,
                                                       "' must be a port from 1 to ", kPortMax));
      }
      item.port = static_cast<uint8_t>(port);
    }
    items.push_back(std::move(item));
  }
  return items;
}

absl::Status NoSuchDevice(absl::string_view quoted, absl::string_view name,
                          const std::vector<DeviceInfo>& devices) {
  return absl::NotFoundError(absl::StrCat(
      quoted, ": no RDMA device '", name,
      "'; there is: ", absl::StrJoin(devices, ", ", [](std::string* out, const DeviceInfo& each) {
        out->append(each.name);
      })));
}

DeviceChoice Nth(const std::vector<Item>& items, size_t nth, absl::string_view quoted) {
  const size_t entry = nth % items.size();
  DeviceChoice choice{items[entry].name, items[entry].port, std::string(quoted)};
  if (items.size() > 1) {
    absl::StrAppend(&choice.reason, ", number ", entry, " of ", items.size(), " for local rank ",
                    nth);
  }
  return choice;
}

// Exact names, in the order of the list.
absl::StatusOr<DeviceChoice> FromNames(const std::vector<DeviceInfo>& devices,
                                       absl::string_view origin, absl::string_view text,
                                       size_t nth) {
  const std::string quoted = Quote(origin, text);
  const auto items = ParseList(text, quoted);
  if (!items.ok()) return items.status();
  for (const Item& item : *items) {  // all of them: a typing error shows on every rank
    const bool known = std::any_of(devices.begin(), devices.end(),
                                   [&](const DeviceInfo& each) { return each.name == item.name; });
    if (!known) return NoSuchDevice(quoted, item.name, devices);
  }
  return Nth(*items, nth, quoted);
}

absl::StatusOr<DeviceChoice> TheFirst(const std::vector<DeviceInfo>& devices, IsActive is_active) {
  for (const DeviceInfo& info : devices) {
    if (info.provider == LibibverbsProvider().name && is_active(info.name, 0)) {
      return DeviceChoice{info.name, 0, "the first RDMA device with an active port"};
    }
  }
  for (const DeviceInfo& info : devices) {
    if (info.provider == SoftProvider().name) {
      return DeviceChoice{info.name, 0, "no RDMA device with an active port, so the soft NIC"};
    }
  }
  return absl::NotFoundError("no RDMA device and no soft NIC");
}

// NCCL_IB_HCA. The soft NIC is taken where it is named, or where all hardware is excluded.
absl::StatusOr<DeviceChoice> FromHca(const std::vector<DeviceInfo>& devices, absl::string_view text,
                                     size_t nth, IsActive is_active) {
  const std::string quoted = Quote("NCCL_IB_HCA", text);
  absl::string_view list = text;
  const bool exclude = absl::ConsumePrefix(&list, "^");
  const bool exact = absl::ConsumePrefix(&list, "=");
  const auto items = ParseList(list, quoted);
  if (!items.ok()) return items.status();
  const auto matches = [exact](const Item& item, const DeviceInfo& device) {
    return exact ? device.name == item.name : absl::StartsWith(device.name, item.name);
  };

  std::vector<Item> found;
  if (exclude) {
    std::vector<DeviceInfo> left;
    for (const DeviceInfo& device : devices) {
      const bool excluded = std::any_of(items->begin(), items->end(),
                                        [&](const Item& item) { return matches(item, device); });
      if (excluded) continue;
      left.push_back(device);
      if (device.provider == LibibverbsProvider().name) found.push_back({device.name});
    }
    if (found.empty()) {
      auto choice = TheFirst(left, is_active);
      if (choice.ok()) choice->reason = absl::StrCat(quoted, ": ", choice->reason);
      return choice;
    }
  }
  for (const Item& item : *items) {
    if (exclude) break;
    bool known = false;
    for (const DeviceInfo& device : devices) {
      if (!matches(item, device)) continue;
      known = true;
      const bool twice = std::any_of(found.begin(), found.end(), [&](const Item& each) {
        return each.name == device.name && each.port == item.port;
      });
      if (!twice) found.push_back({device.name, item.port});
    }
    if (!known) return NoSuchDevice(quoted, item.name, devices);
  }
  std::vector<Item> active;
  std::copy_if(found.begin(), found.end(), std::back_inserter(active),
               [&](const Item& item) { return is_active(item.name, item.port); });
  return Nth(active.empty() ? found : active, nth, quoted);
}

bool IsLinkLocal(const ibv_gid& gid) { return gid.raw[0] == 0xfe && (gid.raw[1] & 0xc0) == 0x80; }

std::string ListOf(const std::vector<GidEntry>& gids) {
  return absl::StrJoin(gids, ", ", [](std::string* out, const GidEntry& each) {
    absl::StrAppend(out, each.index, " (", NameOf(each.type), ", ", each.address(), ")");
  });
}

std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

}  // namespace

absl::StatusOr<DeviceChoice> ChooseDeviceFrom(const std::vector<DeviceInfo>& devices,
                                              const DeviceWishes& wishes, size_t nth,
                                              IsActive is_active) {
  if (!wishes.wanted.empty()) return FromNames(devices, "device", wishes.wanted, nth);
  if (!wishes.sumac_device.empty()) {
    return FromNames(devices, "SUMAC_DEVICE", wishes.sumac_device, nth);
  }
  if (!wishes.nccl_ib_hca.empty()) return FromHca(devices, wishes.nccl_ib_hca, nth, is_active);
  return TheFirst(devices, is_active);
}

absl::StatusOr<DeviceChoice> ChooseDevice(absl::string_view wanted, size_t nth) {
  const std::vector<DeviceInfo> devices = ListDevices();
  const auto is_active = [&devices](const std::string& name, uint8_t port) {
    const bool soft = std::any_of(devices.begin(), devices.end(), [&](const DeviceInfo& each) {
      return each.name == name && each.provider == SoftProvider().name;
    });
    if (soft) return true;  // and opening it would make it listen
    const auto device = Device::Open(name);
    if (!device.ok()) return false;
    const auto attr = (*device)->QueryPort(port != 0 ? port : FirstActivePort(**device));
    return attr.ok() && attr->state == IBV_PORT_ACTIVE;
  };
  const DeviceWishes wishes{std::string(wanted), Variable("SUMAC_DEVICE"), Variable("NCCL_IB_HCA")};
  return ChooseDeviceFrom(devices, wishes, nth, is_active);
}

uint8_t FirstActivePort(const Device& device) {
  const auto attr = device.QueryDevice();
  for (int port = 1; attr.ok() && port <= attr->phys_port_cnt; ++port) {
    const auto port_attr = device.QueryPort(static_cast<uint8_t>(port));
    if (port_attr.ok() && port_attr->state == IBV_PORT_ACTIVE) return static_cast<uint8_t>(port);
  }
  return 1;
}

absl::StatusOr<GidChoice> ChooseGid(const std::vector<GidEntry>& gids, int wanted_index,
                                    AddressFamily family) {
  if (gids.empty())
    return absl::NotFoundError("the port has no GID: does its interface have an IP address?");
  if (wanted_index >= 0) {
    for (const GidEntry& entry : gids) {
      if (entry.index == wanted_index) return GidChoice{entry, "asked for"};
    }
    return absl::NotFoundError(
        absl::StrCat("the GID table has no entry ", wanted_index, "; there is: ", ListOf(gids)));
  }
  const auto first = [&gids](auto matches) {
    return std::find_if(gids.begin(), gids.end(), matches);
  };
  const auto v2 = [](const GidEntry& entry) { return entry.type == GidType::kRoceV2; };
  if (family != AddressFamily::kIpv6) {
    const auto found = first([&](const GidEntry& entry) { return v2(entry) && entry.is_ipv4(); });
    if (found != gids.end()) {
      return GidChoice{*found, "the first RoCE v2 GID with an IPv4 address"};
    }
  }
  if (family != AddressFamily::kIpv4) {
    const auto v6 = [&](const GidEntry& entry) { return v2(entry) && !entry.is_ipv4(); };
    const char* without = family == AddressFamily::kAny ? "no IPv4; " : "";
    auto found = first([&](const GidEntry& entry) { return v6(entry) && !IsLinkLocal(entry.gid); });
    if (found != gids.end()) {
      return GidChoice{*found, absl::StrCat(without, "the first global RoCE v2 GID")};
    }
    found = first(v6);
    if (found != gids.end()) {
      return GidChoice{*found, "only link-local RoCE v2 GIDs; the first"};
    }
  }
  if (family == AddressFamily::kAny) {
    return GidChoice{gids.front(), "no RoCE v2 GID; the first of the table"};
  }
  return absl::NotFoundError(absl::StrCat(
      "no RoCE v2 GID with an ", family == AddressFamily::kIpv4 ? "IPv4" : "IPv6",
      " address: give the interface one, or ask for another family; there is: ", ListOf(gids)));
}

}  // namespace sumac::verbs
