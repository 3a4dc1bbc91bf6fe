// Signals: counters that peers raise with a put.

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"

#include "runtime/domain/impl.h"

namespace sumac::runtime {

absl::Status Domain::Impl::CheckRaise(const Signal& signal, uint16_t increment) const {
  if (signal.rank < 0 || signal.rank >= size() || signal.id >= kSignalsMax) {
    return absl::InvalidArgumentError(absl::StrCat("no signal ", signal.id, " of rank ",
                                                   signal.rank, " can be in a job of ", size()));
  }
  if (increment == 0) return absl::InvalidArgumentError("a signal is raised by 1 ... 65535");
  return absl::OkStatus();
}

absl::StatusOr<uint32_t> Domain::SignalRoom(int rank) {
  if (rank == impl_->rank()) return std::numeric_limits<uint32_t>::max();
  const auto peer = impl_->Reach(rank);
  if (!peer.ok()) return peer.status();
  const transport::Endpoint& endpoint = *(*peer)->endpoint;
  if (absl::Status broken = endpoint.status(); !broken.ok()) return broken;
  return std::min(endpoint.room(), endpoint.immediate_room());
}

absl::StatusOr<Signal> Domain::CreateSignal() {
  const auto id = impl_->signals.Create();
  if (!id.ok()) return id.status();
  return Signal{.rank = impl_->rank(), .id = *id};
}

uint64_t Domain::SignalValue(const Signal& signal, int from_rank) const {
  return signal.rank == impl_->rank() ? impl_->signals.Value(signal.id, from_rank) : 0;
}

uint64_t Domain::dropped_signals() const { return impl_->signals.dropped(); }

absl::Status Domain::WaitSignal(const Signal& signal, int from_rank, uint64_t at_least,
                                absl::Time deadline) {
  Impl& d = *impl_;
  if (signal.rank != d.rank() || !d.signals.Has(signal.id, from_rank)) {
    return absl::InvalidArgumentError(absl::StrCat("rank ", d.rank(), " can't wait for signal ",
                                                   signal.id, " of rank ", signal.rank,
                                                   " to be raised by rank ", from_rank));
  }
  const auto value = [&] { return d.signals.Value(signal.id, from_rank); };
  if (value() >= at_least) return absl::OkStatus();
  // Whoever raises it is connected to us; when that connection breaks, nobody will.
  const auto broken = [&] {
    const transport::Endpoint* endpoint =
        from_rank == d.rank() ? nullptr : d.worker->Find(from_rank);
    return endpoint == nullptr ? absl::OkStatus() : endpoint->status();
  };
  absl::Status waited =
      d.worker->Wait([&] { return value() >= at_least || !broken().ok(); }, deadline);
  if (value() >= at_least) return absl::OkStatus();
  if (waited.ok()) waited = broken();
  return Annotate(waited,
                  absl::StrCat("signal ", signal.id, " of rank ", signal.rank, " waits for rank ",
                               from_rank, " to raise it to ", at_least, "; it is at ", value()));
}

}  // namespace sumac::runtime
