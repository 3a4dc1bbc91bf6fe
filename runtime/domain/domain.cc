#include "runtime/domain.h"

#include <atomic>
#include <random>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"

#include "runtime/domain/impl.h"

namespace sumac::runtime {
namespace {

std::string IdentityKey(absl::string_view domain, int rank) {
  return absl::StrCat("runtime/domain/", domain, "/", rank);
}

uint64_t DrawEpoch() {
  std::random_device random;
  const uint64_t high = random();
  return (high << 32 | random()) | 1;
}

uint32_t NextDomainNumber() {
  static std::atomic<uint32_t> next{0};
  return next.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace

absl::Status Annotate(const absl::Status& status, absl::string_view what) {
  absl::Status out(status.code(), absl::StrCat(what, ": ", status.message()));
  status.ForEachPayload(
      [&out](absl::string_view url, const absl::Cord& payload) { out.SetPayload(url, payload); });
  return out;
}

Domain::Impl::Impl(std::unique_ptr<transport::Worker> the_worker, const DomainOptions& the_options)
    : options(the_options),
      rank_(the_worker->bootstrap().rank()),
      identity{.node_epoch = DrawEpoch(), .domain = NextDomainNumber()},
      signals(the_worker->bootstrap().size()),
      peers(static_cast<size_t>(the_worker->bootstrap().size())),
      atomic_results(peers.size()),
      worker(std::move(the_worker)) {}

absl::Status Domain::Impl::Start() {
  auto results = worker->Register(atomic_results.data(), atomic_results.size() * sizeof(uint64_t),
                                  transport::kRemoteNone);
  if (!results.ok()) return results.status();
  atomic_results_registration = *std::move(results);
  worker->SetImmediateHandler(
      [this](int from, uint32_t immediate) { signals.Raise(from, immediate); });
  absl::Status published = worker->bootstrap().Publish(IdentityKey(options.name, rank_),
                                                       identity.Serialize(), options.timeout);
  if (absl::IsAlreadyExists(published)) {
    return absl::AlreadyExistsError(absl::StrCat("this rank had a domain named \"", options.name,
                                                 "\" before: each name once a job"));
  }
  return published;
}

absl::StatusOr<Domain::Impl::Peer*> Domain::Impl::Connect(int peer_rank) {
  if (peer_rank < 0 || peer_rank >= size()) {
    return absl::InvalidArgumentError(absl::StrCat("rank ", peer_rank, " in a job of ", size()));
  }
  if (peer_rank == rank_) {
    return absl::InternalError("operations on the own rank need no connection");
  }
  const absl::Time deadline = Deadline();
  Peer& peer = peers[static_cast<size_t>(peer_rank)];
  const auto found =
      worker->bootstrap().Lookup(IdentityKey(options.name, peer_rank), options.timeout);
  if (!found.ok()) {
    return Annotate(found.status(),
                    absl::StrCat("domain \"", options.name, "\" of rank ", peer_rank));
  }
  auto parsed = DomainIdentity::Parse(*found);
  if (!parsed.ok()) return parsed.status();
  auto endpoint = worker->Connect(peer_rank, deadline);
  if (!endpoint.ok()) return endpoint.status();
  peer.identity = *parsed;
  peer.endpoint = *endpoint;
  return &peer;
}

absl::StatusOr<std::unique_ptr<Domain>> Domain::Adopt(std::unique_ptr<transport::Worker> worker,
                                                      const DomainOptions& options) {
  auto impl = std::make_shared<Impl>(std::move(worker), options);
  if (absl::Status started = impl->Start(); !started.ok()) {
    return Annotate(started, absl::StrCat("domain \"", options.name, "\""));
  }
  return std::unique_ptr<Domain>(new Domain(std::move(impl)));
}

Domain::Domain(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
Domain::~Domain() = default;

int Domain::rank() const { return impl_->rank(); }
int Domain::size() const { return impl_->size(); }
const std::string& Domain::device_name() const { return impl_->worker->device_name(); }
transport::Worker& Domain::worker() { return *impl_->worker; }

bool Domain::Done(int rank, transport::Ticket ticket) const {
  if (rank == impl_->rank()) return ticket <= impl_->own_ticket;
  if (rank < 0 || rank >= impl_->size()) return false;
  const transport::Endpoint* endpoint = impl_->peers[static_cast<size_t>(rank)].endpoint;
  return endpoint != nullptr && endpoint->Done(ticket);
}

absl::Status Domain::Flush(int rank) {
  if (rank < 0 || rank >= impl_->size()) {
    return absl::InvalidArgumentError(absl::StrCat("rank ", rank, " in a job of ", impl_->size()));
  }
  transport::Endpoint* endpoint = impl_->peers[static_cast<size_t>(rank)].endpoint;
  if (endpoint == nullptr) return absl::OkStatus();  // nothing was posted
  // On one host a put is complete at the first look; a clock would take a fifth of its time.
  impl_->worker->Progress();
  if (endpoint->Done(endpoint->last_ticket())) return absl::OkStatus();
  return endpoint->Flush(impl_->Deadline());
}

absl::Status Domain::Flush() {
  const absl::Time deadline = impl_->Deadline();
  for (const Impl::Peer& peer : impl_->peers) {
    if (peer.endpoint == nullptr) continue;
    if (absl::Status flushed = peer.endpoint->Flush(deadline); !flushed.ok()) return flushed;
  }
  return absl::OkStatus();
}

int Domain::Progress() { return impl_->worker->Progress(); }

absl::Status Domain::Wait(absl::FunctionRef<bool()> done, absl::Time deadline) {
  return impl_->worker->Wait(done, deadline);
}

}  // namespace sumac::runtime
