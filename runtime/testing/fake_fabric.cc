#include "runtime/testing/fake_fabric.h"

#include <atomic>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "runtime/testing/fake_worker.h"

namespace sumac::runtime::testing {

class FakeBootstrap final : public transport::Bootstrap {
 public:
  FakeBootstrap(FakeFabric& fabric, int rank, int size)
      : fabric_(fabric), rank_(rank), size_(size) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  absl::Status Publish(absl::string_view key, absl::string_view value,
                       absl::Duration /*timeout*/) override {
    const std::lock_guard lock(fabric_.mutex_);
    if (!fabric_.store_.emplace(key, value).second) {
      return absl::AlreadyExistsError(absl::StrCat("key ", key));
    }
    fabric_.changed_.notify_all();
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> Lookup(absl::string_view key, absl::Duration timeout) override {
    std::unique_lock lock(fabric_.mutex_);
    const std::string wanted(key);
    const auto there = [&] { return fabric_.store_.contains(wanted); };
    if (absl::Status waited = WaitFor(lock, there, timeout); !waited.ok()) return waited;
    return fabric_.store_[wanted];
  }

  absl::StatusOr<std::vector<std::string>> Exchange(absl::string_view tag, absl::string_view value,
                                                    absl::Duration timeout) override {
    std::unique_lock lock(fabric_.mutex_);
    auto& values = fabric_.exchanges_[std::string(tag)];
    values.emplace(rank_, value);
    fabric_.changed_.notify_all();
    const auto complete = [&] { return values.size() == static_cast<size_t>(size_); };
    if (absl::Status waited = WaitFor(lock, complete, timeout); !waited.ok()) return waited;
    std::vector<std::string> out;
    out.reserve(values.size());
    for (const auto& [from, text] : values) out.push_back(text);
    return out;
  }

  absl::Status Barrier(absl::string_view tag, absl::Duration timeout) override {
    return Exchange(absl::StrCat("barrier/", tag), "", timeout).status();
  }

  absl::Status Notify(int /*rank*/, absl::string_view /*topic*/,
                      absl::Duration /*timeout*/) override {
    return absl::OkStatus();  // fake workers connect without a poke
  }
  void SetNotificationHandler(NotificationHandler /*handler*/) override {}

  void ReportFailure(int rank, absl::string_view reason) override {
    fabric_.FailRank(rank, std::string(reason));
  }
  bool failed() const noexcept override {
    const std::lock_guard lock(fabric_.mutex_);
    return !fabric_.failure_.ok();
  }
  absl::Status failure() const override {
    const std::lock_guard lock(fabric_.mutex_);
    return fabric_.failure_;
  }

 private:
  template <typename Done>
  absl::Status WaitFor(std::unique_lock<std::mutex>& lock, Done done, absl::Duration timeout) {
    const auto until = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(timeout);
    fabric_.changed_.wait_until(lock, until, [&] { return done() || !fabric_.failure_.ok(); });
    if (done()) return absl::OkStatus();
    if (!fabric_.failure_.ok()) return fabric_.failure_;
    return absl::DeadlineExceededError("fake bootstrap: still waiting");
  }

  FakeFabric& fabric_;
  int rank_;
  int size_;
};

FakeFabric::FakeFabric(int size)
    : held_(static_cast<size_t>(size)), refusing_(static_cast<size_t>(size)) {
  for (int rank = 0; rank < size; ++rank) {
    bootstraps_.push_back(std::make_unique<FakeBootstrap>(*this, rank, size));
  }
}

FakeFabric::~FakeFabric() = default;

transport::Bootstrap& FakeFabric::bootstrap(int rank) {
  return *bootstraps_[static_cast<size_t>(rank)];
}

std::unique_ptr<transport::Worker> FakeFabric::MakeWorker(int rank,
                                                          transport::WorkerOptions options) {
  return std::make_unique<FakeWorker>(*this, rank, std::move(options));
}

void FakeFabric::FailRank(int rank, const std::string& reason) {
  const std::lock_guard lock(mutex_);
  if (failure_.ok()) {
    failure_ = transport::WithFailedRank(
        absl::UnavailableError(absl::StrCat("rank ", rank, " died: ", reason)), rank);
  }
  for (FakeWorker* worker : workers_) {
    for (auto& [peer, endpoint] : worker->endpoints_) {
      if (peer == rank) endpoint->Fail(failure_);
    }
  }
  changed_.notify_all();
}

void FakeFabric::BreakConnection(int from, int to, const absl::Status& status) {
  const std::lock_guard lock(mutex_);
  for (FakeWorker* worker : workers_) {
    if (worker->rank_ != from) continue;
    const auto it = worker->endpoints_.find(to);
    if (it != worker->endpoints_.end()) it->second->Fail(status);
  }
}

void FakeFabric::Hold(int rank, bool held) {
  const std::lock_guard lock(mutex_);
  held_[static_cast<size_t>(rank)] = held;
}

void FakeFabric::RefuseConnections(int rank) {
  const std::lock_guard lock(mutex_);
  refusing_[static_cast<size_t>(rank)] = true;
}

uint64_t FakeFabric::operations() const {
  const std::lock_guard lock(mutex_);
  return operations_;
}

uint32_t FakeFabric::AddKey(const Key& key) {
  // Odd multiples of a large odd number: never 0, and neighbours are far apart.
  const uint32_t value = (2 * next_key_++ + 1) * 2654435761u;
  keys_.emplace(value, key);
  return value;
}

const FakeFabric::Key* FakeFabric::Find(uint32_t key, uintptr_t addr, size_t length) const {
  const auto it = keys_.find(key);
  if (it == keys_.end()) return nullptr;
  const Key& found = it->second;
  const bool inside = addr >= found.addr && addr - found.addr <= found.length &&
                      length <= found.length - (addr - found.addr);
  return inside ? &found : nullptr;
}

FakeWorker* FakeFabric::WorkerOf(int rank, const std::string& name) const {
  for (FakeWorker* worker : workers_) {
    if (worker->rank_ == rank && worker->options_.name == name) return worker;
  }
  return nullptr;
}

}  // namespace sumac::runtime::testing
