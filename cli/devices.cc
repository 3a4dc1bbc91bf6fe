#include "cli/devices.h"

#include <cstdio>
#include <string>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

#include "verbs/device.h"

namespace sumac::cli {
namespace {

using Json = nlohmann::ordered_json;

const char* NameOf(ibv_port_state state) {
  switch (state) {
    case IBV_PORT_ACTIVE:
      return "ACTIVE";
    case IBV_PORT_DOWN:
      return "DOWN";
    case IBV_PORT_INIT:
      return "INIT";
    case IBV_PORT_ARMED:
      return "ARMED";
    default:
      return "UNKNOWN";
  }
}

Json DescribePort(const verbs::Device& device, uint8_t number) {
  Json port;
  port["port"] = number;
  const auto attr = device.QueryPort(number);
  if (!attr.ok()) {
    port["error"] = std::string(attr.status().message());
    return port;
  }
  port["state"] = NameOf(attr->state);
  port["link_layer"] = attr->link_layer == IBV_LINK_LAYER_ETHERNET ? "Ethernet" : "InfiniBand";
  port["mtu"] = verbs::BytesOf(attr->active_mtu);
  port["mtu_max"] = verbs::BytesOf(attr->max_mtu);
  port["gids"] = Json::array();
  const auto gids = device.QueryGids(number);
  if (!gids.ok()) return port;
  const auto chosen = verbs::ChooseGid(*gids, -1);
  for (const verbs::GidEntry& gid : *gids) {
    Json entry = {
        {"index", gid.index}, {"type", verbs::NameOf(gid.type)}, {"address", gid.address()}};
    if (chosen.ok() && chosen->entry.index == gid.index) entry["chosen"] = chosen->reason;
    port["gids"].push_back(entry);
  }
  return port;
}

Json Describe(const verbs::DeviceInfo& info) {
  Json described = {{"name", info.name}, {"provider", info.provider}};
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
  described["limits"] = {{"queue_pairs", attr->max_qp},
                         {"work_requests_per_queue", attr->max_qp_wr},
                         {"sges", attr->max_sge},
                         {"completion_queues", attr->max_cq},
                         {"completions_per_queue", attr->max_cqe},
                         {"memory_regions", attr->max_mr},
                         {"read_atomics_per_queue_pair", attr->max_qp_rd_atom}};
  described["ports"] = Json::array();
  for (int port = 1; port <= attr->phys_port_cnt; ++port) {
    described["ports"].push_back(DescribePort(**device, static_cast<uint8_t>(port)));
  }
  return described;
}

void PrintPort(const Json& device, const Json& port) {
  const auto text = [](const Json& value) {
    return value.is_string() ? value.get<std::string>() : value.dump();
  };
  if (port.contains("error")) {
    std::printf("%-12s %-12s %4s  %s\n", text(device["name"]).c_str(),
                text(device["provider"]).c_str(), text(port["port"]).c_str(),
                text(port["error"]).c_str());
    return;
  }
  std::printf("%-12s %-12s %4s  %-8s %-10s %5s\n", text(device["name"]).c_str(),
              text(device["provider"]).c_str(), text(port["port"]).c_str(),
              text(port["state"]).c_str(), text(port["link_layer"]).c_str(),
              text(port["mtu"]).c_str());
  for (const Json& gid : port["gids"]) {
    std::printf(
        "    GID %-3s %-10s %s%s\n", text(gid["index"]).c_str(), text(gid["type"]).c_str(),
        text(gid["address"]).c_str(),
        gid.contains("chosen") ? absl::StrCat("   (used: ", text(gid["chosen"]), ")").c_str() : "");
  }
}

}  // namespace

int PrintDevices(const DevicesOptions& options) {
  Json devices = Json::array();
  bool failed = false;
  for (const verbs::DeviceInfo& info : verbs::ListDevices()) {
    devices.push_back(Describe(info));
    failed = failed || devices.back().contains("error");
  }
  if (options.json) {
    std::printf("%s\n", devices.dump(2).c_str());
    return failed ? 1 : 0;
  }
  std::printf("%-12s %-12s %4s  %-8s %-10s %5s\n", "device", "provider", "port", "state", "link",
              "MTU");
  for (const Json& device : devices) {
    if (device.contains("error")) {
      std::printf("%-12s %-12s %s\n", device["name"].get<std::string>().c_str(),
                  device["provider"].get<std::string>().c_str(),
                  device["error"].get<std::string>().c_str());
      continue;
    }
    for (const Json& port : device["ports"]) PrintPort(device, port);
    if (!options.verbose) continue;
    for (const auto& [name, value] : device["limits"].items()) {
      std::printf("    %-28s %s\n", name.c_str(), value.dump().c_str());
    }
  }
  if (const auto chosen = verbs::ChooseDevice(""); chosen.ok()) {
    std::printf("in use: %s (%s)\n", chosen->name.c_str(), chosen->reason.c_str());
  }
  return failed ? 1 : 0;
}

}  // namespace sumac::cli
