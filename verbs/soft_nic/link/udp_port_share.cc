#include "verbs/soft_nic/link/udp_port_share.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <bit>
#include <random>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "verbs/soft_nic/link/abstract_socket.h"
#include "verbs/soft_nic/link/address.h"
#include "verbs/soft_nic/link/reuseport_group.h"
#include "verbs/soft_nic/wire/cm_message.h"

namespace sumac::soft_nic {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr uint32_t kQpnBits = 24;
// How long one member may keep us from also asking the next.
constexpr milliseconds kNextMemberAfter{50};
// Sockets of a process that was just killed may outlive its names by this much.
constexpr milliseconds kDyingHolderGrace{500};

// What a member sends along with the sockets.
struct Answer {
  std::array<char, 8> magic{'s', 'u', 'm', 'a', 'c', 'n', 'i', 'c'};
  uint32_t version = 2;  // 2: with a management socket
  uint32_t slots = 0;
};

class Joiner {
 public:
  explicit Joiner(const UdpPortShareOptions& options)
      : options_(options),
        address_(ToSocketAddress(options.address, options.port, options.scope_id)),
        what_(absl::StrCat("UDP port ", options.port, " on ", ToString(options.address))),
        deadline_(Clock::now() + options.join_timeout) {}

  absl::StatusOr<UniqueFd> AcquireMutex() const;
  absl::StatusOr<std::vector<UniqueFd>> ObtainGroup() const;
  absl::StatusOr<UniqueFd> LeaseSlot(uint32_t slots, uint32_t* slot) const;

 private:
  struct Asked {
    UniqueFd connection;
    pid_t pid = 0;
  };

  std::string NameOf(absl::string_view part) const {
    return absl::StrCat(NamesOfPort(options_.address, options_.scope_id, options_.port), part);
  }
  absl::StatusOr<std::vector<UniqueFd>> AskMembers() const;
  absl::StatusOr<std::vector<UniqueFd>> AwaitAnswer(std::vector<Asked>& asked,
                                                    Clock::time_point until) const;
  absl::StatusOr<std::vector<UniqueFd>> TakeAnswer(int connection) const;

  const UdpPortShareOptions& options_;
  const SocketAddress address_;
  const std::string what_;
  const Clock::time_point deadline_;
};

absl::StatusOr<UniqueFd> Joiner::AcquireMutex() const {
  std::minstd_rand random(static_cast<unsigned>(::getpid()) ^
                          static_cast<unsigned>(Clock::now().time_since_epoch().count()));
  const std::string name = NameOf("join");
  for (;;) {
    auto mutex = ListenOnName(name);
    if (mutex.ok() || !absl::IsAlreadyExists(mutex.status())) return mutex;
    if (Clock::now() >= deadline_) {
      const UniqueFd connection = ConnectToName(name);
      const auto holder = CredentialsOfPeer(connection.get());
      return absl::DeadlineExceededError(absl::StrCat(
          "joining the group that shares ", what_, ": ",
          holder.ok() ? absl::StrCat("process ", holder->pid) : std::string("another process"),
          " has been joining for more than ", options_.join_timeout.count(),
          " ms; is it stopped? Continue it or end it"));
    }
    std::this_thread::sleep_for(std::chrono::microseconds(500 + random() % 4000));
  }
}

// One answer is enough. NotFound: no member is alive. FailedPrecondition: there are members, none
// answers.
absl::StatusOr<std::vector<UniqueFd>> Joiner::AskMembers() const {
  const auto give_up = std::min(deadline_, Clock::now() + options_.answer_timeout);
  std::vector<Asked> asked;
  for (uint32_t slot = 0; slot < 2 * UdpPortShareOptions::kSlotsMax; ++slot) {
    Asked member{ConnectToName(NameOf(absl::StrCat(slot))), 0};
    if (!member.connection.valid()) continue;
    const auto peer = CredentialsOfPeer(member.connection.get());
    if (!peer.ok() || peer->uid != ::geteuid()) continue;
    member.pid = peer->pid;
    asked.push_back(std::move(member));
    auto answer = AwaitAnswer(asked, std::min(give_up, Clock::now() + kNextMemberAfter));
    if (answer.ok() || absl::IsResourceExhausted(answer.status())) return answer;
  }
  if (!asked.empty()) {
    auto answer = AwaitAnswer(asked, give_up);
    if (answer.ok() || absl::IsResourceExhausted(answer.status())) return answer;
  }
  if (asked.empty()) return absl::NotFoundError("no member");
  return absl::FailedPreconditionError(absl::StrCat(
      what_, " is shared by processes that don't answer (pid ",
      absl::StrJoin(asked, ", ",
                    [](std::string* out, const Asked& a) { absl::StrAppend(out, a.pid); }),
      "); are they stopped? Continue or end them"));
}

// Removes from `asked` those who hung up. Unavailable: nothing came until then.
absl::StatusOr<std::vector<UniqueFd>> Joiner::AwaitAnswer(std::vector<Asked>& asked,
                                                          Clock::time_point until) const {
  while (!asked.empty()) {
    std::vector<pollfd> polled;
    polled.reserve(asked.size());
    for (const Asked& member : asked) polled.push_back({member.connection.get(), POLLIN, 0});
    const auto left = std::chrono::ceil<milliseconds>(until - Clock::now()).count();
    const int ready = ::poll(polled.data(), polled.size(), static_cast<int>(std::max(left, 0L)));
    if (ready <= 0 && Clock::now() >= until) break;
    for (size_t i = polled.size(); i-- > 0;) {
      if (polled[i].revents == 0) continue;
      auto answer = TakeAnswer(asked[i].connection.get());
      if (answer.ok() || absl::IsResourceExhausted(answer.status())) return answer;
      if (!absl::IsUnavailable(answer.status())) asked.erase(asked.begin() + static_cast<long>(i));
    }
  }
  return absl::UnavailableError("no answer");
}

absl::StatusOr<std::vector<UniqueFd>> Joiner::TakeAnswer(int connection) const {
  Answer answer;
  auto sockets = ReceiveDescriptors(connection, &answer, sizeof(answer));
  if (!sockets.ok()) return sockets;
  const bool as_expected =
      answer.magic == Answer{}.magic && answer.version == Answer{}.version &&
      sockets->size() == size_t{answer.slots} + 1 && std::has_single_bit(answer.slots) &&
      std::all_of(sockets->begin(), sockets->end(),
                  [this](const UniqueFd& fd) { return IsUdpSocketBoundTo(fd.get(), address_); });
  if (!as_expected) return absl::FailedPreconditionError("not an answer of a member");
  return sockets;
}

absl::StatusOr<std::vector<UniqueFd>> Joiner::ObtainGroup() const {
  const auto give_up = std::min(deadline_, Clock::now() + kDyingHolderGrace);
  for (;;) {
    auto shared = AskMembers();
    if (shared.ok() || absl::IsResourceExhausted(shared.status())) return shared;
    auto created = CreateReuseportGroup(address_, options_.slots);
    if (created.ok() || !absl::IsAlreadyExists(created.status())) return created;
    // Somebody has the port: members that don't answer, or a stranger, or a process that is just
    // going away.
    if (absl::IsFailedPrecondition(shared.status())) return shared;
    if (Clock::now() >= give_up) {
      return absl::AlreadyExistsError(
          absl::StrCat(created.status().message(),
                       ", not by a group that this user shares. If that is kernel soft-RoCE (rxe) "
                       "or another user's process, use another address or network namespace"));
    }
    std::this_thread::sleep_for(milliseconds(5));
  }
}

absl::StatusOr<UniqueFd> Joiner::LeaseSlot(uint32_t slots, uint32_t* slot) const {
  const uint32_t first = options_.management ? UdpPortShareOptions::kSlotsMax : 0;
  if (options_.management) slots = UdpPortShareOptions::kSlotsMax;
  for (*slot = first; *slot < first + slots; ++*slot) {
    auto lease = ListenOnName(NameOf(absl::StrCat(*slot)));
    if (lease.ok() || !absl::IsAlreadyExists(lease.status())) return lease;
  }
  if (options_.management) {
    return absl::ResourceExhaustedError(
        absl::StrCat(what_, ": ", slots,
                     " processes use rdma_cm there already; end one, or use another address"));
  }
  return absl::ResourceExhaustedError(absl::StrCat(
      "all ", slots, " slots of ", what_, " are leased: so many devices are open here at once. ",
      "Close one, or use another address (on loopback, any of 127.0.0.0/8)"));
}

}  // namespace

