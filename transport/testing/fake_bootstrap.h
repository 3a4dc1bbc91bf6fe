// A Bootstrap without network, for tests with all ranks in one process.
//
// Used by tests of transport/ and of the floors above. FakeJob holds what the server would; a
// FakeBootstrap is one rank's client and must not outlive its job. Threads: any. Notifications are
// delivered on the notifying thread.
//
//   FakeJob job(2);
//   auto worker = Worker::Create(job.rank(0), {});
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "transport/bootstrap/bootstrap.h"

namespace sumac::transport {

class FakeJob;

class FakeBootstrap final : public Bootstrap {
 public:
  FakeBootstrap(FakeJob& job, int rank) : job_(job), rank_(rank) {}
  int rank() const override { return rank_; }
  int size() const override;
  absl::Status Publish(absl::string_view key, absl::string_view value,
                       absl::Duration timeout) override;
  absl::StatusOr<std::string> Lookup(absl::string_view key, absl::Duration timeout) override;
  absl::StatusOr<std::vector<std::string>> Exchange(absl::string_view tag, absl::string_view value,
                                                    absl::Duration timeout) override;
  absl::Status Barrier(absl::string_view tag, absl::Duration timeout) override {
    return Exchange(absl::StrCat("barrier ", tag), "", timeout).status();
  }
  absl::Status Notify(int rank, absl::string_view topic, absl::Duration timeout) override;
  void SetNotificationHandler(NotificationHandler handler) override;
  void ReportFailure(int rank, absl::string_view reason) override;
  bool failed() const noexcept override;
  absl::Status failure() const override;

 private:
  void Receive(int from, const std::string& topic);

  FakeJob& job_;
  const int rank_;
  std::mutex handler_mutex_;
  NotificationHandler handler_;
  std::vector<std::pair<int, std::string>> kept_;
};

class FakeJob {
 public:
  explicit FakeJob(int size) {
    for (int rank = 0; rank < size; ++rank) {
      ranks_.push_back(std::make_unique<FakeBootstrap>(*this, rank));
    }
  }
  FakeBootstrap& rank(int rank) { return *ranks_[static_cast<size_t>(rank)]; }
  int size() const { return static_cast<int>(ranks_.size()); }
  // As if the server had noticed.
  void Fail(int rank, absl::string_view reason) {
    const std::lock_guard lock(mutex_);
    if (!failure_.ok()) return;
    failure_ = WithFailedRank(
        absl::UnavailableError(absl::StrCat("rank ", rank, " failed: ", reason)), rank);
    changed_.notify_all();
  }

 private:
  friend class FakeBootstrap;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::string, std::less<>> values_;
  absl::Status failure_;
  std::vector<std::unique_ptr<FakeBootstrap>> ranks_;
};

inline int FakeBootstrap::size() const { return job_.size(); }

inline absl::Status FakeBootstrap::Publish(absl::string_view key, absl::string_view value,
                                           absl::Duration) {
  const std::lock_guard lock(job_.mutex_);
  if (!job_.values_.emplace(std::string(key), std::string(value)).second) {
    return absl::AlreadyExistsError(absl::StrCat("key '", key, "' is there"));
  }
  job_.changed_.notify_all();
  return absl::OkStatus();
}

inline absl::StatusOr<std::string> FakeBootstrap::Lookup(absl::string_view key,
                                                         absl::Duration timeout) {
  std::unique_lock lock(job_.mutex_);
  const std::string wanted(key);
  job_.changed_.wait_for(lock, absl::ToChronoMicroseconds(timeout),
                         [&] { return job_.values_.contains(wanted) || !job_.failure_.ok(); });
  if (const auto found = job_.values_.find(wanted); found != job_.values_.end()) {
    return found->second;
  }
  if (!job_.failure_.ok()) return job_.failure_;
  return absl::DeadlineExceededError(absl::StrCat("no key '", key, "'"));
}

inline absl::StatusOr<std::vector<std::string>> FakeBootstrap::Exchange(absl::string_view tag,
                                                                        absl::string_view value,
                                                                        absl::Duration timeout) {
  const auto key = [&](int rank) { return absl::StrCat("exchange/", tag, "/", rank); };
  if (auto status = Publish(key(rank_), value, timeout); !status.ok()) return status;
  std::vector<std::string> values;
  for (int rank = 0; rank < size(); ++rank) {
    auto each = Lookup(key(rank), timeout);
    if (!each.ok()) return each.status();
    values.push_back(*std::move(each));
  }
  return values;
}

inline absl::Status FakeBootstrap::Notify(int rank, absl::string_view topic, absl::Duration) {
  job_.rank(rank).Receive(rank_, std::string(topic));
  return absl::OkStatus();
}

inline void FakeBootstrap::Receive(int from, const std::string& topic) {
  const std::lock_guard lock(handler_mutex_);
  if (handler_) {
    handler_(from, topic);
  } else {
    kept_.emplace_back(from, topic);
  }
}

inline void FakeBootstrap::SetNotificationHandler(NotificationHandler handler) {
  const std::lock_guard lock(handler_mutex_);
  handler_ = std::move(handler);
  if (!handler_) return;
  for (const auto& [from, topic] : std::exchange(kept_, {})) handler_(from, topic);
}

inline void FakeBootstrap::ReportFailure(int rank, absl::string_view reason) {
  job_.Fail(rank, reason);
}

inline bool FakeBootstrap::failed() const noexcept { return !failure().ok(); }

inline absl::Status FakeBootstrap::failure() const {
  const std::lock_guard lock(job_.mutex_);
  return job_.failure_;
}

}  // namespace sumac::transport
