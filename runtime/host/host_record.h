// What a rank tells the others about itself before they share memory: which host and user it is,
// and where its area is. Plain text, as it goes through the bootstrap.
//
// Used by HostGroup. Pure but for OwnHost. Failure: InvalidArgument for a record that is malformed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "runtime/host/peer_memory.h"

namespace sumac::runtime {

struct HostRecord {
  std::string refusal;  // why this rank does not share; empty: it does
  std::string host;     // the kernel's boot id
  uint64_t user = 0;
  uint64_t pid_namespace = 0;  // process numbers mean something only within one
  std::string cpus;            // that it may run on: hexadecimal digits, CPU 0 in the first one
  MemoryFile area;
  uint64_t nonce = 0;             // also in the area: proof that the right file was opened
  uint64_t nonce_address = 0;     // where it is in this process's memory
  bool asymmetric_fence = false;  // see HostGroup: this process is registered for membarrier

  std::string Serialize() const;
  static absl::StatusOr<HostRecord> Parse(absl::string_view text);
};

// host, user, pid_namespace and cpus of this process; Unavailable when /proc does not say.
absl::StatusOr<HostRecord> OwnHost();

// On how many CPUs ranks with such sets can run together.
int CountCpus(const std::vector<std::string>& sets);

// Why a rank with record `other` can't share memory with one with record `first`; empty if it can.
std::string WhyApart(const HostRecord& first, const HostRecord& other);

}  // namespace sumac::runtime
