#include "transport/connector.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"

#include "verbs/log.h"

namespace sumac::transport {
namespace {

// A look-up is cut into slices, so that a worker that goes away need not wait for it.
constexpr absl::Duration kLookupSlice = absl::Milliseconds(250);
// A notification can get lost with a worker that ended before the one of that name began.
constexpr int kSlicesPerNotification = 4;

std::string HostName() {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0 || name[0] == '\0') return "unknown";
  std::string text(name.data());
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c <= ' ' || c > '~'; }, '?');
  return text;
}

uint32_t RandomPsn() {
  std::random_device random;
  return random() & 0xffffff;
}

}  // namespace

Connector::Connector(EndpointHost& host, LocalPath path, std::unique_ptr<ConnectionSetup> setup)
    : host_(host),
      path_(std::move(path)),
      bootstrap_(host.worker->bootstrap()),
      host_name_(HostName()),
      slots_(static_cast<size_t>(bootstrap_.size())),
      handshakes_(static_cast<size_t>(bootstrap_.size())),
      setup_(std::move(setup)),
      thread_([this] { Serve(); }) {}

Connector::~Connector() { Stop(); }

void Connector::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Connector::Enqueue(int peer) {
  if (peer < 0 || static_cast<size_t>(peer) >= slots_.size()) return;
  const std::lock_guard lock(mutex_);
  auto& handshake = handshakes_[static_cast<size_t>(peer)];
  if (handshake == nullptr) handshake = std::make_unique<Handshake>();
  // A busy one is being connected by the owner; once is enough.
  if (handshake->queued || handshake->busy || Connected(peer) != nullptr) return;
  handshake->queued = true;
  queue_.push_back(peer);
  changed_.notify_all();
}

void Connector::EnqueueFailure(int rank, std::string reason) {
  const std::lock_guard lock(mutex_);
  failures_.emplace_back(rank, std::move(reason));
  changed_.notify_all();
}

void Connector::Serve() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stopping_ || !queue_.empty() || !failures_.empty(); });
    if (!failures_.empty()) {
      const auto [rank, reason] = std::move(failures_.front());
      failures_.pop_front();
      lock.unlock();
      bootstrap_.ReportFailure(rank, reason);
      lock.lock();
      continue;
    }
    if (stopping_) return;
    const int peer = queue_.front();
    queue_.pop_front();
    handshakes_[static_cast<size_t>(peer)]->queued = false;
    lock.unlock();
    const auto connected =
        ConnectAs(peer, absl::Now() + host_.worker->options().connect_timeout, true);
    // Aborted: the owner is at it.
    if (!connected.ok() && !absl::IsAborted(connected.status()) && !stopping_) {
      Log().warn("rank {} asked to connect: {}", peer, connected.status().ToString());
    }
    lock.lock();
  }
}

absl::StatusOr<ReliableEndpoint*> Connector::Connect(int peer, absl::Time deadline) {
  if (peer < 0 || static_cast<size_t>(peer) >= slots_.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("no rank ", peer, " in a job of ", slots_.size(), " ranks"));
  }
  return ConnectAs(peer, deadline, false);
}

absl::StatusOr<ReliableEndpoint*> Connector::ConnectAs(int peer, absl::Time deadline,
                                                       bool answering) {
  if (ReliableEndpoint* endpoint = Connected(peer)) return endpoint;
  std::unique_lock lock(mutex_);
  auto& handshake = handshakes_[static_cast<size_t>(peer)];
  if (handshake == nullptr) handshake = std::make_unique<Handshake>();
  while (handshake->busy) {
    if (answering) return absl::AbortedError("being connected already");
    if (changed_.wait_until(lock,
                            absl::ToChronoTime(std::min(deadline, absl::Now() + absl::Hours(1)))) ==
            std::cv_status::timeout &&
        absl::Now() >= deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat("connecting to rank ", peer, ", as it asked for, is not done yet"));
    }
  }
  if (ReliableEndpoint* endpoint = Connected(peer)) return endpoint;
  handshake->busy = true;
  Handshake& mine = *handshake;
  lock.unlock();
  const absl::Status status = Run(peer, mine, deadline, answering);
  lock.lock();
  mine.busy = false;
  changed_.notify_all();
  if (!status.ok()) return status;
  slots_[static_cast<size_t>(peer)].connected.store(mine.endpoint.get(), std::memory_order_release);
  return mine.endpoint.get();
}

absl::Status Connector::Run(int peer, Handshake& handshake, absl::Time deadline, bool answering) {
  if (handshake.endpoint == nullptr) {
    if (auto status = Create(peer, handshake); !status.ok()) return status;
  }
  const int self = bootstrap_.rank();
  const std::string own_address = ToText(OwnRecord(peer, handshake));
  if (peer == self) {  // a queue pair connected to itself; nobody to talk to
    return Established(peer) ? absl::OkStatus() : Establish(peer, handshake, own_address, deadline);
  }
  auto status =
      PublishOnce(Key(self, peer, "address"), own_address, handshake.address_published, deadline);
  if (!status.ok()) return status;
  if (Established(peer) == nullptr) {
    const auto address = LookupPatiently(peer, Key(peer, self, "address"), deadline, !answering);
    if (!address.ok()) return address.status();
    status = Establish(peer, handshake, *address, deadline);
    if (!status.ok()) return status;
  }
  status = PublishOnce(Key(self, peer, "ready"), "1", handshake.ready_published, deadline);
  if (!status.ok()) return status;
  return LookupPatiently(peer, Key(peer, self, "ready"), deadline, !answering).status();
}

