#include "verbs/soft_nic/link/interface_monitor.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace sumac::soft_nic {
namespace {

// As the interface is now; one that is gone is down.
bool IsUp(const std::string& interface) {
  const UniqueFd any(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  if (interface.size() >= sizeof(request.ifr_name)) return true;
  std::memcpy(request.ifr_name, interface.data(), interface.size());
  if (::ioctl(any.get(), SIOCGIFFLAGS, &request) != 0) return errno != ENODEV;
  const int wanted = IFF_UP | IFF_RUNNING;
  return (request.ifr_flags & wanted) == wanted;
}

UniqueFd WatchLinks() {
  UniqueFd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_ROUTE));
  sockaddr_nl links{};
  links.nl_family = AF_NETLINK;
  links.nl_groups = RTMGRP_LINK;
  const auto* address = reinterpret_cast<const sockaddr*>(&links);
  if (fd.valid() && ::bind(fd.get(), address, sizeof(links)) != 0) return UniqueFd();
  return fd;
}

}  // namespace

InterfaceMonitor::InterfaceMonitor(const std::string& interface,
                                   std::function<void(bool up)> changed)
    : interface_(interface), changed_(std::move(changed)), socket_(WatchLinks()) {
  if (socket_.valid()) up_ = IsUp(interface_);
}

// What the messages say may be old or lost (ENOBUFS): they only tell when to look.
void InterfaceMonitor::OnReadable() {
  std::array<char, 8192> message;
  for (;;) {
    const ssize_t got = ::recv(socket_.get(), message.data(), message.size(), 0);
    if (got < 0 && errno != ENOBUFS && errno != EINTR) break;
  }
  const bool up = IsUp(interface_);
  if (up_.exchange(up) != up) changed_(up);
}

}  // namespace sumac::soft_nic