std::string NamesOfPort(const Gid& address, uint32_t scope_id, uint16_t port) {
  return absl::StrCat("sumac/soft-nic/", ::geteuid(), "/", ToString(address), "%", scope_id, "/",
                      port, "/");
}

absl::StatusOr<std::unique_ptr<UdpPortShare>> UdpPortShare::Join(
    const UdpPortShareOptions& options) {
  if (!std::has_single_bit(options.slots) || options.slots > UdpPortShareOptions::kSlotsMax) {
    return absl::InvalidArgumentError(absl::StrCat("slots = ", options.slots,
                                                   ": must be a power of two, 1 to ",
                                                   UdpPortShareOptions::kSlotsMax));
  }
  const Joiner joiner(options);
  auto mutex = joiner.AcquireMutex();  // held until return
  if (!mutex.ok()) return mutex.status();
  auto sockets = joiner.ObtainGroup();
  if (!sockets.ok()) return sockets.status();
  uint32_t slot = 0;
  auto lease = joiner.LeaseSlot(static_cast<uint32_t>(sockets->size()) - 1, &slot);
  if (!lease.ok()) return lease.status();
  // What came for the slot's former owner. The management socket has many readers.
  if (!options.management) DrainSocket((*sockets)[slot].get());
  return std::unique_ptr<UdpPortShare>(
      new UdpPortShare(*std::move(sockets), slot, *std::move(lease)));
}

UdpPortShare::~UdpPortShare() = default;

uint32_t UdpPortShare::first_qpn() const {
  return slot_ == 0 ? kManagementQpns : slot_ * ((1u << kQpnBits) / slots());
}

uint32_t UdpPortShare::qpn_count() const {
  return (1u << kQpnBits) / slots() - (slot_ == 0 ? kManagementQpns : 0);
}

void UdpPortShare::OnShareReadable() {
  Answer answer;
  answer.slots = slots();
  std::vector<int> fds;
  fds.reserve(sockets_.size());
  for (const UniqueFd& fd : sockets_) fds.push_back(fd.get());
  for (;;) {
    const UniqueFd joiner(::accept4(lease_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!joiner.valid())
      return;  // nobody is waiting, or it went away: poll tells when to come again
    const auto peer = CredentialsOfPeer(joiner.get());
    if (!peer.ok() || peer->uid != ::geteuid()) continue;
    // Fails only if the joiner is gone, or too many descriptors are on their way: then it asks
    // another member.
    (void)SendDescriptors(joiner.get(), &answer, sizeof(answer), fds);
  }
}

}  // namespace sumac::soft_nic
