// The only file of the runtime that makes a real worker.

#include "runtime/domain/impl.h"

namespace sumac::runtime {

absl::StatusOr<std::unique_ptr<Domain>> Domain::Create(transport::Bootstrap& bootstrap,
                                                       const DomainOptions& options) {
  transport::WorkerOptions worker_options = options.worker;
  worker_options.name = options.name;
  auto worker = transport::Worker::Create(bootstrap, worker_options);
  if (!worker.ok()) return Annotate(worker.status(), "domain " + options.name);
  return Adopt(*std::move(worker), options);
}

}  // namespace sumac::runtime
