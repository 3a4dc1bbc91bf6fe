// Marks accesses to the application's memory as what they stand for: a NIC's DMA.
//
// They happen beside the application's own accesses, ordered by completions that travel through the
// kernel, where ThreadSanitizer sees no order; with both ends of a connection in one test process
// it would take them for races. Hardware's DMA it does not see at all, so in such a build it does
// not see ours. Elsewhere this is nothing. Any thread; scopes nest.
#pragma once

#include "absl/base/dynamic_annotations.h"

namespace sumac::soft_nic {

class ScopedDma {
 public:
  ScopedDma() { ABSL_ANNOTATE_IGNORE_READS_AND_WRITES_BEGIN(); }
  ~ScopedDma() { ABSL_ANNOTATE_IGNORE_READS_AND_WRITES_END(); }
  ScopedDma(const ScopedDma&) = delete;
  ScopedDma& operator=(const ScopedDma&) = delete;
};

}  // namespace sumac::soft_nic
