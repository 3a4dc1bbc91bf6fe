#include "verbs/soft_nic/link/local_link.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <bit>
#include <cerrno>
#include <chrono>
#include <utility>

namespace sumac::soft_nic {
namespace {

constexpr uint32_t kQpns = 1u << 24;

// A system call that finds nothing costs more than a look at all the rings: while neighbours are
// there, the network waits for its turn a little.
constexpr std::chrono::nanoseconds kNetworkInterval = std::chrono::microseconds(2);

bool Watch(int set, int fd) {
  epoll_event event{};
  event.events = EPOLLIN;
  return ::epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0;
}

int64_t Now() { return std::chrono::steady_clock::now().time_since_epoch().count(); }

// More than a socket's buffer holds.
constexpr size_t kDrainBudget = 256;
constexpr int kDrainTurnsMax = 1000;

constexpr uint64_t Bit(uint32_t slot) { return uint64_t{1} << slot; }

}  // namespace

// One neighbour, in use.
struct LocalLink::Lane {
  Lane(uint32_t of, Neighbour given)
      : slot(of),
        neighbour(std::move(given)),
        writer(neighbour.outgoing.bytes()),
        reader(neighbour.incoming.bytes()),
        sleep_flag(neighbour.sleep.bytes(), neighbour.event.get()) {}

