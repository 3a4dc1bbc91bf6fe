// What a port has counted: packets, bytes, errors, retransmissions, as
// /sys/class/infiniband/<device>/ports/<port>/{counters,hw_counters} shows it.
//
// Hardware and rxe are read there. The soft NIC lives in its programs: its counters are the sum
// over the processes of this user in this network namespace that have it open, from when each of
// them opened it; who has closed it no longer counts. Its names are those of the kernel and of mlx5
// where they mean the same. Any thread; blocks for a second at most.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace sumac::verbs {

struct PortCounter {
  std::string group;  // "counters" or "hw_counters"
  std::string name;   // "port_xmit_data" (in units of 4 bytes: IBTA vol. 1, 16.1.3.5)
  uint64_t value = 0;
};

struct PortCounters {
  std::vector<PortCounter> counters;  // by group and name
  // Soft NIC: whose counters are in the sum, and who did not answer (stopped, or too busy).
  std::vector<pid_t> processes;
  std::vector<pid_t> silent;
};

// NotFound: no such device or port.
absl::StatusOr<PortCounters> ReadPortCounters(const std::string& device, uint8_t port);

// The same from another place than /sys/class/infiniband.
absl::StatusOr<PortCounters> ReadPortCountersUnder(const std::string& root,
                                                   const std::string& device, uint8_t port);

// verbs/soft_nic/device/counter_service.cc; `address` empty: of all addresses.
PortCounters ReadSoftPortCounters(const std::string& address);

}  // namespace sumac::verbs
