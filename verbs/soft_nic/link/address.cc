#include "verbs/soft_nic/link/address.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <sys/ioctl.h>

#include <cstring>
#include <memory>
#include <set>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "verbs/soft_nic/link/unique_fd.h"
#include "verbs/soft_nic/wire/packet.h"

namespace sumac::soft_nic {
namespace {

constexpr uint8_t kIpv4LoopbackNet = 127;

bool IsLinkLocal(const Gid& gid) { return gid[0] == 0xfe && (gid[1] & 0xc0) == 0x80; }

absl::StatusOr<uint32_t> InterfaceMtuBytes(const std::string& interface) {
  const UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strncpy(request.ifr_name, interface.c_str(), IFNAMSIZ - 1);
  if (!fd.valid() || ::ioctl(fd.get(), SIOCGIFMTU, &request) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("network interface ", interface, ": its MTU"));
  }
  return static_cast<uint32_t>(request.ifr_mtu);
}

using Interfaces = std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)>;

absl::StatusOr<Interfaces> ListInterfaces() {
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) {
    return absl::ErrnoToStatus(errno, "can't list the network interfaces (getifaddrs)");
  }
  return Interfaces(list, &::freeifaddrs);
}

bool HasIpAddress(const ifaddrs& entry) {
  return entry.ifa_addr != nullptr &&
         (entry.ifa_addr->sa_family == AF_INET || entry.ifa_addr->sa_family == AF_INET6);
}

SocketAddress Copy(const sockaddr& address) {
  SocketAddress copy{};
  std::memcpy(&copy, &address,
              address.sa_family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6));
  return copy;
}

absl::StatusOr<InterfaceAddress> Describe(const std::string& interface, const Gid& gid) {
  auto mtu = InterfaceMtuBytes(interface);
  if (!mtu.ok()) return mtu.status();
  InterfaceAddress result{interface, gid, 0, *mtu};
  if (IsLinkLocal(gid)) result.scope_id = ::if_nametoindex(interface.c_str());
  return result;
}

}  // namespace

SocketAddress ToSocketAddress(const Gid& gid, uint16_t port, uint32_t scope_id) {
  SocketAddress address{};
  if (IsIpv4Mapped(gid)) {
    address.ipv4.sin_family = AF_INET;
    address.ipv4.sin_port = htons(port);
    std::memcpy(&address.ipv4.sin_addr, gid.data() + 12, 4);
  } else {
    address.ipv6.sin6_family = AF_INET6;
    address.ipv6.sin6_port = htons(port);
    address.ipv6.sin6_scope_id = IsLinkLocal(gid) ? scope_id : 0;
    std::memcpy(&address.ipv6.sin6_addr, gid.data(), 16);
  }
  return address;
}

Gid GidOf(const SocketAddress& address) {
  Gid gid{};
  if (address.any.sa_family == AF_INET) {
    gid[10] = gid[11] = 0xff;
    std::memcpy(gid.data() + 12, &address.ipv4.sin_addr, 4);
  } else {
    std::memcpy(gid.data(), &address.ipv6.sin6_addr, 16);
  }
  return gid;
}

uint16_t PortOf(const SocketAddress& address) {
  return ntohs(address.any.sa_family == AF_INET ? address.ipv4.sin_port : address.ipv6.sin6_port);
}

Gid GidOfIpv4(uint8_t a, uint8_t b, uint8_t c, uint8_t d) {
  return {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d};
}

absl::StatusOr<Gid> ParseGid(absl::string_view text) {
  SocketAddress address{};
  const std::string terminated(text);
  if (::inet_pton(AF_INET, terminated.c_str(), &address.ipv4.sin_addr) == 1) {
    address.any.sa_family = AF_INET;
    return GidOf(address);
  }
  if (::inet_pton(AF_INET6, terminated.c_str(), &address.ipv6.sin6_addr) == 1) {
    address.any.sa_family = AF_INET6;
    return GidOf(address);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", text, "' is not an IPv4 or IPv6 address (such as 10.0.0.1 or fe80::1)"));
}

std::string ToString(const Gid& gid) {
  char text[INET6_ADDRSTRLEN] = {};
  if (IsIpv4Mapped(gid)) {
    ::inet_ntop(AF_INET, gid.data() + 12, text, sizeof(text));
  } else {
    ::inet_ntop(AF_INET6, gid.data(), text, sizeof(text));
  }
  return text;
}

bool IsLoopback(const Gid& gid) {
  if (IsIpv4Mapped(gid)) return gid[12] == kIpv4LoopbackNet;
  return std::memcmp(gid.data(), &in6addr_loopback, 16) == 0;
}

absl::StatusOr<InterfaceAddress> AddressOfInterface(const std::string& interface) {
  auto list = ListInterfaces();
  if (!list.ok()) return list.status();
  const auto rank = [](const Gid& gid) { return IsIpv4Mapped(gid) ? 0 : IsLinkLocal(gid) ? 2 : 1; };
  bool found = false;
  bool known = false;
  Gid best{};
  std::set<std::string> names;
  for (const ifaddrs* entry = list->get(); entry != nullptr; entry = entry->ifa_next) {
    names.insert(entry->ifa_name);
    if (interface != entry->ifa_name) continue;
    known = true;
    if (!HasIpAddress(*entry)) continue;
    const Gid gid = GidOf(Copy(*entry->ifa_addr));
    if (!found || rank(gid) < rank(best)) best = gid;
    found = true;
  }
  if (!known) {
    return absl::NotFoundError(absl::StrCat("there is no network interface '", interface,
                                            "'; there are: ", absl::StrJoin(names, ", ")));
  }
  if (!found) {
    return absl::FailedPreconditionError(absl::StrCat(
        "network interface ", interface, " has no IP address; give it one (ip addr add)"));
  }
  return Describe(interface, best);
}

absl::StatusOr<InterfaceAddress> InterfaceOfAddress(const Gid& gid) {
  auto list = ListInterfaces();
  if (!list.ok()) return list.status();
  std::set<std::string> addresses;
  for (const ifaddrs* entry = list->get(); entry != nullptr; entry = entry->ifa_next) {
    if (!HasIpAddress(*entry)) continue;
    const Gid here = GidOf(Copy(*entry->ifa_addr));
    const bool any_loopback = (entry->ifa_flags & IFF_LOOPBACK) && IsIpv4Mapped(gid) &&
                              IsIpv4Mapped(here) && IsLoopback(gid);
    if (here == gid || any_loopback) return Describe(entry->ifa_name, gid);
    addresses.insert(ToString(here));
  }
  return absl::NotFoundError(absl::StrCat("no network interface of this machine has the address ",
                                          ToString(gid),
                                          "; there are: ", absl::StrJoin(addresses, ", ")));
}

uint32_t PathMtuBytes(uint32_t interface_mtu_bytes, bool ipv4) {
  // The longest headers that come with a full payload are those of WRITE_ONLY with immediate.
  const uint32_t overhead = (ipv4 ? 20 : 40) + 8 + kIcrcBytes +
                            static_cast<uint32_t>(HeaderBytes(Opcode::kRcWriteOnlyWithImmediate));
  for (uint32_t mtu = kMtuBytesMax; mtu >= 256; mtu /= 2) {
    if (mtu + overhead <= interface_mtu_bytes) return mtu;
  }
  return 0;
}

}  // namespace sumac::soft_nic
