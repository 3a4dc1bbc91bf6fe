// Shares a bootstrap's one notification handler between the workers of a rank.
//
// Used by WorkerImpl. Each worker registers under its name; a notification whose topic is that name
// reaches it. One that comes before its worker exists is kept (a bounded number of them; the sender
// repeats itself, so losing one costs time only). Threads: any. The callback runs on the
// bootstrap's watch thread, never after the Registration has gone, and must return soon.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

#include "transport/bootstrap/bootstrap.h"

namespace sumac::transport {

class NotificationRoute {
 public:
  virtual ~NotificationRoute() = default;  // ends the registration

  // AlreadyExists when this rank has a worker of that name.
  static absl::StatusOr<std::unique_ptr<NotificationRoute>> Register(
      Bootstrap& bootstrap, const std::string& topic, std::function<void(int from)> callback);
};

}  // namespace sumac::transport
