// What a worker brings to every connection: device, port, GID and the options of its queue pairs.
//
// Chosen once by WorkerImpl, then read by Connector. Failure: a status that names the device, the
// port, and where the wish came from.
#pragma once

#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"

#include "transport/worker.h"
#include "verbs/device.h"
#include "verbs/queue_pair.h"

namespace sumac::transport {

struct LocalPath {
  std::shared_ptr<verbs::Device> device;
  verbs::ConnectionOptions connection;  // all local choices
  verbs::GidEntry gid;
  size_t endpoints_max = 0;  // what the completion queue has entries for
};

// From `options`, the environment, and what there is; logs what was chosen and why. Fills the path
// fields of `options` with the values in force.
absl::StatusOr<LocalPath> ChooseLocalPath(const Bootstrap& bootstrap, WorkerOptions& options);

}  // namespace sumac::transport
