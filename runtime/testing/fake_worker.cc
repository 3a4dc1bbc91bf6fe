#include "runtime/testing/fake_worker.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace sumac::runtime::testing {

using transport::LocalSlice;
using transport::RemoteSlice;
using transport::Ticket;

namespace {

class FakeMemory final : public transport::RegisteredMemory {
 public:
  FakeMemory(void* addr, size_t length, uint32_t key, std::function<void()> forget)
      : addr_(addr), length_(length), key_(key), forget_(std::move(forget)) {}
  ~FakeMemory() override { forget_(); }
  void* addr() const override { return addr_; }
  size_t length() const override { return length_; }
  uint32_t lkey() const override { return key_; }
  uint32_t rkey() const override { return key_; }

 private:
  void* addr_;
  size_t length_;
  uint32_t key_;
  std::function<void()> forget_;
};

template <typename T>
T* Pointer(uint64_t addr) {
  return reinterpret_cast<T*>(static_cast<uintptr_t>(addr));
}

}  // namespace

absl::Status FakeEndpoint::status() const {
  const std::lock_guard lock(fabric_.mutex_);
  return status_;
}

absl::StatusOr<Ticket> FakeEndpoint::Post(const Operation& operation) {
  const std::lock_guard lock(fabric_.mutex_);
  if (!status_.ok()) return status_;
  const bool with_immediate = operation.kind == Kind::kWriteWithImmediate;
  if (RoomLocked() == 0 || (with_immediate && ImmediateRoomLocked() == 0)) {
    return absl::ResourceExhaustedError("no room");
  }
  if (with_immediate) ++credits_used_;
  queue_.push_back(operation);
  return ++posted_;
}

absl::StatusOr<Ticket> FakeEndpoint::Write(const LocalSlice& source, const RemoteSlice& target) {
  return Post({Kind::kWrite, source, target});
}
absl::StatusOr<Ticket> FakeEndpoint::WriteWithImmediate(const LocalSlice& source,
                                                        const RemoteSlice& target,
                                                        uint32_t immediate) {
  return Post({Kind::kWriteWithImmediate, source, target, 0, immediate});
}
absl::StatusOr<Ticket> FakeEndpoint::Read(const LocalSlice& into, const RemoteSlice& source) {
  return Post({Kind::kRead, into, source});
}
absl::StatusOr<Ticket> FakeEndpoint::FetchAdd(const LocalSlice& result, const RemoteSlice& target,
                                              uint64_t add) {
  return Post({Kind::kFetchAdd, result, target, add});
}
absl::StatusOr<Ticket> FakeEndpoint::CompareSwap(const LocalSlice& result,
                                                 const RemoteSlice& target, uint64_t expected,
                                                 uint64_t desired) {
  return Post({Kind::kCompareSwap, result, target, expected, desired});
}

uint32_t FakeEndpoint::RoomLocked() const {
  return status_.ok() ? worker_.options_.send_depth - static_cast<uint32_t>(queue_.size()) : 0;
}
uint32_t FakeEndpoint::ImmediateRoomLocked() const {
  return std::min(RoomLocked(), worker_.options_.receive_depth - credits_used_);
}
uint32_t FakeEndpoint::room() const {
  const std::lock_guard lock(fabric_.mutex_);
  return RoomLocked();
}
uint32_t FakeEndpoint::immediate_room() const {
  const std::lock_guard lock(fabric_.mutex_);
  return ImmediateRoomLocked();
}
bool FakeEndpoint::Done(Ticket ticket) const {
  const std::lock_guard lock(fabric_.mutex_);
  return ticket <= done_;
}
Ticket FakeEndpoint::last_ticket() const {
  const std::lock_guard lock(fabric_.mutex_);
  return posted_;
}

absl::Status FakeEndpoint::Wait(Ticket ticket, absl::Time deadline) {
  absl::Status waited = worker_.Wait([&] { return Done(ticket) || !status().ok(); }, deadline);
  if (Done(ticket)) return absl::OkStatus();
  if (absl::Status broken = status(); !broken.ok()) return broken;
  if (!absl::IsDeadlineExceeded(waited)) return waited;
  return absl::DeadlineExceededError(absl::StrCat("fake0: rank ", peer_, " does not answer"));
}
absl::Status FakeEndpoint::Flush(absl::Time deadline) { return Wait(last_ticket(), deadline); }

absl::Status FakeEndpoint::Send(std::span<const std::byte> /*message*/, absl::Time /*deadline*/) {
  return absl::UnimplementedError("the fake has no messages");
}
absl::StatusOr<size_t> FakeEndpoint::Receive(std::span<std::byte> /*buffer*/,
                                             absl::Time /*deadline*/) {
  return absl::UnimplementedError("the fake has no messages");
}

int FakeEndpoint::RunQueue() {
  int count = 0;
  for (; status_.ok() && !queue_.empty(); ++count) {
    const Operation operation = queue_.front();
    queue_.pop_front();
    ++fabric_.operations_;
    if (absl::Status ran = Run(operation); !ran.ok()) {
      Fail(ran);
    } else {
      ++done_;
    }
  }
  return count;
}

void FakeEndpoint::Fail(const absl::Status& status) {
  if (status_.ok()) status_ = status;
  queue_.clear();
}

