// What paths.cc asks for when a program reads a file of counters.

#include <cstdint>
#include <cstring>

#include "verbs/port_counters.h"
#include "verbs/soft_nic/device/control_path.h"

// `file` is "counters/port_xmit_data": its value now, over all processes at soft0's address. False
// when there is no such counter. Found by dlsym, so its name is C's.
extern "C" __attribute__((visibility("default"))) bool sumac_soft_port_counter(const char* file,
                                                                               uint64_t* value) {
  const auto found = sumac::verbs::ReadSoftPortCounters(sumac::soft_nic::SoftDeviceAddress());
  for (const auto& counter : found.counters) {
    if (counter.group + "/" + counter.name != file) continue;
    *value = counter.value;
    return true;
  }
  return false;
}
