// The bootstrap service: membership, key-value exchange, barriers and failure notices for one job,
// over gRPC.
//
// Owned by the launcher, by rank 0, or by a stand-alone process. All state is in memory and bounded
// by options. Malformed, oversized or foreign requests are refused with a status that says why;
// they never end the server. Threads: thread-safe; gRPC calls it from its own threads.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace sumac::transport {

struct BootstrapServerOptions {
  std::string listen = "127.0.0.1:0";  // port 0: any free port
  std::string job;
  int size = 1;
  int serving_rank =
      -1;  // the rank whose process this is, or -1 for a launcher or a server of its own
  size_t value_bytes_max = 64 * 1024;
  size_t keys_max = 1 << 20;
};

class BootstrapServer {
 public:
  static absl::StatusOr<std::unique_ptr<BootstrapServer>> Start(
      const BootstrapServerOptions& options);
  virtual ~BootstrapServer() = default;
  // "host:port" that clients on this machine can use.
  virtual std::string address() const = 0;
  // What a launcher knows before any stream breaks: this rank's process ended abnormally.
  virtual void DeclareFailed(int rank, absl::string_view reason) = 0;
  // Waits until every rank but `serving_rank` has left or failed, at most `timeout`: a server that
  // goes first takes the others' failure detection with it.
  virtual void WaitUntilAlone(absl::Duration timeout) = 0;
};

}  // namespace sumac::transport
