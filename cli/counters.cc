#include "cli/counters.h"

#include <cstdio>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"

#include "verbs/device.h"
#include "verbs/port_counters.h"

namespace sumac::cli {
namespace {

using Json = nlohmann::ordered_json;

// The soft NIC is not opened for that: it would count itself.
absl::StatusOr<int> PortsOf(const verbs::DeviceInfo& info) {
  if (info.provider == "soft") return 1;
  const auto device = verbs::Device::Open(info.name);
  if (!device.ok()) return device.status();
  const auto attr = (*device)->QueryDevice();
  if (!attr.ok()) return attr.status();
  return attr->phys_port_cnt;
}

Json Describe(const std::string& device, const std::string& provider, int port,
              const absl::StatusOr<verbs::PortCounters>& found) {
  Json described = {{"device", device}, {"port", port}};
  if (!found.ok()) {
    described["error"] = std::string(found.status().message());
    return described;
  }
  if (provider == "soft") {
    described["processes"] = found->processes;
    described["silent_processes"] = found->silent;
  }
  described["counters"] = described["hw_counters"] = Json::object();
  for (const verbs::PortCounter& counter : found->counters) {
    described[counter.group][counter.name] = counter.value;
  }
  return described;
}

void PrintTable(const Json& port, bool verbose) {
  const std::string device = port["device"].get<std::string>();
  const std::string number = port["port"].dump();
  if (port.contains("error")) {
    std::printf("%-12s %4s  %s\n", device.c_str(), number.c_str(),
                port["error"].get<std::string>().c_str());
    return;
  }
  int shown = 0;
  for (const char* group : {"counters", "hw_counters"}) {
    for (const auto& [name, value] : port[group].items()) {
      if (!verbose && value == 0) continue;
      const std::string file = absl::StrCat(group, "/", name);
      std::printf("%-12s %4s  %-44s %20s\n", device.c_str(), number.c_str(), file.c_str(),
                  value.dump().c_str());
      ++shown;
    }
  }
  if (shown == 0) std::printf("%-12s %4s  nothing counted\n", device.c_str(), number.c_str());
  if (!port.contains("processes")) return;
  for (const auto& [key, what] : {std::pair{"processes", "sum of the processes that have it open"},
                                  std::pair{"silent_processes", "no answer from"}}) {
    const auto pids = port[key].get<std::vector<int>>();
    if (pids.empty() && std::string(key) == "silent_processes") continue;
    std::printf("%-12s %4s  (%s: %s)\n", device.c_str(), number.c_str(), what,
                pids.empty() ? "none" : absl::StrJoin(pids, ", ").c_str());
  }
}

}  // namespace

int PrintCounters(bool json, bool verbose) {
  Json ports = Json::array();
  for (const verbs::DeviceInfo& info : verbs::ListDevices()) {
    const auto count = PortsOf(info);
    if (!count.ok()) ports.push_back(Describe(info.name, info.provider, 0, count.status()));
    for (int port = 1; port <= (count.ok() ? *count : 0); ++port) {
      ports.push_back(Describe(info.name, info.provider, port,
                               verbs::ReadPortCounters(info.name, static_cast<uint8_t>(port))));
    }
  }
  bool failed = false;
  for (const Json& port : ports) failed = failed || port.contains("error");
  if (json) {
    std::printf("%s\n", ports.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
    return failed ? 1 : 0;
  }
  std::printf("%-12s %4s  %-44s %20s\n", "device", "port", "counter", "value");
  for (const Json& port : ports) PrintTable(port, verbose);
  return failed ? 1 : 0;
}

}  // namespace sumac::cli
