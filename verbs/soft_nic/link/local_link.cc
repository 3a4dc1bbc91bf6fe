#include "verbs/soft_nic/link/local_link.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <chrono>
#include <stdexcept>

#include "absl/strings/str_cat.h"

#include "verbs/soft_nic/link/address.h"

namespace sumac::soft_nic {
namespace {

// A system call that finds nothing costs more than a look at all the rings: while neighbours are
// there, the network waits for its turn a little.
constexpr std::chrono::nanoseconds kNetworkInterval = std::chrono::microseconds(2);

SharedPages CreateSleepPages() {
  auto pages = SharedPages::Create("sumac-sleep", SleepFlag::kBytes);
  if (!pages.ok()) throw std::runtime_error(std::string(pages.status().message()));
  return *std::move(pages);
}

UniqueFd OrThrow(int fd, const char* what) {
  if (fd < 0) throw std::runtime_error(absl::StrCat("soft NIC: ", what));
  return UniqueFd(fd);
}

void Watch(int set, int fd) {
  epoll_event event{};
  event.events = EPOLLIN;
  if (::epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) != 0) {
    throw std::runtime_error("soft NIC: epoll_ctl");
  }
}

int64_t Now() { return std::chrono::steady_clock::now().time_since_epoch().count(); }

}  // namespace

// One neighbour, in use.
struct LocalLink::Lane {
  explicit Lane(Neighbour given)
      : neighbour(std::move(given)),
        writer(neighbour.outgoing.bytes()),
        reader(neighbour.incoming.bytes()),
        sleep(neighbour.sleep.bytes(), neighbour.event.get()) {}
  bool Is(const Gid& gid, uint32_t qpn) const {
    return qpn - neighbour.first_qpn < neighbour.qpn_count && neighbour.gid == gid;
  }

  Neighbour neighbour;
  PacketRingWriter writer;
  PacketRingReader reader;
  SleepFlag sleep;
  bool written = false;           // since the last Flush
  std::atomic<bool> gone{false};  // set by the control thread
};

