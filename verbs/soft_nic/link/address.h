// GIDs as socket addresses, and which network interface an address belongs to.
//
// Control path, any thread, no state. Errors are absl::Status that name the address or interface.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "verbs/soft_nic/wire/icrc.h"

namespace sumac::soft_nic {

union SocketAddress {
  sockaddr any;
  sockaddr_in ipv4;
  sockaddr_in6 ipv6;

  socklen_t size() const { return any.sa_family == AF_INET ? sizeof(ipv4) : sizeof(ipv6); }
};

// `scope_id` is the interface index that an IPv6 link-local address needs; otherwise 0.
SocketAddress ToSocketAddress(const Gid& gid, uint16_t port, uint32_t scope_id);
Gid GidOf(const SocketAddress& address);
uint16_t PortOf(const SocketAddress& address);

Gid GidOfIpv4(uint8_t a, uint8_t b, uint8_t c, uint8_t d);
// "10.0.0.1" or "fe80::1".
absl::StatusOr<Gid> ParseGid(absl::string_view text);
std::string ToString(const Gid& gid);
bool IsLoopback(const Gid& gid);

struct InterfaceAddress {
  std::string interface;
  Gid gid{};
  uint32_t scope_id = 0;
  uint32_t interface_mtu_bytes = 0;
};

// The first address of a network interface: IPv4 if it has one, else global IPv6, else link-local.
absl::StatusOr<InterfaceAddress> AddressOfInterface(const std::string& interface);
// The interface that has `gid`; for any of 127.0.0.0/8, the loopback interface.
absl::StatusOr<InterfaceAddress> InterfaceOfAddress(const Gid& gid);

// The largest RoCE path MTU (256 ... 4096) whose packets fit an IP packet of `interface_mtu_bytes`;
// 0 if none does.
uint32_t PathMtuBytes(uint32_t interface_mtu_bytes, bool ipv4);

}  // namespace sumac::soft_nic
