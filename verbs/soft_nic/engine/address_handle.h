// An address handle: where a UD send goes, as a genuine ibv_ah that carries the path.
//
// Made and owned by the device (or a test); the engine copies the path when a request is posted, so
// the handle may go at once after that. Immutable.
#pragma once

#include <infiniband/verbs.h>

#include "verbs/soft_nic/engine/ports.h"

namespace sumac::soft_nic {

struct AddressHandle : ibv_ah {
  Path path;
};

}  // namespace sumac::soft_nic
