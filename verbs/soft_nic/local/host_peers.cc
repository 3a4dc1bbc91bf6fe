#include "verbs/soft_nic/local/host_peers.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <vector>

#include "absl/strings/str_cat.h"

#include "verbs/log.h"
#include "verbs/soft_nic/link/abstract_socket.h"
#include "verbs/soft_nic/link/address.h"

namespace sumac::soft_nic {
namespace {

constexpr std::array<char, 8> kMagic{'s', 'u', 'm', 'a', 'c', 'l', 'o', 'c'};
constexpr char kSweep = 's';  // a host's message of one byte
constexpr uint64_t kListenerId = 0;
constexpr uint64_t kLifeBit = uint64_t{1} << 63;

// What a guest says first.
struct Question {
  std::array<char, 8> magic = kMagic;
  uint32_t version = 0;
  uint32_t unused = 0;
};

// What a host answers, with the descriptors of board and hazard page, in this order. More of them
// may follow in later versions.
struct AnswerMessage {
  std::array<char, 8> magic = kMagic;
  uint32_t version = 0;
  uint32_t unused = 0;
  Introduction introduction;
};

// A process of this user that can be named from here; a pidfd of it in `life`.
bool Identify(int connection, pid_t* pid, UniqueFd* life) {
  const auto peer = CredentialsOfPeer(connection);
  if (!peer.ok() || peer->uid != geteuid() || peer->pid <= 0) return false;
  *pid = peer->pid;
  *life = UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, peer->pid, 0)));
  return life->valid();
}

bool HasEnded(const UniqueFd& life) {
  pollfd ended{life.get(), POLLIN, 0};
  return poll(&ended, 1, 0) != 0;
}

// Ranges of QPNs are powers of two, but for numbers that nobody has at the start of the first.
uint64_t RangeOf(uint32_t qpn, uint32_t size) { return uint64_t{size} << 32 | (qpn & ~(size - 1)); }

std::string NameOf(const Gid& address, uint64_t range) {
  return absl::StrCat("sumac/soft-nic-local/", geteuid(), "/", ToString(address), "/",
                      static_cast<uint32_t>(range), "+", range >> 32);
}

constexpr uint32_t kRangeMin = 1u << 18;  // of 64 devices at one address
constexpr uint32_t kRangeMax = 1u << 24;

}  // namespace

absl::StatusOr<std::unique_ptr<HostPeers>> HostPeers::Create(const HostPeersOptions& options) {
  std::unique_ptr<HostPeers> peers(new HostPeers(options));
  peers->epoll_ = UniqueFd(epoll_create1(EPOLL_CLOEXEC));
  if (!peers->epoll_.valid()) return absl::ErrnoToStatus(errno, "epoll_create1");
  auto board = Board::Create();
  if (!board.ok()) return board.status();
  peers->board_ = *std::move(board);
  return peers;
}

// A descriptor that a child of this process inherited would stay watched when it is closed here.
void HostPeers::Unwatch(int fd) { epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr); }

void HostPeers::Watch(int fd, uint64_t id) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = id;
  epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event);
}

absl::Status HostPeers::Listen() {
  const uint32_t size = std::bit_ceil(options_.qpn_count);
  auto listener = ListenOnName(NameOf(options_.address, RangeOf(options_.first_qpn, size)));
  if (!listener.ok()) return listener.status();
  listener_ = *std::move(listener);
  Watch(listener_.get(), kListenerId);
  return absl::OkStatus();
}

void HostPeers::Close() {
  if (listener_.valid()) Unwatch(listener_.get());
  listener_.Reset();
  board_->WithdrawQueuePairs();
  while (!hosts_.empty()) DropHost(hosts_.begin()->first);
  while (!guests_.empty()) DropGuest(guests_.begin()->first);
}

void HostPeers::OnReadable() {
  std::array<epoll_event, 16> events{};
  const int ready = epoll_wait(epoll_.get(), events.data(), events.size(), 0);
  for (int i = 0; i < ready; ++i) {
    const uint64_t id = events[static_cast<size_t>(i)].data.u64;
    if (id == kListenerId) {
      Accept();
    } else if (const auto guest = guests_.find(id & ~kLifeBit); guest != guests_.end()) {
      if ((id & kLifeBit) != 0 || !Answer(guest->second)) DropGuest(guest->first);
    } else if (const auto host = hosts_.find(id & ~kLifeBit); host != hosts_.end()) {
      if ((id & kLifeBit) != 0 || !Hear(host->second)) DropHost(host->first);
    }
  }
}

void HostPeers::Accept() {
  for (;;) {
    Guest guest;
    guest.connection =
        UniqueFd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!guest.connection.valid()) return;
    pid_t pid = 0;
    const auto* const line = std::find(line_taken_.begin(), line_taken_.end(), false);
    if (line == line_taken_.end() || !Identify(guest.connection.get(), &pid, &guest.life)) continue;
    guest.line = static_cast<uint32_t>(line - line_taken_.begin());
    line_taken_[guest.line] = true;
    if (lines_used_.load() <= guest.line) lines_used_.store(guest.line + 1);
    const uint64_t id = ++last_id_;
    Watch(guest.connection.get(), id);
    Watch(guest.life.get(), id | kLifeBit);
    guests_.emplace(id, std::move(guest));
  }
}

