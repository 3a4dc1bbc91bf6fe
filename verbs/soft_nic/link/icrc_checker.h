// Decides whether a received packet is intact, for a socket that can't see the IPv4 identification.
//
// Our own senders use identification 0, and 0, 1, 2, ... in a batch (transmit_socket.h); kernel rxe
// and hardware use any. So the ICRC is checked with the one that comes next in a batch; where that
// fails, FindIdentification says whether some identification makes it right. That check is weaker
// (2^-16 for a damaged packet to pass), so a source which has been sending 0 is held to the small
// identifications of a batch from then on (2^-26). Owned by a link; one thread; no allocation.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "verbs/soft_nic/wire/icrc.h"

namespace sumac::soft_nic {

class IcrcChecker {
 public:
  enum class Verdict { kIntact, kIntactByIdentification, kDamaged };

  // `ip` as far as the socket tells. Its identification is what the caller expects, 0 or the next
  // of a batch. `identification` is set to the true one unless the packet is damaged.
  [[nodiscard]] Verdict Check(const IcrcHeaders& ip, std::span<const std::byte> udp_payload,
                              uint16_t* identification = nullptr);

 private:
  // So many packets with identification 0 in a row, and a source is known to send 0: one that
  // counts passes through 0 only once in 65,536.
  static constexpr uint8_t kKnownAfter = 4;
  static constexpr uint16_t kSmallIdentification = 64;  // the most segments of one UDP_SEGMENT call
  struct Source {
    Gid gid{};
    uint8_t zeros_in_a_row = 0;
  };

  Source& SourceOf(const Gid& gid);

  std::array<Source, 256> sources_{};  // direct-mapped: a collision only forgets
};

}  // namespace sumac::soft_nic
