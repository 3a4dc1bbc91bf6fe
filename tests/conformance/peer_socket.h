// The peer of a device behind verbs: a UDP socket at port 4791 that speaks RoCE v2 by the wire
// library alone, ICRC included.
//
// What comes must be intact; a packet that is not is an error, not a loss. One thread. Failure:
// std::runtime_error.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "verbs/soft_nic/link/icrc_checker.h"
#include "verbs/soft_nic/link/unique_fd.h"
#include "verbs/soft_nic/wire/packet.h"

namespace sumac::conformance {

class PeerSocket {
 public:
  // At `address`, talking to `device`; in a named network namespace (ip-netns(8)), or, if the name
  // is empty, in this one.
  PeerSocket(const soft_nic::Gid& address, const soft_nic::Gid& device, const std::string& netns);
  // At some address of 127.0.0.0/8 that nobody has.
  static soft_nic::Gid FreeLoopbackAddress();

  const soft_nic::Gid& address() const { return address_; }
  void Send(const soft_nic::PacketHeader& header, std::span<const std::byte> payload);
  struct Received {
    soft_nic::PacketHeader header;
    std::vector<std::byte> payload;
  };
  // What has come, if anything.
  std::optional<Received> Receive();
  // Until something has come, at most a tenth of a millisecond.
  void Wait() const;

 private:
  const soft_nic::Gid address_;
  const soft_nic::Gid device_;
  soft_nic::UniqueFd socket_;
  soft_nic::IcrcChecker checker_;
};

}  // namespace sumac::conformance
