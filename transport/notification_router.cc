#include "transport/notification_router.h"

#include <map>
#include <mutex>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sumac::transport {
namespace {

constexpr size_t kKeptMax = 65536;

// One bootstrap's workers.
struct Router {
  std::mutex mutex;
  std::map<std::string, std::function<void(int)>> routes;
  std::set<std::pair<std::string, int>> kept;

  void Deliver(int from, const std::string& topic) {
    const std::lock_guard lock(mutex);
    if (const auto route = routes.find(topic); route != routes.end()) {
      route->second(from);
    } else if (kept.size() < kKeptMax) {
      kept.emplace(topic, from);
    }
  }
};

// Held while routers come and go. Never taken by the watch thread, as SetNotificationHandler waits
// for that one.
std::mutex& RoutersMutex() {
  static std::mutex mutex;
  return mutex;
}
std::map<Bootstrap*, std::shared_ptr<Router>>& Routers() {
  static auto* routers = new std::map<Bootstrap*, std::shared_ptr<Router>>();
  return *routers;
}

class RouteImpl final : public NotificationRoute {
 public:
  RouteImpl(Bootstrap& bootstrap, std::shared_ptr<Router> router, std::string topic)
      : bootstrap_(bootstrap), router_(std::move(router)), topic_(std::move(topic)) {}
  ~RouteImpl() override {
    const std::lock_guard routers_lock(RoutersMutex());
    bool last = false;
    {
      const std::lock_guard lock(router_->mutex);
      router_->routes.erase(topic_);
      last = router_->routes.empty();
    }
    if (!last) return;
    bootstrap_.SetNotificationHandler({});
    Routers().erase(&bootstrap_);
  }

 private:
  Bootstrap& bootstrap_;
  const std::shared_ptr<Router> router_;
  const std::string topic_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<NotificationRoute>> NotificationRoute::Register(
    Bootstrap& bootstrap, const std::string& topic, std::function<void(int from)> callback) {
  const std::lock_guard routers_lock(RoutersMutex());
  std::shared_ptr<Router>& entry = Routers()[&bootstrap];
  const bool first = entry == nullptr;
  if (first) entry = std::make_shared<Router>();
  const std::shared_ptr<Router> router = entry;
  {
    const std::lock_guard lock(router->mutex);
    if (router->routes.contains(topic)) {
      return absl::AlreadyExistsError(
          absl::StrCat("rank ", bootstrap.rank(), " has a worker named '", topic, "' already"));
    }
    for (auto kept = router->kept.begin(); kept != router->kept.end();) {
      if (kept->first != topic) {
        ++kept;
        continue;
      }
      callback(kept->second);
      kept = router->kept.erase(kept);
    }
    router->routes.emplace(topic, std::move(callback));
  }
  if (first) {
    bootstrap.SetNotificationHandler(
        [router](int from, const std::string& to) { router->Deliver(from, to); });
  }
  return std::make_unique<RouteImpl>(bootstrap, router, topic);
}

}  // namespace sumac::transport
