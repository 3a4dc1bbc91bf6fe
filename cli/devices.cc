#include "cli/devices.h"

#include <endian.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"

#include "transport/path_options.h"
#include "verbs/device_choice.h"

namespace sumac::cli {
namespace {

using Json = nlohmann::ordered_json;

const char* NameOf(ibv_port_state state) {
  switch (state) {
    case IBV_PORT_NOP:
      return "NOP";
    case IBV_PORT_DOWN:
      return "DOWN";
    case IBV_PORT_INIT:
      return "INIT";
    case IBV_PORT_ARMED:
      return "ARMED";
    case IBV_PORT_ACTIVE:
      return "ACTIVE";
    case IBV_PORT_ACTIVE_DEFER:
      return "ACTIVE_DEFER";
    default:
      return "UNKNOWN";
  }
}

// IBTA vol. 1, 14.2.5.6 (PortInfo: PortPhysicalState, LinkWidthActive, LinkSpeedActive).
const char* NameOfPhysicalState(uint8_t state) {
  static constexpr const char* kNames[] = {"NOP",      "SLEEP",   "POLLING",        "DISABLED",
                                           "TRAINING", "LINK_UP", "ERROR_RECOVERY", "PHY_TEST"};
  return state < std::size(kNames) ? kNames[state] : "UNKNOWN";
}

int LanesOf(uint8_t width) {
  switch (width) {
    case 1:
      return 1;
    case 2:
      return 4;
    case 4:
      return 8;
    case 8:
      return 12;
    case 16:
      return 2;
    default:
      return 0;
  }
}

double GigabitsOfLane(uint8_t speed) {
  switch (speed) {
    case 1:
      return 2.5;
    case 2:
      return 5;
    case 4:  // QDR
    case 8:  // FDR10
      return 10;
    case 16:
      return 14;
    case 32:
      return 25;
    case 64:
      return 50;
    case 128:
      return 100;
    default:
      return 0;
  }
}

const char* NameOfLink(uint8_t link_layer) {
  return link_layer == IBV_LINK_LAYER_ETHERNET ? "Ethernet" : "InfiniBand";
}

// What a worker would use here and now.
struct InUse {
  absl::StatusOr<verbs::DeviceChoice> device;
  absl::StatusOr<std::string> path;
  transport::WorkerOptions options;
};

InUse FindInUse() {
  InUse found{verbs::ChooseDevice(""), "", {}};
  found.path =
      transport::FillPathOptions([](const char* name) { return std::getenv(name); }, found.options);
  return found;
}

Json DescribePort(const verbs::Device& device, uint8_t number, const InUse& in_use) {
  Json port;
  port["port"] = number;
  const auto attr = device.QueryPort(number);
  if (!attr.ok()) {
    port["error"] = std::string(attr.status().message());
    return port;
  }
  port["state"] = NameOf(attr->state);
  port["physical_state"] = NameOfPhysicalState(attr->phys_state);
  port["link_layer"] = NameOfLink(attr->link_layer);
  port["lanes"] = LanesOf(attr->active_width);
  port["lane_gbps"] = GigabitsOfLane(attr->active_speed);
  port["mtu"] = verbs::BytesOf(attr->active_mtu);
  port["mtu_max"] = verbs::BytesOf(attr->max_mtu);
  port["message_bytes_max"] = attr->max_msg_sz;
  port["gids"] = Json::array();
  const auto gids = device.QueryGids(number);
  if (!gids.ok()) {
    port["gids_error"] = std::string(gids.status().message());
    return port;
  }
  const auto chosen =
      verbs::ChooseGid(*gids, in_use.options.gid_index.value_or(-1),
                       in_use.options.address_family.value_or(verbs::AddressFamily::kAny));
  if (!chosen.ok()) port["gids_error"] = std::string(chosen.status().message());
  for (const verbs::GidEntry& gid : *gids) {
    Json entry = {{"index", gid.index},
                  {"type", verbs::NameOf(gid.type)},
                  {"address", gid.address()},
                  {"interface", gid.interface()}};
    if (chosen.ok() && chosen->entry.index == gid.index) entry["chosen"] = chosen->reason;
    port["gids"].push_back(entry);
  }
  return port;
}

Json Describe(const verbs::DeviceInfo& info, const InUse& in_use) {
  Json described = {{"name", info.name}, {"provider", info.provider}};
  if (in_use.device.ok() && in_use.device->name == info.name) {
    described["in_use"] = in_use.device->reason;
  }
  const auto device = verbs::Device::Open(info.name);
  if (!device.ok()) {
    described["error"] = std::string(device.status().message());
    return described;
  }
  const auto attr = (*device)->QueryDevice();
  if (!attr.ok()) {
    described["error"] = std::string(attr.status().message());
    return described;
  }
  described["firmware"] = attr->fw_ver;
  described["node_guid"] = absl::StrFormat("0x%016x", be64toh(attr->node_guid));
  described["vendor_id"] = absl::StrFormat("0x%06x", attr->vendor_id);
  described["vendor_part"] = attr->vendor_part_id;
  described["limits"] = {{"queue_pairs", attr->max_qp},
                         {"work_requests_per_queue", attr->max_qp_wr},
                         {"sges", attr->max_sge},
                         {"completion_queues", attr->max_cq},
                         {"completions_per_queue", attr->max_cqe},
                         {"protection_domains", attr->max_pd},
                         {"memory_regions", attr->max_mr},
                         {"memory_region_bytes", attr->max_mr_size},
                         {"memory_windows", attr->max_mw},
                         {"shared_receive_queues", attr->max_srq},
                         {"read_atomics_per_queue_pair", attr->max_qp_rd_atom},
                         {"read_atomics_sent_per_queue_pair", attr->max_qp_init_rd_atom}};
  described["ports"] = Json::array();
  for (int port = 1; port <= attr->phys_port_cnt; ++port) {
    described["ports"].push_back(DescribePort(**device, static_cast<uint8_t>(port), in_use));
  }
  return described;
}

std::string Text(const Json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

void PrintRow(const std::string& device, const std::string& provider, const std::string& rest) {
  std::printf("%-12s %-12s %s\n", device.c_str(), provider.c_str(), rest.c_str());
}

void PrintPort(const Json& device, const Json& port) {
  const std::string name = Text(device["name"]);
  const std::string provider = Text(device["provider"]);
  if (port.contains("error")) {
    PrintRow(name, provider, absl::StrFormat("%4s  %s", Text(port["port"]), Text(port["error"])));
    return;
  }
  const double gbps = port["lanes"].get<int>() * port["lane_gbps"].get<double>();
  const std::string rate = absl::StrFormat("%g Gb/s (%dx%g)", gbps, port["lanes"].get<int>(),
                                           port["lane_gbps"].get<double>());
  PrintRow(
      name, provider,
      absl::StrFormat("%4s  %-8s %-8s %-10s %-18s %s/%s", Text(port["port"]), Text(port["state"]),
                      Text(port["physical_state"]), Text(port["link_layer"]), rate,
                      Text(port["mtu"]), Text(port["mtu_max"])));
  for (const Json& gid : port["gids"]) {
    const std::string used =
        gid.contains("chosen") ? absl::StrCat("  (used: ", Text(gid["chosen"]), ")") : "";
    std::printf("    GID %-3s %-10s %-26s %s%s\n", Text(gid["index"]).c_str(),
                Text(gid["type"]).c_str(), Text(gid["address"]).c_str(),
                Text(gid["interface"]).c_str(), used.c_str());
  }
  if (port.contains("gids_error")) {
    std::printf("    no GID to use: %s\n", Text(port["gids_error"]).c_str());
  }
}

void PrintDevice(const Json& device, bool verbose) {
  if (device.contains("error")) {
    PrintRow(Text(device["name"]), Text(device["provider"]), Text(device["error"]));
    return;
  }
  for (const Json& port : device["ports"]) PrintPort(device, port);
  if (!verbose) return;
  for (const char* field : {"firmware", "node_guid", "vendor_id", "vendor_part"}) {
    std::printf("    %-34s %s\n", field, Text(device[field]).c_str());
  }
  for (const auto& [name, value] : device["limits"].items()) {
    std::printf("    %-34s %s\n", name.c_str(), value.dump().c_str());
  }
}

}  // namespace

int PrintDevices(const DevicesOptions& options) {
  const InUse in_use = FindInUse();
  Json devices = Json::array();
  bool failed = false;
  for (const verbs::DeviceInfo& info : verbs::ListDevices()) {
    devices.push_back(Describe(info, in_use));
    failed = failed || devices.back().contains("error");
  }
  if (options.json) {
    std::printf("%s\n", devices.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
  } else {
    PrintRow("device", "provider",
             absl::StrFormat("%4s  %-8s %-8s %-10s %-18s %s", "port", "state", "physical", "link",
                             "rate (lanes)", "MTU/max"));
    for (const Json& device : devices) PrintDevice(device, options.verbose);
    if (in_use.device.ok()) {
      std::printf("in use: %s (%s)\n", in_use.device->name.c_str(), in_use.device->reason.c_str());
    }
    if (in_use.path.ok() && options.verbose) std::printf("path: %s\n", in_use.path->c_str());
  }
  for (const absl::Status& status : {in_use.device.status(), in_use.path.status()}) {
    if (status.ok()) continue;
    std::fprintf(stderr, "sumac devices: %s\n", std::string(status.message()).c_str());
    failed = true;
  }
  return failed ? 1 : 0;
}

}  // namespace sumac::cli
