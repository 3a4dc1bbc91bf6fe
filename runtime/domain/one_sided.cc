// Put, get and atomics on peers: check, reach, wait for room, post.

#include <utility>

#include "absl/strings/str_cat.h"

#include "runtime/domain/impl.h"
#include "runtime/domain/parts.h"

namespace sumac::runtime {

using transport::Endpoint;
using transport::RemoteSlice;
using transport::Ticket;

namespace {

// Posts once there is room. The endpoint may find less room than it said (posts and credits are
// counted apart), so ask again then.
template <typename Post>
absl::StatusOr<Ticket> PostWhenRoom(Domain::Impl& domain, Endpoint& endpoint, bool with_immediate,
                                    Post post) {
  for (;;) {
    if (absl::Status room = domain.WaitForRoom(endpoint, with_immediate); !room.ok()) return room;
    absl::StatusOr<Ticket> posted = post();
    if (posted.ok() || !absl::IsResourceExhausted(posted.status())) return posted;
    domain.worker->Progress();
  }
}

absl::StatusOr<Ticket> Named(absl::StatusOr<Ticket> posted, const char* what, size_t bytes,
                             int rank) {
  if (posted.ok()) return posted;
  return Annotate(posted.status(), absl::StrCat(what, " of ", bytes, " bytes, rank ", rank));
}

RemoteSlice At(const Capability& target, uint64_t offset) {
  return {target.base + offset, target.rkey};
}

absl::Status CheckTransfer(const Capability& target, uint32_t right, uint64_t offset,
                           const LocalSlice& local, int ranks) {
  if (absl::Status slice = CheckSlice(local); !slice.ok()) return slice;
  return CheckAccess(target, right, offset, local.length, ranks);
}

absl::Status CheckAtomic(const Capability& target, uint64_t offset, int ranks) {
  if (absl::Status access = CheckAccess(target, kRightAtomic, offset, 8, ranks); !access.ok()) {
    return access;
  }
  return CheckAligned(target, offset);
}

// Posts an atomic and waits for the old value.
template <typename Post>
absl::StatusOr<uint64_t> RunAtomic(Domain::Impl& domain, const Capability& target, const char* what,
                                   Post post) {
  const auto endpoint = domain.Reach(target);
  if (!endpoint.ok()) return endpoint.status();
  uint64_t& result = domain.atomic_results[static_cast<size_t>(target.rank)];
  const LocalSlice into{&result, sizeof(result), domain.atomic_results_registration->lkey()};
  const auto ticket = Named(PostWhenRoom(domain, **endpoint, /*with_immediate=*/false,
                                         [&] { return post(**endpoint, into); }),
                            what, sizeof(result), target.rank);
  if (!ticket.ok()) return ticket.status();
  if (absl::Status done = (*endpoint)->Wait(*ticket, domain.Deadline()); !done.ok()) {
    return Annotate(done, absl::StrCat(what, ", rank ", target.rank));
  }
  return result;
}

}  // namespace

absl::StatusOr<Endpoint*> Domain::Impl::Reach(const Capability& target) {
  const auto peer = Reach(target.rank);
  if (!peer.ok()) return peer.status();
  if (absl::Status same = CheckIdentity(target, (*peer)->identity); !same.ok()) return same;
  return (*peer)->endpoint;
}

absl::Status Domain::Impl::WaitForRoom(Endpoint& endpoint, bool with_immediate) {
  const auto has_room = [&] {
    return endpoint.room() > 0 && (!with_immediate || endpoint.immediate_room() > 0);
  };
  if (has_room()) return absl::OkStatus();
  absl::Status waited =
      worker->Wait([&] { return has_room() || !endpoint.status().ok(); }, Deadline());
  if (absl::Status broken = endpoint.status(); !broken.ok()) return broken;
  if (waited.ok()) return waited;
  return Annotate(waited, with_immediate && endpoint.room() > 0
                              ? "the peer takes no more signals: it has not called Progress or Wait"
                              : "the send queue stays full");
}

absl::StatusOr<Ticket> Domain::Put(const Capability& target, uint64_t offset,
                                   const LocalSlice& source) {
  Impl& d = *impl_;
  if (absl::Status ok = CheckTransfer(target, kRightPut, offset, source, d.size()); !ok.ok()) {
    return ok;
  }
  if (target.rank == d.rank()) return d.PutToSelf(target, offset, source);
  const auto endpoint = d.Reach(target);
  if (!endpoint.ok()) return endpoint.status();
  Endpoint& peer = **endpoint;
  return Named(InParts(source, At(target, offset),
                       [&](const LocalSlice& part, const RemoteSlice& where, bool /*last*/) {
                         return PostWhenRoom(d, peer, /*with_immediate=*/false,
                                             [&] { return peer.Write(part, where); });
                       }),
               "put", source.length, target.rank);
}

absl::StatusOr<Ticket> Domain::Get(const Capability& target, uint64_t offset,
                                   const LocalSlice& into) {
  Impl& d = *impl_;
  if (absl::Status ok = CheckTransfer(target, kRightGet, offset, into, d.size()); !ok.ok()) {
    return ok;
  }
  if (target.rank == d.rank()) return d.GetFromSelf(target, offset, into);
  const auto endpoint = d.Reach(target);
  if (!endpoint.ok()) return endpoint.status();
  Endpoint& peer = **endpoint;
  return Named(InParts(into, At(target, offset),
                       [&](const LocalSlice& part, const RemoteSlice& where, bool /*last*/) {
                         return PostWhenRoom(d, peer, /*with_immediate=*/false,
                                             [&] { return peer.Read(part, where); });
                       }),
               "get", into.length, target.rank);
}

absl::StatusOr<Ticket> Domain::PutWithSignal(const Capability& target, uint64_t offset,
                                             const LocalSlice& source, const Signal& signal,
                                             uint16_t increment) {
  Impl& d = *impl_;
  if (absl::Status ok = CheckTransfer(target, kRightPut, offset, source, d.size()); !ok.ok()) {
    return ok;
  }
  if (signal.rank != target.rank) {
    return absl::InvalidArgumentError(absl::StrCat("bytes for rank ", target.rank,
                                                   " can't raise a signal of rank ", signal.rank));
  }
  if (absl::Status ok = d.CheckRaise(signal, increment); !ok.ok()) return ok;
  if (target.rank == d.rank()) {
    auto put = d.PutToSelf(target, offset, source);
    if (put.ok()) d.signals.Raise(d.rank(), EncodeRaise(signal.id, increment));
    return put;
  }
  const auto endpoint = d.Reach(target);
  if (!endpoint.ok()) return endpoint.status();
  Endpoint& peer = **endpoint;
  const uint32_t immediate = EncodeRaise(signal.id, increment);
  return Named(InParts(source, At(target, offset),
                       [&](const LocalSlice& part, const RemoteSlice& where, bool last) {
                         return PostWhenRoom(d, peer, last, [&] {
                           return last ? peer.WriteWithImmediate(part, where, immediate)
                                       : peer.Write(part, where);
                         });
                       }),
               "put with signal", source.length, target.rank);
}

absl::StatusOr<Ticket> Domain::RaiseSignal(const Signal& signal, uint16_t increment) {
  Impl& d = *impl_;
  if (absl::Status ok = d.CheckRaise(signal, increment); !ok.ok()) return ok;
  if (signal.rank == d.rank()) {
    d.signals.Raise(d.rank(), EncodeRaise(signal.id, increment));
    return ++d.own_ticket;
  }
  const auto reached = d.Reach(signal.rank);
  if (!reached.ok()) return reached.status();
  Endpoint& peer = *(*reached)->endpoint;
  // A write of no bytes: no key is looked at (IBTA C9-88).
  return Named(
      PostWhenRoom(
          d, peer, /*with_immediate=*/true,
          [&] { return peer.WriteWithImmediate({}, {}, EncodeRaise(signal.id, increment)); }),
      "signal", 0, signal.rank);
}

absl::StatusOr<uint64_t> Domain::FetchAdd(const Capability& target, uint64_t offset, uint64_t add) {
  Impl& d = *impl_;
  if (absl::Status ok = CheckAtomic(target, offset, d.size()); !ok.ok()) return ok;
  if (target.rank == d.rank()) return d.FetchAddOnSelf(target, offset, add);
  return RunAtomic(d, target, "fetch-add", [&](Endpoint& peer, const LocalSlice& into) {
    return peer.FetchAdd(into, At(target, offset), add);
  });
}

absl::StatusOr<uint64_t> Domain::CompareSwap(const Capability& target, uint64_t offset,
                                             uint64_t expected, uint64_t desired) {
  Impl& d = *impl_;
  if (absl::Status ok = CheckAtomic(target, offset, d.size()); !ok.ok()) return ok;
  if (target.rank == d.rank()) return d.CompareSwapOnSelf(target, offset, expected, desired);
  return RunAtomic(d, target, "compare-swap", [&](Endpoint& peer, const LocalSlice& into) {
    return peer.CompareSwap(into, At(target, offset), expected, desired);
  });
}

}  // namespace sumac::runtime
