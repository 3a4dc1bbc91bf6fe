// Whether packets may cross an interface in batches that the kernel or the device cuts
// (UDP_SEGMENT), decided once when a link opens.
//
// The ICRC covers the IPv4 identification, and a batch's packets are given theirs by whoever cuts
// it: Linux numbers them 0, 1, 2, ... (docs/decisions/0006-batches-on-real-interfaces.md). What a
// network card does is its own affair, so kAuto leaves batches to interfaces where Linux cuts, or
// where the batch stays whole until the other end's socket. IPv6 has no identification: always yes.
// Pure but for a socket to ask the interface; any thread.
#pragma once

#include <string>

namespace sumac::soft_nic {

enum class Segmentation { kAuto, kOn, kOff };

// `interface` as named by the system; `ipv4`: the address family of the link.
[[nodiscard]] bool MaySegment(Segmentation wanted, const std::string& interface, bool ipv4);

}  // namespace sumac::soft_nic