absl::Status Connector::Create(int peer, Handshake& handshake) {
  {
    const std::lock_guard lock(mutex_);
    if (endpoints_ == path_.endpoints_max) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "no connection to rank ", peer, ": the completion queue of device ",
          host_.worker->device_name(), " holds the completions of ", path_.endpoints_max,
          " queue pairs; lower WorkerOptions::send_depth or receive_depth"));
    }
    ++endpoints_;
  }
  auto endpoint = ReliableEndpoint::Create(host_, peer, path_.connection);
  if (!endpoint.ok()) {
    const std::lock_guard lock(mutex_);
    --endpoints_;
    return endpoint.status();
  }
  handshake.endpoint = *std::move(endpoint);
  handshake.psn = RandomPsn();
  return absl::OkStatus();
}

absl::Status Connector::Establish(int peer, Handshake& handshake, const std::string& address,
                                  absl::Time deadline) {
  const auto remote = ParseAddressRecord(address);
  if (!remote.ok()) {
    return absl::Status(remote.status().code(),
                        absl::StrCat("rank ", peer, ": ", remote.status().message()));
  }
  verbs::ConnectionOptions connection = path_.connection;
  connection.local_psn = handshake.psn;
  const auto interrupted = [this] { return Interrupted(); };
  const auto bring_up = [&](verbs::QueuePair& qp, const verbs::ConnectionOptions& agreed) {
    return SetupFor(peer).BringUp(peer, qp, agreed, *remote, {deadline, interrupted});
  };
  if (auto status = handshake.endpoint->Establish(*remote, connection, bring_up); !status.ok()) {
    // Not the record itself: its key is for this rank alone.
    absl::Status annotated(
        status.code(), absl::StrCat("connecting to rank ", peer, " (host ", remote->host, ", pid ",
                                    remote->pid, "): ", status.message()));
    const int failed = FailedRankOf(status);
    return failed < 0 ? annotated : WithFailedRank(std::move(annotated), failed);
  }
  slots_[static_cast<size_t>(peer)].established.store(handshake.endpoint.get(),
                                                      std::memory_order_release);
  return absl::OkStatus();
}

absl::Status Connector::PublishOnce(const std::string& key, const std::string& value,
                                    bool& published, absl::Time deadline) {
  if (published) return absl::OkStatus();
  const absl::Duration timeout = std::max(deadline - absl::Now(), absl::Milliseconds(1));
  const auto status = bootstrap_.Publish(key, value, timeout);
  // A publication whose answer did not come in time may have happened, so it counts as tried; a
  // look-up tells what is there.
  if (absl::IsAlreadyExists(status)) {
    const auto there = bootstrap_.Lookup(key, timeout);
    if (!there.ok()) return there.status();
    if (*there != value) {
      return absl::FailedPreconditionError(absl::StrCat(
          "a former worker of rank ", bootstrap_.rank(), " used the name '",
          host_.worker->options().name, "' for this connection; give each a name of its own"));
    }
  } else if (!status.ok()) {
    return status;
  }
  published = true;
  return absl::OkStatus();
}

absl::StatusOr<std::string> Connector::LookupPatiently(int peer, const std::string& key,
                                                       absl::Time deadline, bool notify) {
  for (int slice = 0;; ++slice) {
    const absl::Duration left = std::max(deadline - absl::Now(), absl::ZeroDuration());
    if (notify && slice % kSlicesPerNotification == 0) {
      const auto status =
          bootstrap_.Notify(peer, host_.worker->options().name,
                            std::clamp(left, absl::Milliseconds(1), absl::Seconds(1)));
      if (!status.ok() && !absl::IsDeadlineExceeded(status)) return status;
    }
    auto value = bootstrap_.Lookup(key, std::clamp(left, absl::Milliseconds(1), kLookupSlice));
    if (value.ok() || !absl::IsDeadlineExceeded(value.status())) return value;
    if (auto status = Interrupted(); !status.ok()) return status;
    if (absl::Now() >= deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat("rank ", peer, " does not answer to worker '", host_.worker->options().name,
                       "' of rank ", bootstrap_.rank(), " (no '", key,
                       "'): has it created a worker of that name, and is it alive?"));
    }
  }
}

absl::Status Connector::Interrupted() const {
  if (stopping_) return absl::CancelledError("the worker is going away");
  return bootstrap_.failed() ? bootstrap_.failure() : absl::OkStatus();
}

std::string Connector::Key(int from, int to, const char* what) const {
  return absl::StrCat("worker/", host_.worker->options().name, "/", from, "/", to, "/", what);
}

AddressRecord Connector::OwnRecord(int peer, const Handshake& handshake) {
  const WorkerOptions& options = host_.worker->options();
  AddressRecord record;
  record.qpn = handshake.endpoint->qpn();
  record.psn = handshake.psn;
  record.gid = path_.gid.gid;
  record.mtu_bytes = *options.path_mtu_bytes;
  record.read_depth = path_.connection.max_rd_atomic;
  record.receive_depth = options.receive_depth;
  record.eager_bytes_max = options.eager_bytes_max;
  record.host = host_name_;
  record.pid = getpid();
  SetupFor(peer).Announce(peer, record);
  return record;
}

}  // namespace sumac::transport
