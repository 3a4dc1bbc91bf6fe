#include "verbs/port_counters.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"

#include "verbs/provider.h"

namespace sumac::verbs {

absl::StatusOr<PortCounters> ReadPortCountersUnder(const std::string& root,
                                                   const std::string& device, uint8_t port) {
  namespace fs = std::filesystem;
  const fs::path folder = fs::path(root) / device / "ports" / std::to_string(port);
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    return absl::NotFoundError(
        absl::StrCat("no counters of ", device, " port ", port, ": there is no ", folder.string()));
  }
  PortCounters found;
  for (const char* group : {"counters", "hw_counters"}) {
    for (const auto& entry : fs::directory_iterator(folder / group, error)) {
      PortCounter counter{group, entry.path().filename(), 0};
      // Some files are settings ("lifespan") or can't be read: numbers only.
      if (std::ifstream(entry.path()) >> counter.value) found.counters.push_back(counter);
    }
  }
  std::sort(found.counters.begin(), found.counters.end(),
            [](const PortCounter& a, const PortCounter& b) {
              return std::tie(a.group, a.name) < std::tie(b.group, b.name);
            });
  return found;
}

absl::StatusOr<PortCounters> ReadPortCounters(const std::string& device, uint8_t port) {
  int count = 0;
  ibv_device** list = SoftProvider().get_device_list(&count);
  const bool soft = list != nullptr && std::any_of(list, list + count, [&](const ibv_device* d) {
                      return device == d->name;
                    });
  if (list != nullptr) SoftProvider().free_device_list(list);
  if (!soft) return ReadPortCountersUnder("/sys/class/infiniband", device, port);
  if (port != 1) return absl::NotFoundError(absl::StrCat(device, " has port 1 only"));
  return ReadSoftPortCounters("");
}

}  // namespace sumac::verbs
