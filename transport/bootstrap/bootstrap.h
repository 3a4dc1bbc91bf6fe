// Out-of-band connection set-up over gRPC: who is in the job, small key-value exchange, barriers,
// who failed.
//
// Bootstrap is a rank's client; BootstrapServer (server.h) runs inside the launcher (`sumac run`),
// inside rank 0, or on its own. No payload ever travels here. Used by transport::Worker to connect
// queue pairs, and by the floors above to exchange capabilities.
//
// Threads: every method may be called from any thread. A watch thread owned by the Bootstrap
// receives events; it calls the notification handler. Failure: every call has a deadline and fails
// with a status that names the server, the call, the ranks that were waited for, and what to try.
// When the server learns that a rank died (its watch stream broke, or a peer reported it), every
// other rank's failed() turns true within milliseconds.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace sumac::transport {

struct BootstrapOptions {
  std::string server;  // "host:port"
  std::string job;     // must be equal on all ranks; keeps strangers and stale ranks out
  int rank = 0;        // 0 ... size-1
  int size = 1;
  bool serve = false;  // run the server in this process, at `server`'s port
  absl::Duration join_timeout = absl::Seconds(30);  // until all `size` ranks have joined
};

class Bootstrap {
 public:
  // Joins the job and returns when all ranks have. InvalidArgument: rank or size out of range,
  // empty server. AlreadyExists: another process holds this rank. FailedPrecondition: a different
  // size or job name than the server's. DeadlineExceeded: names the ranks that are missing.
  static absl::StatusOr<std::unique_ptr<Bootstrap>> Join(const BootstrapOptions& options);

  // Leaves the job cleanly: the end of this process is then no failure for the others.
  virtual ~Bootstrap() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // Key-value store of the job. A key is written once (AlreadyExists otherwise); Lookup waits for
  // it.
  virtual absl::Status Publish(absl::string_view key, absl::string_view value,
                               absl::Duration timeout) = 0;
  virtual absl::StatusOr<std::string> Lookup(absl::string_view key, absl::Duration timeout) = 0;

  // All-gather of one small value a rank (at most 64 KiB). `tag` names the exchange; every rank
  // calls with the same tag, each tag is used once. The result is indexed by rank.
  virtual absl::StatusOr<std::vector<std::string>> Exchange(absl::string_view tag,
                                                            absl::string_view value,
                                                            absl::Duration timeout) = 0;
  virtual absl::Status Barrier(absl::string_view tag, absl::Duration timeout) = 0;

  // Sends a small event to a peer's handler ("connect to me"). Events that come before a handler is
  // set are kept. Setting a handler (or an empty one, to stop) waits until a running call of the
  // former one has returned.
  using NotificationHandler = std::function<void(int from_rank, const std::string& topic)>;
  virtual absl::Status Notify(int rank, absl::string_view topic, absl::Duration timeout) = 0;
  virtual void SetNotificationHandler(NotificationHandler handler) = 0;

  // Tells everybody that `rank` failed (a peer that does not answer, for example).
  virtual void ReportFailure(int rank, absl::string_view reason) = 0;
  // One atomic load: cheap enough for every turn of a waiting loop.
  virtual bool failed() const noexcept = 0;
  // OK, or the first failure: Unavailable "rank 2 (host h, pid 77) died: ...". RankOf(status) gives
  // the rank.
  virtual absl::Status failure() const = 0;
};

// The rank that a status names as failed (a payload of the status), or -1.
int FailedRankOf(const absl::Status& status);
// Attaches that payload.
absl::Status WithFailedRank(absl::Status status, int rank);

}  // namespace sumac::transport
