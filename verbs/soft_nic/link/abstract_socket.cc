#include "verbs/soft_nic/link/abstract_socket.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace sumac::soft_nic {
namespace {

constexpr int kBacklog = 128;
constexpr size_t kDescriptorsMax = 253;  // SCM_MAX_FD of the kernel

struct UnixAddress {
  sockaddr_un address{};
  socklen_t size = 0;
};

// The name follows a zero byte and is not terminated (unix(7)).
bool ToUnixAddress(const std::string& name, UnixAddress* out) {
  if (name.size() + 1 > sizeof(out->address.sun_path)) return false;
  out->address.sun_family = AF_UNIX;
  std::memcpy(out->address.sun_path + 1, name.data(), name.size());
  out->size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  return true;
}

UniqueFd NewSocket() {
  return UniqueFd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

const sockaddr* AsSockaddr(const UnixAddress& address) {
  return reinterpret_cast<const sockaddr*>(&address.address);
}

}  // namespace

absl::StatusOr<UniqueFd> ListenOnName(const std::string& name) {
  UnixAddress address;
  if (!ToUnixAddress(name, &address)) {
    return absl::InvalidArgumentError(absl::StrCat("unix socket name too long: ", name));
  }
  UniqueFd fd = NewSocket();
  if (!fd.valid()) return absl::ErrnoToStatus(errno, "unix socket");
  if (::bind(fd.get(), AsSockaddr(address), address.size) != 0) {
    if (errno == EADDRINUSE) return absl::AlreadyExistsError(absl::StrCat("@", name, " is taken"));
    return absl::ErrnoToStatus(errno, absl::StrCat("bind to unix name @", name));
  }
  if (::listen(fd.get(), kBacklog) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("listen on unix name @", name));
  }
  return fd;
}

UniqueFd ConnectToName(const std::string& name) {
  UnixAddress address;
  if (!ToUnixAddress(name, &address)) return UniqueFd();
  UniqueFd fd = NewSocket();
  if (!fd.valid() || ::connect(fd.get(), AsSockaddr(address), address.size) != 0) {
    return UniqueFd();
  }
  return fd;
}

absl::StatusOr<PeerCredentials> CredentialsOfPeer(int fd) {
  ucred peer{};
  socklen_t size = sizeof(peer);
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    return absl::ErrnoToStatus(errno, "SO_PEERCRED");
  }
  return PeerCredentials{peer.pid, peer.uid};
}

bool SendDescriptors(int fd, const void* message, size_t bytes, const std::vector<int>& fds) {
  if (fds.empty() || fds.size() > kDescriptorsMax) return false;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kDescriptorsMax)] = {};
  iovec data{const_cast<void*>(message), bytes};
  msghdr header{};
  header.msg_iov = &data;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
  cmsghdr* rights = CMSG_FIRSTHDR(&header);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
  std::memcpy(CMSG_DATA(rights), fds.data(), sizeof(int) * fds.size());
  return ::sendmsg(fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL) == static_cast<ssize_t>(bytes);
}

absl::StatusOr<std::vector<UniqueFd>> ReceiveDescriptors(int fd, void* message, size_t bytes) {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kDescriptorsMax)] = {};
  iovec data{message, bytes};
  msghdr header{};
  header.msg_iov = &data;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof(control);
  const ssize_t received = ::recvmsg(fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (received < 0) {
    if (errno == EAGAIN || errno == EINTR) return absl::UnavailableError("no answer yet");
    return absl::ErrnoToStatus(errno, "receiving descriptors");
  }
  std::vector<UniqueFd> fds;
  for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(&header, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int passed;
      std::memcpy(&passed, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
      fds.emplace_back(passed);
    }
  }
  if (header.msg_flags & MSG_CTRUNC) {
    return absl::ResourceExhaustedError(
        "the limit on open files does not leave room for the shared sockets; raise it (ulimit -n)");
  }
  if (received != static_cast<ssize_t>(bytes)) {
    return absl::FailedPreconditionError("an answer of unexpected length");
  }
  return fds;
}

absl::StatusOr<UniqueFd> BindDatagramName(const std::string& name) {
  UnixAddress address;
  if (!ToUnixAddress(name, &address)) {
    return absl::InvalidArgumentError(absl::StrCat("unix socket name too long: ", name));
  }
  UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int on = 1;
  if (!fd.valid() || ::setsockopt(fd.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) != 0) {
    return absl::ErrnoToStatus(errno, "unix datagram socket");
  }
  if (::bind(fd.get(), AsSockaddr(address), address.size) != 0) {
    if (errno == EADDRINUSE) return absl::AlreadyExistsError(absl::StrCat("@", name, " is taken"));
    return absl::ErrnoToStatus(errno, absl::StrCat("bind to unix name @", name));
  }
  return fd;
}

SendResult SendToName(int fd, const std::string& name, const void* bytes, size_t size) {
  UnixAddress address;
  if (!ToUnixAddress(name, &address)) return SendResult::kNobody;
  const ssize_t sent =
      ::sendto(fd, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL, AsSockaddr(address), address.size);
  if (sent == static_cast<ssize_t>(size)) return SendResult::kSent;
  return errno == ECONNREFUSED ? SendResult::kNobody : SendResult::kNoRoom;
}

size_t ReceiveFromOwnUser(int fd, void* bytes, size_t size) {
  for (;;) {
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred))] = {};
    iovec data{bytes, size};
    msghdr header{};
    header.msg_iov = &data;
    header.msg_iovlen = 1;
    header.msg_control = control;
    header.msg_controllen = sizeof(control);
    const ssize_t received = ::recvmsg(fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (received < 0 && errno == EINTR) continue;
    if (received < 0) return 0;
    const cmsghdr* c = CMSG_FIRSTHDR(&header);
    if (c == nullptr || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_CREDENTIALS) continue;
    ucred sender;
    std::memcpy(&sender, CMSG_DATA(c), sizeof(sender));
    if (sender.uid == ::geteuid() && received > 0) return static_cast<size_t>(received);
  }
}

}  // namespace sumac::soft_nic
