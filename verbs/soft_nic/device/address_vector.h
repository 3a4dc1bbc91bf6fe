// Address vectors: the ibv_ah_attr of a connected queue pair or of an address handle, checked and
// turned into the path that the engine's packets take.
//
// Pure functions, any thread. `local` is the link's GID, the only one in the device's table.
#pragma once

#include <infiniband/verbs.h>

#include "absl/status/status.h"

#include "verbs/soft_nic/engine/ports.h"

namespace sumac::soft_nic {

// InvalidArgument says what is wrong: no GRH, a GID index that is not there.
absl::Status CheckAddressVector(const ibv_ah_attr& attr);
// InvalidArgument when one of the addresses is IPv4 and the other IPv6: such a peer would never
// answer.
absl::Status CheckFamily(const ibv_ah_attr& attr, const Gid& local);

// The path to where `attr`, which passed both checks, points. The source port is the caller's.
Path PathOf(const ibv_ah_attr& attr, const Gid& local);

}  // namespace sumac::soft_nic
