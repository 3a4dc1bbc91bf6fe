#include "verbs/soft_nic/link/neighbours.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

#include "verbs/soft_nic/link/abstract_socket.h"
#include "verbs/soft_nic/link/packet_ring.h"
#include "verbs/soft_nic/link/sleep_flag.h"

namespace sumac::soft_nic {
namespace {

constexpr uint64_t kListener = 0;
constexpr uint64_t kWantEvent = 1;
constexpr size_t kConnectionsMax = 2 * UdpPortShareOptions::kSlotsMax;
// Several windows of CongestionOptions, and still in a cache of the second level.
constexpr size_t kRingBytes = kPacketRingLine + (size_t{512} << 10);
constexpr char kMagic[16] = "sumac-neighbr-1";  // says the shape of all that is shared, too

}  // namespace

// The one message of a connection. With it come the sleep flag and its event; from the lower slot
// before these the rings, its own to write first.
struct Neighbours::Hello {
  char magic[sizeof(kMagic)] = {};
  uint32_t slot = 0;
};

struct Neighbours::Connection {
  UniqueFd fd;
  uint64_t id = 0;
  std::optional<uint32_t> slot;  // the other's: whom we called, or what it said
  SharedPages outgoing;          // rings that we made
  SharedPages incoming;
  bool said = false;
  bool met = false;  // a neighbour by this connection
};

absl::StatusOr<std::unique_ptr<Neighbours>> Neighbours::Create(const Self& self,
                                                               NeighbourSink& sink) {
  std::unique_ptr<Neighbours> made(new Neighbours(self, sink));
  made->epoll_ = UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
  made->want_event_ = UniqueFd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!made->epoll_.valid() || !made->want_event_.valid()) {
    return absl::ErrnoToStatus(errno, "descriptors for neighbours");
  }
  auto listener = ListenOnName(made->NameOf(self.slot));
  if (!listener.ok()) return listener.status();
  made->listener_ = *std::move(listener);
  for (const auto& [fd, what] : {std::pair(made->listener_.get(), kListener),
                                 std::pair(made->want_event_.get(), kWantEvent)}) {
    if (auto watched = made->Watch(fd, what); !watched.ok()) return watched;
  }
  return made;
}

Neighbours::Neighbours(const Self& self, NeighbourSink& sink) : self_(self), sink_(sink) {}

Neighbours::~Neighbours() = default;

std::string Neighbours::NameOf(uint32_t slot) const {
  return absl::StrCat(self_.names, "neighbour/", slot);
}

absl::Status Neighbours::Watch(int fd, uint64_t what) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = what;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, "epoll_ctl");
}

void Neighbours::Want(uint32_t slot) {
  wanted_.fetch_or(uint64_t{1} << slot, std::memory_order_release);
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(want_event_.get(), &one, sizeof(one));
}

void Neighbours::OnReadable() {
  std::array<epoll_event, 16> events{};
  const int ready = ::epoll_wait(epoll_.get(), events.data(), events.size(), 0);
  for (int i = 0; i < ready; ++i) {
    const uint64_t what = events[static_cast<size_t>(i)].data.u64;
    if (what == kListener) {
      Accept();
    } else if (what == kWantEvent) {
      uint64_t count = 0;
      [[maybe_unused]] const ssize_t got = ::read(want_event_.get(), &count, sizeof(count));
      uint64_t slots = wanted_.exchange(0, std::memory_order_acquire);
      for (; slots != 0; slots &= slots - 1)
        Connect(static_cast<uint32_t>(std::countr_zero(slots)));
    } else {
      Serve(what);
    }
  }
}

bool Neighbours::IsAlive(const Connection& connection) const {
  pollfd polled{connection.fd.get(), POLLRDHUP, 0};
  return ::poll(&polled, 1, 0) == 0;
}

void Neighbours::Accept() {
  for (;;) {
    UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd.valid()) return;
    Start(std::move(fd), std::nullopt);
  }
}

void Neighbours::Connect(uint32_t slot) {
  if (slot == self_.slot) return;
  for (size_t i = connections_.size(); i-- > 0;) {
    const Connection& connection = *connections_[i];
    if (connection.slot != slot) continue;
    if (IsAlive(connection)) return;
    End(connection.id);  // its process went, and this is another
  }
  UniqueFd fd = ConnectToName(NameOf(slot));
  if (fd.valid()) Start(std::move(fd), slot);
}