// False: the connection is at its end.
bool HostPeers::Answer(Guest& guest) {
  Question question;
  const ssize_t got =
      recv(guest.connection.get(), &question, sizeof(question), MSG_DONTWAIT | MSG_TRUNC);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return true;
  if (got != static_cast<ssize_t>(sizeof(question)) || guest.answered || question.magic != kMagic ||
      question.version != options_.layout_version) {
    return false;
  }
  guest.answered = true;
  AnswerMessage answer;
  answer.version = options_.layout_version;
  answer.introduction = {.first_qpn = options_.first_qpn,
                         .line = guest.line,
                         .nonce = board_->nonce(),
                         .nonce_address = reinterpret_cast<uint64_t>(board_->nonce_address())};
  return SendDescriptors(guest.connection.get(), &answer, sizeof(answer),
                         {board_->board_fd(), board_->hazard_fd()});
}

void HostPeers::DropGuest(uint64_t id) {
  const auto found = guests_.find(id);
  // A process that closed its end uses nothing of ours: it stopped before it did. A killed one has
  // ended, or no memory of its own any more.
  board_->ClearLine(found->second.line);
  line_taken_[found->second.line] = false;
  Unwatch(found->second.connection.get());
  Unwatch(found->second.life.get());
  guests_.erase(found);
}

std::shared_ptr<RemoteProcess> HostPeers::Find(const Gid& address, uint32_t qpn) {
  if (!listener_.valid()) return nullptr;  // closed
  const uint32_t own_size = std::bit_ceil(options_.qpn_count);
  if (auto found = Ask({address, RangeOf(qpn, own_size)}); found != nullptr) return found;
  for (uint32_t size = kRangeMin; size <= kRangeMax; size *= 2) {
    if (size == own_size) continue;
    if (auto found = Ask({address, RangeOf(qpn, size)}); found != nullptr) return found;
  }
  return nullptr;
}

std::shared_ptr<RemoteProcess> HostPeers::Ask(const Name& where) {
  if (const auto known = host_ids_.find(where); known != host_ids_.end()) {
    const Host& host = hosts_.find(known->second)->second;
    if (host.process->alive()) return host.process;
    DropHost(known->second);  // and perhaps another has its place already
  }
  Host host;
  host.connection = ConnectToName(NameOf(where.first, where.second));
  if (!host.connection.valid()) return nullptr;
  pid_t pid = 0;
  UniqueFd life;
  Question question;
  question.version = options_.layout_version;
  if (!Identify(host.connection.get(), &pid, &life) ||
      send(host.connection.get(), &question, sizeof(question), MSG_DONTWAIT | MSG_NOSIGNAL) !=
          static_cast<ssize_t>(sizeof(question))) {
    return nullptr;
  }
  host.where = where;
  host.process = std::make_shared<RemoteProcess>(pid, std::move(life));
  const uint64_t id = ++last_id_;
  Watch(host.connection.get(), id);
  Watch(host.process->life_fd(), id | kLifeBit);
  host_ids_[where] = id;
  return hosts_.emplace(id, std::move(host)).first->second.process;
}

// False: the connection is at its end.
bool HostPeers::Hear(Host& host) {
  if (host.process->up()) {
    char message = 0;
    const ssize_t got = recv(host.connection.get(), &message, 1, MSG_DONTWAIT | MSG_TRUNC);
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    if (got != 1 || message != kSweep) return false;
    host.process->Sweep();
    return true;
  }
  AnswerMessage answer;
  auto fds = ReceiveDescriptors(host.connection.get(), &answer, sizeof(answer));
  if (!fds.ok()) return absl::IsUnavailable(fds.status());
  if (answer.magic != kMagic || answer.version != options_.layout_version || fds->size() < 2) {
    return false;
  }
  const absl::Status opened =
      host.process->Open(answer.introduction, (*fds)[0].get(), (*fds)[1].get());
  if (!opened.ok()) Log().info("soft NIC: a peer on this host: {}", std::string(opened.message()));
  return opened.ok();
}

void HostPeers::DropHost(uint64_t id) {
  const auto found = hosts_.find(id);
  Unwatch(found->second.connection.get());
  Unwatch(found->second.process->life_fd());
  found->second.process->Close();
  host_ids_.erase(found->second.where);
  hosts_.erase(found);
}

bool HostPeers::KeyInUse(uint32_t key) const {
  const uint32_t lines = lines_used_.load();
  for (uint32_t line = 0; line < lines; ++line) {
    if (board_->UsesKey(line, key)) return true;
  }
  return false;
}

bool HostPeers::QueuePairInUse(uint32_t qpn) const {
  const uint32_t lines = lines_used_.load();
  for (uint32_t line = 0; line < lines; ++line) {
    if (board_->UsesQueuePair(line, qpn)) return true;
  }
  return false;
}

void HostPeers::ForgetTheDead() {
  for (auto& [id, guest] : guests_) {
    if (HasEnded(guest.life)) board_->ClearLine(guest.line);
  }
}

void HostPeers::AskGuestsToSweep() {
  for (const auto& [id, guest] : guests_) {
    if (guest.answered) (void)send(guest.connection.get(), &kSweep, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
  }
}

}  // namespace sumac::soft_nic
