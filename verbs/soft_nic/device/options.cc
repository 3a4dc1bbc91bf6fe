#include "verbs/soft_nic/device/options.h"

#include <array>
#include <cstdint>
#include <limits>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace sumac::soft_nic {
namespace {

constexpr const char* kAddress = "SUMAC_SOFT_ADDRESS";
constexpr const char* kInterface = "SUMAC_SOFT_INTERFACE";
constexpr const char* kLocal = "SUMAC_SOFT_LOCAL";
constexpr const char* kReceiveBuffer = "SUMAC_SOFT_RECEIVE_BUFFER";
constexpr const char* kSendQuota = "SUMAC_SOFT_SEND_QUOTA";
constexpr const char* kSegment = "SUMAC_SOFT_SEGMENT";
constexpr const char* kShareAllocations = "SUMAC_SOFT_SHARE_ALLOCATIONS";
constexpr uint32_t kReceiveBufferBytesMin = 64 * 1024;
constexpr uint32_t kReceiveBufferBytesMax = 1u << 30;

constexpr uint32_t kSendQuotaMegabitsMax = 1'000'000;

constexpr std::array<OptionHelp, 7> kTable = {{
    {kAddress, "IP address", "127.0.0.1", "an address of this machine",
     "where the soft NIC listens (UDP port 4791)"},
    {kInterface, "interface name", "", "an interface that is up and has an address",
     "listens on this interface's address instead; anyone who can reach it can send packets"},
    {kLocal, "0 or 1", "1", "0 or 1",
     "whether processes of one user and host use shared memory instead of the UDP socket"},
    {kReceiveBuffer, "bytes", "8388608", "65536 to 1073741824",
     "receive buffer asked of the kernel for the UDP socket"},
    {kSegment, "mode", "auto", "auto, on or off",
     "lets packets cross the kernel in batches (UDP_SEGMENT); auto: where Linux, not the network "
     "card, cuts them"},
    {kSendQuota, "Mbit/s", "", "1 to 1000000",
     "what each process's soft NIC sends at most, evenly paced; no limit when not set"},
    {kShareAllocations, "0 or 1", "1", "0 or 1",
     "whether page-aligned buffers of programs under `sumac soft` can be mapped by peers on the "
     "host"},
}};

// Null when unset or empty.
const char* Value(const EnvironmentLookup& lookup, const char* name) {
  const char* value = lookup(name);
  return value != nullptr && *value != '\0' ? value : nullptr;
}

}  // namespace

std::span<const OptionHelp> DeviceOptionTable() { return kTable; }

absl::StatusOr<DeviceOptions> ReadDeviceOptions(const EnvironmentLookup& lookup) {
  DeviceOptions options;
  if (const char* value = Value(lookup, kAddress)) {
    auto gid = ParseGid(value);
    if (!gid.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat(kAddress, "=", value, ": ", gid.status().message()));
    }
    options.link.address = *gid;
  }
  if (const char* value = Value(lookup, kInterface)) options.link.interface = value;
  if (const char* value = Value(lookup, kLocal)) {
    const absl::string_view given = value;
    if (given != "0" && given != "1") {
      return absl::InvalidArgumentError(absl::StrCat(kLocal, "=", value, ": must be 0 or 1"));
    }
    options.local = given == "1";
  }
  if (const char* value = Value(lookup, kReceiveBuffer)) {
    uint32_t bytes = 0;
    if (!absl::SimpleAtoi(value, &bytes) || bytes < kReceiveBufferBytesMin ||
        bytes > kReceiveBufferBytesMax) {
      return absl::InvalidArgumentError(absl::StrCat(kReceiveBuffer, "=", value, ": must be ",
                                                     kReceiveBufferBytesMin, " to ",
                                                     kReceiveBufferBytesMax, " bytes"));
    }
    options.link.receive_buffer_bytes = bytes;
  }
  if (const char* value = Value(lookup, kSegment)) {
    const absl::string_view wanted = value;
    if (wanted != "auto" && wanted != "on" && wanted != "off") {
      return absl::InvalidArgumentError(
          absl::StrCat(kSegment, "=", value, ": must be auto, on or off"));
    }
    options.link.segmentation = wanted == "on"    ? Segmentation::kOn
                                : wanted == "off" ? Segmentation::kOff
                                                  : Segmentation::kAuto;
  }
  if (const char* value = Value(lookup, kSendQuota)) {
    uint32_t megabits = 0;
    if (!absl::SimpleAtoi(value, &megabits) || megabits == 0 || megabits > kSendQuotaMegabitsMax) {
      return absl::InvalidArgumentError(absl::StrCat(kSendQuota, "=", value, ": must be 1 to ",
                                                     kSendQuotaMegabitsMax, " Mbit/s"));
    }
    options.send_quota = uint64_t{megabits} * 1'000'000 / 8;
  }
  // Its reader is the preloaded library (interpose/allocation_calls.cc); here a mistake is told.
  if (const char* value = Value(lookup, kShareAllocations)) {
    const absl::string_view given = value;
    if (given != "0" && given != "1") {
      return absl::InvalidArgumentError(
          absl::StrCat(kShareAllocations, "=", value, ": must be 0 or 1"));
    }
  }
  return options;
}

}  // namespace sumac::soft_nic