void Neighbours::Start(UniqueFd fd, std::optional<uint32_t> slot) {
  const auto peer = CredentialsOfPeer(fd.get());
  if (!peer.ok() || peer->uid != ::geteuid() || connections_.size() >= kConnectionsMax) return;
  auto connection = std::make_unique<Connection>();
  connection->fd = std::move(fd);
  connection->id = next_id_++;
  connection->slot = slot;
  if (slot.has_value() && !SaySomething(*connection)) return;
  if (!Watch(connection->fd.get(), connection->id).ok()) return;
  connections_.push_back(std::move(connection));
}

// Our message; the slot of the other is known.
bool Neighbours::SaySomething(Connection& connection) {
  if (connection.said) return true;
  std::vector<int> fds;
  if (self_.slot < *connection.slot) {
    auto outgoing = SharedPages::Create("sumac-ring", kRingBytes);
    auto incoming = SharedPages::Create("sumac-ring", kRingBytes);
    if (!outgoing.ok() || !incoming.ok()) return false;
    connection.outgoing = *std::move(outgoing);
    connection.incoming = *std::move(incoming);
    fds = {connection.outgoing.fd(), connection.incoming.fd()};
  }
  fds.push_back(self_.sleep_memory);
  fds.push_back(self_.sleep_event);
  Hello hello;
  std::memcpy(hello.magic, kMagic, sizeof(kMagic));
  hello.slot = self_.slot;
  connection.said = SendDescriptors(connection.fd.get(), &hello, sizeof(hello), fds);
  return connection.said;
}

void Neighbours::Serve(uint64_t id) {
  const auto found = std::find_if(connections_.begin(), connections_.end(),
                                  [id](const auto& connection) { return connection->id == id; });
  if (found == connections_.end()) return;  // ended by an event before this one
  if (!Listen(**found)) End(id);
}

// False: the connection is of no more use.
bool Neighbours::Listen(Connection& connection) {
  Hello hello;
  auto fds = ReceiveDescriptors(connection.fd.get(), &hello, sizeof(hello));
  if (absl::IsUnavailable(fds.status())) return true;
  // A second message, or the end of the connection, which reads as an empty one.
  if (!fds.ok() || connection.met) return false;
  const uint32_t slot = hello.slot;
  if (std::memcmp(hello.magic, kMagic, sizeof(kMagic)) != 0 || slot == self_.slot ||
      slot >= UdpPortShareOptions::kSlotsMax || connection.slot.value_or(slot) != slot) {
    return false;
  }
  connection.slot = slot;
  return Settle(connection, slot) && SaySomething(connection) && Meet(connection, *std::move(fds));
}

// Of several connections to one slot one remains.
bool Neighbours::Settle(Connection& connection, uint32_t slot) {
  for (size_t i = connections_.size(); i-- > 0;) {
    const Connection& other = *connections_[i];
    if (&other == &connection || other.slot != slot) continue;
    if (self_.slot < slot && IsAlive(other)) return false;
    // The lower slot has chosen, by its message on this one; or the other's process went.
    if (self_.slot < slot || other.met) End(other.id);
  }
  return true;
}

bool Neighbours::Meet(Connection& connection, std::vector<UniqueFd> fds) {
  const bool makes_rings = self_.slot < *connection.slot;
  if (fds.size() != (makes_rings ? 2 : 4)) return false;
  Neighbour neighbour;
  neighbour.event = std::move(fds.back());
  fds.pop_back();
  std::vector<SharedPages> pages;
  for (UniqueFd& fd : fds) {
    auto mapped = SharedPages::Map(std::move(fd));
    if (!mapped.ok()) return false;
    pages.push_back(*std::move(mapped));
  }
  neighbour.sleep = std::move(pages.back());
  neighbour.outgoing = makes_rings ? std::move(connection.outgoing) : std::move(pages[1]);
  neighbour.incoming = makes_rings ? std::move(connection.incoming) : std::move(pages[0]);
  if (!PacketRing::Fits(neighbour.outgoing.bytes()) ||
      !PacketRing::Fits(neighbour.incoming.bytes()) ||
      neighbour.sleep.bytes().size() < SleepFlag::kBytes) {
    return false;
  }
  connection.met = true;
  sink_.SetNeighbour(*connection.slot, std::move(neighbour));
  return true;
}

void Neighbours::End(uint64_t id) {
  const auto found = std::find_if(connections_.begin(), connections_.end(),
                                  [id](const auto& connection) { return connection->id == id; });
  if (found == connections_.end()) return;
  const std::unique_ptr<Connection> ended = std::move(*found);
  connections_.erase(found);
  if (ended->met) sink_.SetNeighbour(*ended->slot, std::nullopt);
}

}  // namespace sumac::soft_nic