  const uint32_t slot;
  const Neighbour neighbour;
  PacketRingWriter writer;
  PacketRingReader reader;
  SleepFlag sleep_flag;
  bool used = false;   // written to; engine's owner
  bool heard = false;  // read from
  Lane* next_retired = nullptr;
};

LocalLink::LocalLink(std::unique_ptr<Link> network, uint32_t slots, SharedPages sleep_pages)
    : network_(std::move(network)),
      qpns_per_slot_(kQpns / slots),
      slot_(SlotOf(network_->first_qpn())),
      sleep_pages_(std::move(sleep_pages)),
      event_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
      poll_(::epoll_create1(EPOLL_CLOEXEC)),
      control_(::epoll_create1(EPOLL_CLOEXEC)),
      sleep_(sleep_pages_.bytes(), event_.get()) {}

absl::StatusOr<std::unique_ptr<LocalLink>> LocalLink::Create(std::unique_ptr<Link> network,
                                                             uint32_t slots, std::string names) {
  auto pages = SharedPages::Create("sumac-sleep", SleepFlag::kBytes);
  if (!pages.ok()) return pages.status();
  std::unique_ptr<LocalLink> link(new LocalLink(std::move(network), slots, *std::move(pages)));
  if (auto opened = link->Open(std::move(names)); !opened.ok()) return opened;
  return link;
}

absl::Status LocalLink::Open(std::string names) {
  auto neighbours = Neighbours::Create({std::move(names), slot_, sleep_pages_.fd(), event_.get()},
                                       /*sink=*/*this);
  if (!neighbours.ok()) return neighbours.status();
  neighbours_ = *std::move(neighbours);
  const bool watched =
      Watch(poll_.get(), event_.get()) && Watch(poll_.get(), network_->poll_fd()) &&
      Watch(control_.get(), neighbours_->fd()) &&
      (network_->control_fd() < 0 || Watch(control_.get(), network_->control_fd()));
  return watched ? absl::OkStatus() : absl::ErrnoToStatus(errno, "descriptors for neighbours");
}

LocalLink::~LocalLink() {
  // Their open files may be other processes' as well: they would stay in the sets.
  ::epoll_ctl(poll_.get(), EPOLL_CTL_DEL, network_->poll_fd(), nullptr);
  ::epoll_ctl(control_.get(), EPOLL_CTL_DEL, network_->control_fd(), nullptr);
  neighbours_.reset();
  for (std::atomic<Lane*>& lane : lanes_) delete lane.load();
  for (Lane* lane = retired_.load(); lane != nullptr;) {
    delete std::exchange(lane, lane->next_retired);
  }
}

void LocalLink::OnControlReadable() {
  network_->OnControlReadable();
  neighbours_->OnReadable();
}

void LocalLink::SetNeighbour(uint32_t slot, std::optional<Neighbour> neighbour) {
  Lane* const lane = neighbour ? new Lane(slot, *std::move(neighbour)) : nullptr;
  Lane* const before = lanes_[slot].exchange(lane, std::memory_order_acq_rel);
  if (before != nullptr) {
    before->next_retired = retired_.load(std::memory_order_relaxed);
    while (
        !retired_.compare_exchange_weak(before->next_retired, before, std::memory_order_release)) {
    }
  }
  if (lane != nullptr) {
    present_.fetch_or(Bit(slot));
  } else {
    present_.fetch_and(~Bit(slot));
  }
  sleep_.WakeIfAsleep();  // there may be something in its ring
}

size_t LocalLink::neighbour_count() const {
  return static_cast<size_t>(std::popcount(present_.load()));
}

LocalLink::Lane* LocalLink::LaneTo(const Gid& gid, uint32_t qpn) {
  if (gid != network_->local_gid()) return nullptr;
  const uint32_t slot = SlotOf(qpn);
  if (slot >= lanes_.size()) return nullptr;
  Lane* const lane = lanes_[slot].load(std::memory_order_acquire);
  if (lane == nullptr && (asked_ & Bit(slot)) == 0) {
    asked_ |= Bit(slot);
    neighbours_->Want(slot);
  }
  return lane;
}

bool LocalLink::Transmit(const OutgoingPacket& packet) {
  Lane* const lane = LaneTo(packet.path->destination, packet.header.dest_qpn);
  if (lane == nullptr) return network_->Transmit(packet);
  written_ |= Bit(lane->slot);
  // What went by the network before must not come after: so it leaves now, and the reader looks
  // there before it reads the ring for the first time.
  if (!std::exchange(lane->used, true)) network_->Flush();
  // A full ring must not hold up what goes to others, and its reader may have stopped: so it loses
  // the packet.
  if (!lane->writer.Write(packet)) {
    ++counters_.send_errors;
    return true;
  }
  ++counters_.packets_sent;
  counters_.bytes_sent += lane->writer.last_bytes();
  return true;
}

void LocalLink::Flush() {
  for (uint64_t left = std::exchange(written_, 0); left != 0; left &= left - 1) {
    Lane* const lane = lanes_[std::countr_zero(left)].load(std::memory_order_acquire);
    if (lane != nullptr) lane->sleep_flag.WakeIfAsleep();
  }
  network_->Flush();
}

// Loopback delivers before the sender's system call ends, so what came before is there.
size_t LocalLink::ReceiveWhatCameBefore(PacketHandler& handler) {
  size_t taken = 0;
  for (int turn = 0; turn < kDrainTurnsMax; ++turn) {
    const size_t now = network_->Receive(handler, kDrainBudget);
    taken += now;
    if (now < kDrainBudget) break;
  }
  return taken;
}

size_t LocalLink::ReceiveFrom(Lane& lane, PacketHandler& handler, size_t budget) {
  size_t taken = 0;
  for (; taken < budget; ++taken) {
    const std::span<const std::byte> bytes = lane.reader.Front();
    if (bytes.empty()) break;
    if (!std::exchange(lane.heard, true)) taken += ReceiveWhatCameBefore(handler);
    PacketView view;
    if (Decode(bytes, &view) != DecodeError::kNone) {
      ++counters_.dropped_malformed;
    } else if (view.header.dest_qpn - first_qpn() >= qpn_count()) {
      ++counters_.dropped_wrong_qpn;
    } else {
      ++counters_.packets_received;
      counters_.bytes_received += bytes.size();
      handler.OnPacket(network_->local_gid(), view);
    }
    lane.reader.Pop();
  }
  return taken;
}

// What a neighbour left behind counts: it was acknowledged to nobody, but it had arrived.
void LocalLink::FreeRetired(PacketHandler& handler) {
  if (retired_.load(std::memory_order_relaxed) == nullptr) return;
  for (Lane* lane = retired_.exchange(nullptr, std::memory_order_acquire); lane != nullptr;) {
    ReceiveFrom(*lane, handler, lane->neighbour.incoming.bytes().size() / kPacketRingLine);
    asked_ &= ~Bit(lane->slot);  // its slot may get another process
    delete std::exchange(lane, lane->next_retired);
  }
}

bool LocalLink::NetworkIsDue() {
  if (slept_.load(std::memory_order_relaxed) && slept_.exchange(false)) return true;
  const int64_t now = Now();
  if (now - network_polled_ < kNetworkInterval.count()) return false;
  network_polled_ = now;
  return true;
}

size_t LocalLink::Receive(PacketHandler& handler, size_t budget) {
  FreeRetired(handler);
  const uint64_t present = present_.load(std::memory_order_acquire);
  if (present == 0) return network_->Receive(handler, budget);
  sleep_.Clear();
  size_t taken = 0;
  // Each turn begins with another neighbour.
  const unsigned first = turn_++ % 64;
  for (uint64_t left = std::rotr(present, static_cast<int>(first)); left != 0; left &= left - 1) {
    if (taken >= budget) break;
    const unsigned slot = (static_cast<unsigned>(std::countr_zero(left)) + first) % 64;
    Lane* const lane = lanes_[slot].load(std::memory_order_acquire);
    if (lane == nullptr) continue;
    taken += ReceiveFrom(*lane, handler, budget - taken);
    if (lane->reader.broken()) present_.fetch_and(~Bit(slot));  // deaf to it, until it goes
  }
  if (taken < budget && NetworkIsDue()) taken += network_->Receive(handler, budget - taken);
  // What is left makes no descriptor readable: whoever of us is about to sleep must look again.
  if (taken >= budget) sleep_.WakeIfAsleep();
  return taken;
}

bool LocalLink::AnnounceSleep() {
  slept_.store(true, std::memory_order_relaxed);
  sleep_.Announce();
  return present_.load(std::memory_order_relaxed) != 0;
}

LinkCounters LocalLink::counters() const {
  LinkCounters sum = network_->counters();
  sum.packets_sent += counters_.packets_sent;
  sum.packets_received += counters_.packets_received;
  sum.bytes_sent += counters_.bytes_sent;
  sum.bytes_received += counters_.bytes_received;
  sum.dropped_malformed += counters_.dropped_malformed;
  sum.dropped_wrong_qpn += counters_.dropped_wrong_qpn;
  sum.send_errors += counters_.send_errors;
  return sum;
}

}  // namespace sumac::soft_nic
