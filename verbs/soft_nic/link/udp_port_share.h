// One UDP address and port shared by several processes of one user: each owns the QPNs of one slot.
//
// A SO_REUSEPORT group of `slots` sockets, all bound to (address, port), with a classic BPF program
// that picks the socket by the top bits of the destination QPN. Every member process holds
// duplicates of all the sockets, so none ever leaves the group and indexes never shift
// (docs/decisions/0001-sharing-udp-port-4791.md). A member reads only the socket of its slot. No
// daemon, no files, no privilege:
//
//   member k is alive    <=>  it listens on the abstract unix name .../<address>/<k>
//   somebody is joining  <=>  it listens on the abstract unix name .../<address>/join
//
// One more socket gets what is for the management queue pairs. Members of the second kind, numbers
// kSlotsMax and up, own no QPNs and read that one, all of them the same (cm/agent.h).
//
// Used by UdpLink. Join blocks, at most options.join_timeout. Afterwards OnShareReadable must be
// called, by any one thread at a time, when share_fd() is readable: it hands the sockets to a
// joiner and never blocks. A member that does not answer (stopped) does not keep others from
// joining while some other member answers.
//
// Fails with a Status that says who holds what: AlreadyExists (the port belongs to something else),
// ResourceExhausted (all slots leased; open files), DeadlineExceeded (somebody joins too long),
// FailedPrecondition (members that don't answer), or what the kernel said.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "verbs/soft_nic/link/unique_fd.h"
#include "verbs/soft_nic/wire/icrc.h"
#include "verbs/soft_nic/wire/packet.h"

namespace sumac::soft_nic {

struct UdpPortShareOptions {
  static constexpr uint32_t kSlotsMax = 64;

  Gid address{};
  uint32_t scope_id = 0;  // interface index, for IPv6 link-local addresses
  uint16_t port = kRoceUdpPort;
  // A power of two up to kSlotsMax. Used by the process that creates the group; later ones take
  // what they find.
  uint32_t slots = kSlotsMax;
  // A member that reads the management socket, instead of one that owns QPNs.
  bool management = false;
  // For the whole of Join.
  std::chrono::milliseconds join_timeout{10000};
  // How long to wait for an answer of existing members before they count as stuck.
  std::chrono::milliseconds answer_timeout{3000};
};

// What abstract unix names that belong to an address and port begin with: only sockets of one user
// can form a group, so the user is part of them.
std::string NamesOfPort(const Gid& address, uint32_t scope_id, uint16_t port);

class UdpPortShare {
 public:
  static absl::StatusOr<std::unique_ptr<UdpPortShare>> Join(const UdpPortShareOptions& options);
  ~UdpPortShare();
  UdpPortShare(const UdpPortShare&) = delete;
  UdpPortShare& operator=(const UdpPortShare&) = delete;

  // The socket of our slot, or the management one; non-blocking. The open file is shared with the
  // other members.
  int receive_fd() const { return sockets_[std::min(slot_, slots())].get(); }
  // Of a management member: kSlotsMax to 2 * kSlotsMax - 1.
  uint32_t slot() const { return slot_; }
  uint32_t slots() const { return static_cast<uint32_t>(sockets_.size()) - 1; }
  // Of a member that owns QPNs.
  uint32_t first_qpn() const;
  uint32_t qpn_count() const;

  int share_fd() const { return lease_.get(); }
  void OnShareReadable();

 private:
  UdpPortShare(std::vector<UniqueFd> sockets, uint32_t slot, UniqueFd lease)
      : sockets_(std::move(sockets)), slot_(slot), lease_(std::move(lease)) {}

  // By slot, then the management one; the same open files in every member.
  std::vector<UniqueFd> sockets_;
  uint32_t slot_;
  UniqueFd lease_;
};

}  // namespace sumac::soft_nic