LocalLink::LocalLink(std::unique_ptr<Link> network)
    : network_(std::move(network)),
      sleep_pages_(CreateSleepPages()),
      event_(OrThrow(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), "eventfd")),
      poll_(OrThrow(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1")),
      sleep_(sleep_pages_.bytes(), event_.get()) {
  Watch(poll_.get(), event_.get());
  Watch(poll_.get(), network_->poll_fd());
}

LocalLink::~LocalLink() {
  // Its open file may be other processes' as well: it would stay in the set.
  ::epoll_ctl(poll_.get(), EPOLL_CTL_DEL, network_->poll_fd(), nullptr);
  for (std::atomic<Lane*>& lane : lanes_) delete lane.load();
}

absl::Status LocalLink::AddNeighbour(Neighbour neighbour) {
  const bool usable = PacketRing::Fits(neighbour.outgoing.bytes()) &&
                      PacketRing::Fits(neighbour.incoming.bytes()) &&
                      neighbour.sleep.bytes().size() >= SleepFlag::kBytes &&
                      neighbour.event.valid() && neighbour.qpn_count != 0;
  if (!usable) return absl::InvalidArgumentError("a neighbour with memory of another shape");
  RemoveNeighbour(neighbour.gid, neighbour.first_qpn);
  auto lane = std::make_unique<Lane>(std::move(neighbour));
  for (size_t i = 0; i < lanes_.size(); ++i) {
    Lane* free = nullptr;
    if (!lanes_[i].compare_exchange_strong(free, lane.get(), std::memory_order_release)) continue;
    lane.release();  // NOLINT(bugprone-unused-return-value): lanes_ has it
    if (i >= lane_count_.load()) lane_count_.store(i + 1);
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("more than ", kNeighboursMax, " processes of this host"));
}

void LocalLink::RemoveNeighbour(const Gid& gid, uint32_t first_qpn) {
  for (std::atomic<Lane*>& slot : lanes_) {
    Lane* const lane = slot.load(std::memory_order_acquire);
    if (lane != nullptr && lane->Is(gid, first_qpn)) lane->gone.store(true);
  }
}

LocalLink::Lane* LocalLink::LaneTo(const Gid& gid, uint32_t qpn) {
  if (last_ != nullptr && last_->Is(gid, qpn)) return last_;
  for (size_t i = 0; i < lane_count_.load(std::memory_order_relaxed); ++i) {
    Lane* const lane = lanes_[i].load(std::memory_order_acquire);
    if (lane != nullptr && lane->Is(gid, qpn) && !lane->gone.load(std::memory_order_relaxed)) {
      last_ = lane;
      return lane;
    }
  }
  return nullptr;
}

bool LocalLink::Transmit(const OutgoingPacket& packet) {
  Lane* const lane = LaneTo(packet.path->destination, packet.header.dest_qpn);
  if (lane == nullptr) return network_->Transmit(packet);
  // A full ring must not hold up what goes to others, and its reader may have stopped: so it loses
  // the packet.
  if (!lane->writer.Write(packet)) {
    ++counters_.send_errors;
    lane->sleep.WakeIfAsleep();
    return true;
  }
  lane->written = true;
  ++counters_.packets_sent;
  counters_.bytes_sent += lane->writer.last_bytes();
  return true;
}

void LocalLink::Flush() {
  for (size_t i = 0; i < lane_count_.load(std::memory_order_relaxed); ++i) {
    Lane* const lane = lanes_[i].load(std::memory_order_acquire);
    if (lane == nullptr || !lane->written) continue;
    lane->written = false;
    lane->sleep.WakeIfAsleep();
  }
  network_->Flush();
}

size_t LocalLink::ReceiveFrom(Lane& lane, PacketHandler& handler, size_t budget) {
  size_t taken = 0;
  for (; taken < budget; ++taken) {
    const std::span<const std::byte> bytes = lane.reader.Front();
    if (bytes.empty()) break;
    PacketView view;
    if (Decode(bytes, &view) != DecodeError::kNone) {
      ++counters_.dropped_malformed;
    } else if (view.header.dest_qpn - first_qpn() >= qpn_count()) {
      ++counters_.dropped_wrong_qpn;
    } else {
      ++counters_.packets_received;
      counters_.bytes_received += bytes.size();
      handler.OnPacket(lane.neighbour.gid, view);
    }
    lane.reader.Pop();
  }
  return taken;
}

// What the neighbour left behind has been received when this is called.
void LocalLink::Retire(size_t index) {
  Lane* const lane = lanes_[index].exchange(nullptr);
  if (last_ == lane) last_ = nullptr;
  delete lane;
}

bool LocalLink::NetworkIsDue() {
  if (slept_.exchange(false, std::memory_order_relaxed)) return true;
  const int64_t now = Now();
  if (now - network_polled_ < kNetworkInterval.count()) return false;
  network_polled_ = now;
  return true;
}

size_t LocalLink::Receive(PacketHandler& handler, size_t budget) {
  const size_t count = lane_count_.load(std::memory_order_relaxed);
  if (count == 0) return network_->Receive(handler, budget);
  sleep_.Clear();
  size_t taken = 0;
  const size_t first = next_++;
  for (size_t i = 0; i < count; ++i) {
    const size_t index = (first + i) % count;
    Lane* const lane = lanes_[index].load(std::memory_order_acquire);
    if (lane == nullptr) continue;
    const bool gone = lane->gone.load(std::memory_order_acquire);
    if (taken < budget) taken += ReceiveFrom(*lane, handler, budget - taken);
    if (lane->reader.broken() || (gone && lane->reader.Front().empty())) Retire(index);
  }
  if (NetworkIsDue() && taken < budget) taken += network_->Receive(handler, budget - taken);
  // What is left makes no descriptor readable: whoever of us is about to sleep must look again.
  if (taken >= budget) sleep_.WakeIfAsleep();
  return taken;
}

bool LocalLink::AnnounceSleep() {
  slept_.store(true, std::memory_order_relaxed);
  sleep_.Announce();
  return lane_count_.load(std::memory_order_relaxed) != 0;
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
