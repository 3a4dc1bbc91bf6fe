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

}  // namespace sumac::soft_nic
