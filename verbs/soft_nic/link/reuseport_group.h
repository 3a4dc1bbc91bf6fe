// The sockets behind udp_port_share.h: a SO_REUSEPORT group that the kernel demultiplexes by
// destination QPN.
//
// Control path, any thread, no state.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "verbs/soft_nic/link/address.h"
#include "verbs/soft_nic/link/unique_fd.h"

namespace sumac::soft_nic {

// A UDP socket of the right family for `ipv4`, non-blocking and close-on-exec, not yet bound.
absl::StatusOr<UniqueFd> NewUdpSocket(bool ipv4);

// Binds a socket to `address` alone. AlreadyExists, naming the holder, when the port is taken in
// any way.
absl::StatusOr<UniqueFd> BindExclusively(const SocketAddress& address);

// A new group of `slots` sockets (a power of two), by slot, and one more: a packet whose
// destination QPN has the top bits k goes to socket k, one to the management queue pairs (QPN 0 and
// 1) to the last socket. AlreadyExists when the port is taken, also by another group.
absl::StatusOr<std::vector<UniqueFd>> CreateReuseportGroup(const SocketAddress& address,
                                                           uint32_t slots);

// True when `fd` is a UDP socket bound to `address`.
bool IsUdpSocketBoundTo(int fd, const SocketAddress& address);

// Throws away what is queued on a socket.
void DrainSocket(int fd);

// Who has a UDP port, as far as /proc tells, for messages: "a socket of uid 1000 bound to 0.0.0.0".
std::string DescribePortHolder(const SocketAddress& address);

}  // namespace sumac::soft_nic