absl::Status FakeEndpoint::Run(const Operation& operation) {
  FakeWorker* target = fabric_.WorkerOf(peer_, worker_.options_.name);
  if (target == nullptr) {
    return transport::WithFailedRank(
        absl::UnavailableError(absl::StrCat("fake0: rank ", peer_, " is gone")), peer_);
  }
  const bool atomic = operation.kind == Kind::kFetchAdd || operation.kind == Kind::kCompareSwap;
  const uint32_t needed = atomic                          ? transport::kRemoteAtomic
                          : operation.kind == Kind::kRead ? transport::kRemoteRead
                                                          : transport::kRemoteWrite;
  const LocalSlice& local = operation.local;
  if (local.length > 0) {
    const auto* mine =
        fabric_.Find(local.lkey, reinterpret_cast<uintptr_t>(local.addr), local.length);
    if (mine == nullptr || mine->owner != &worker_) {
      return absl::InvalidArgumentError("fake0: local protection error");
    }
    const auto* theirs = fabric_.Find(operation.remote.rkey, operation.remote.addr, local.length);
    if (theirs == nullptr || theirs->owner != target || (theirs->access & needed) != needed) {
      return absl::PermissionDeniedError(
          absl::StrCat("fake0: rank ", peer_, " refuses: remote access error"));
    }
  }
  switch (operation.kind) {
    case Kind::kWriteWithImmediate:
    case Kind::kWrite:
      if (local.length > 0) {
        std::memmove(Pointer<void>(operation.remote.addr), local.addr, local.length);
      }
      if (operation.kind == Kind::kWriteWithImmediate) {
        target->inbox_.emplace_back(worker_.rank_, static_cast<uint32_t>(operation.b));
      }
      break;
    case Kind::kRead:
      if (local.length > 0) {
        std::memmove(local.addr, Pointer<void>(operation.remote.addr), local.length);
      }
      break;
    case Kind::kFetchAdd: {
      std::atomic_ref<uint64_t> word(*Pointer<uint64_t>(operation.remote.addr));
      *static_cast<uint64_t*>(local.addr) = word.fetch_add(operation.a);
      break;
    }
    case Kind::kCompareSwap: {
      std::atomic_ref<uint64_t> word(*Pointer<uint64_t>(operation.remote.addr));
      uint64_t old = operation.a;
      word.compare_exchange_strong(old, operation.b);
      *static_cast<uint64_t*>(local.addr) = old;
      break;
    }
  }
  return absl::OkStatus();
}

FakeWorker::FakeWorker(FakeFabric& fabric, int rank, transport::WorkerOptions options)
    : fabric_(fabric), rank_(rank), options_(std::move(options)) {
  const std::lock_guard lock(fabric_.mutex_);
  fabric_.workers_.push_back(this);
}

FakeWorker::~FakeWorker() {
  const std::lock_guard lock(fabric_.mutex_);
  std::erase(fabric_.workers_, this);
}

absl::StatusOr<transport::Endpoint*> FakeWorker::Connect(int peer, absl::Time deadline) {
  const auto there = [&] {
    const std::lock_guard lock(fabric_.mutex_);
    return !fabric_.refusing_[static_cast<size_t>(peer)] &&
           fabric_.WorkerOf(peer, options_.name) != nullptr;
  };
  if (absl::Status waited = Wait(there, deadline); !waited.ok()) {
    if (!absl::IsDeadlineExceeded(waited)) return waited;
    return absl::DeadlineExceededError(absl::StrCat("fake0: rank ", peer, " does not connect"));
  }
  const std::lock_guard lock(fabric_.mutex_);
  auto& endpoint = endpoints_[peer];
  if (endpoint == nullptr) endpoint = std::make_unique<FakeEndpoint>(fabric_, *this, peer);
  return endpoint.get();
}

transport::Endpoint* FakeWorker::Find(int peer) {
  const std::lock_guard lock(fabric_.mutex_);
  const auto it = endpoints_.find(peer);
  return it == endpoints_.end() ? nullptr : it->second.get();
}

absl::StatusOr<std::unique_ptr<transport::RegisteredMemory>> FakeWorker::Register(
    void* addr, size_t length, uint32_t remote_access) {
  const std::lock_guard lock(fabric_.mutex_);
  const uint32_t key =
      fabric_.AddKey({this, reinterpret_cast<uintptr_t>(addr), length, remote_access});
  return std::make_unique<FakeMemory>(addr, length, key, [fabric = &fabric_, key] {
    const std::lock_guard guard(fabric->mutex_);
    fabric->keys_.erase(key);
  });
}

int FakeWorker::Progress() {
  std::deque<std::pair<int, uint32_t>> arrived;
  int count = 0;
  {
    const std::lock_guard lock(fabric_.mutex_);
    if (!fabric_.held_[static_cast<size_t>(rank_)]) {
      for (auto& [peer, endpoint] : endpoints_) count += endpoint->RunQueue();
    }
    arrived.swap(inbox_);
    for (const auto& [peer, immediate] : arrived) {
      const FakeWorker* sender = fabric_.WorkerOf(peer, options_.name);
      if (sender == nullptr) continue;
      --sender->endpoints_.at(rank_)->credits_used_;
    }
  }
  for (const auto& [peer, immediate] : arrived) {
    if (handler_) handler_(peer, immediate);
    ++count;
  }
  return count;
}

absl::Status FakeWorker::Wait(absl::FunctionRef<bool()> done, absl::Time deadline) {
  for (;;) {
    Progress();
    if (done()) return absl::OkStatus();
    if (bootstrap().failed()) return bootstrap().failure();
    if (absl::Now() >= deadline) return absl::DeadlineExceededError("fake0: still waiting");
    std::this_thread::yield();
  }
}

}  // namespace sumac::runtime::testing
