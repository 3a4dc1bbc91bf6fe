// Management datagrams to and from peers: UD packets between the queue pairs 1 (IBTA vol. 1, 13.5),
// over the socket that the processes of an address share for them (link/udp_port_share.h).
//
// What arrives is checked as any packet is: intact, to QPN 1 from QPN 1, with the well-known Q_Key,
// 256 bytes; all else is dropped and counted. A datagram that lay in the socket for long, because
// nobody was there to read it, is dropped as well: its sender has given up or asked again. Never
// blocks. Not for several threads at once.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"

#include "verbs/soft_nic/link/icrc_checker.h"
#include "verbs/soft_nic/link/link.h"
#include "verbs/soft_nic/link/transmit_socket.h"
#include "verbs/soft_nic/wire/cm_message.h"

namespace sumac::soft_nic {

class ManagementSocket {
 public:
  struct Counters {
    uint64_t received = 0;
    uint64_t dropped_malformed = 0;
    uint64_t dropped_bad_icrc = 0;
    uint64_t dropped_not_management = 0;  // other opcode, queue pair, Q_Key or length
    uint64_t dropped_stale = 0;
  };

  // `receive_fd` stays its owner's. `address` is what peers send to.
  static absl::StatusOr<std::unique_ptr<ManagementSocket>> Open(int receive_fd, const Gid& address,
                                                                uint32_t scope_id);

  void Send(const Gid& destination, uint8_t traffic_class, std::span<const std::byte, kMadBytes>);
  // At most `budget` datagrams.
  void Receive(
      absl::FunctionRef<void(const Gid& source, std::span<const std::byte, kMadBytes>)> take,
      int budget);
  const Counters& counters() const { return counters_; }

 private:
  ManagementSocket(int receive_fd, const Gid& address)
      : receive_fd_(receive_fd), address_(address) {}

  const int receive_fd_;
  const Gid address_;
  uint32_t psn_ = 0;
  Counters counters_;
  LinkCounters link_counters_;
  IcrcChecker checker_;
  std::unique_ptr<TransmitSocket> transmit_;
};

}  // namespace sumac::soft_nic
