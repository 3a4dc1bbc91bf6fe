// Abstract unix sockets as names that live exactly as long as their owner, and descriptors passed
// over them.
//
// Linux's abstract names belong to the network namespace, as UDP ports do, and vanish with the last
// process that holds the socket: a lease that can't go stale, without files and without a daemon.
// Control path only; any thread.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "verbs/soft_nic/link/unique_fd.h"

namespace sumac::soft_nic {

struct PeerCredentials {
  pid_t pid = 0;
  uid_t uid = 0;
};

// Takes `name` and listens on it (non-blocking). AlreadyExists when somebody has it.
absl::StatusOr<UniqueFd> ListenOnName(const std::string& name);

// A connection to whoever listens on `name`, which need not be awake for that; invalid when nobody
// does.
UniqueFd ConnectToName(const std::string& name);

// Who called listen() or connect() at the other end.
absl::StatusOr<PeerCredentials> CredentialsOfPeer(int fd);

// One message with descriptors; never blocks. False when the peer is gone or its queue is full.
bool SendDescriptors(int fd, const void* message, size_t bytes, const std::vector<int>& fds);

// Takes such a message if one is there: the descriptors, with the message in `message`.
// Unavailable: none yet.
absl::StatusOr<std::vector<UniqueFd>> ReceiveDescriptors(int fd, void* message, size_t bytes);

// Takes `name` for datagrams (non-blocking), which come with their sender's credentials.
// AlreadyExists when somebody has it.
absl::StatusOr<UniqueFd> BindDatagramName(const std::string& name);

enum class SendResult { kSent, kNobody, kNoRoom };
// One datagram to whoever has `name`, from any datagram socket; never blocks.
SendResult SendToName(int fd, const std::string& name, const void* bytes, size_t size);

// Takes one datagram of up to `size` bytes, and who sent it. Returns its length, 0 when none is
// there. Those of other users are thrown away.
size_t ReceiveFromOwnUser(int fd, void* bytes, size_t size);

}  // namespace sumac::soft_nic
