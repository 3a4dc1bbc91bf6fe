// The process's connection manager for librdmacm (cm/user_cm.h), with the settings of the device.

#include <atomic>
#include <cstdlib>

#include "verbs/soft_nic/cm/user_cm.h"
#include "verbs/soft_nic/device/control_path.h"
#include "verbs/soft_nic/device/limits.h"
#include "verbs/soft_nic/device/options.h"

namespace sumac::soft_nic {
namespace {

std::atomic<bool> in_use = false;

absl::StatusOr<UdpLinkOptions> ReadLinkOptions() {
  const auto options = ReadDeviceOptions([](const char* name) { return std::getenv(name); });
  if (!options.ok()) return options.status();
  return options->link;
}

// Lives as long as the process: its thread, and descriptors of the program, may outlive any owner.
UserCm& ProcessCm() {
  static UserCm* const manager = new UserCm(
      {.link = ReadLinkOptions, .node_guid = SoftDeviceGuid, .read_atomics_max = kReadAtomicsMax});
  in_use = true;
  return *manager;
}

}  // namespace

int OpenConnectionManager(int flags) { return ProcessCm().Open(flags); }

ssize_t WriteConnectionManager(int fd, const void* command, size_t bytes) {
  return ProcessCm().Write(fd, command, bytes);
}

void CloseConnectionManager(int fd) { ProcessCm().Close(fd); }

void LeaveConnectionManager() {
  if (in_use) ProcessCm().Leave();
}

}  // namespace sumac::soft_nic
