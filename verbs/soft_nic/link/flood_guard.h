// Who sends us so many bad packets that looking at them is a waste: a limit per source.
//
// Bad is what no queue pair here can want: damaged, malformed, for a QPN that is not there or from
// an address that it is not connected to. Above the limit, a source's packets are dropped
// unexamined, but for those that one of our queue pairs expects from it: a forger who takes a
// peer's address slows nothing down unless he knows the QPN as well. It ends a while after the
// flood. Owned by a link; one thread; no allocation; time is passed in.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>

#include "verbs/soft_nic/engine/ports.h"
#include "verbs/soft_nic/wire/icrc.h"

namespace sumac::soft_nic {

class FloodGuard {
 public:
  // Far more than bit errors, a peer that restarted or a wrong address cause.
  static constexpr uint32_t kBadMax = 1000;
  static constexpr Duration kInterval = std::chrono::milliseconds(100);
  static constexpr Duration kHold = std::chrono::seconds(1);

  // True when this packet is the one too many: a flood begins, or goes on.
  bool OnBad(const Gid& gid, Time now) {
    Source& source = SourceOf(gid);
    if (source.gid != gid) source = {gid, now, 0, {}};  // a collision only forgets
    if (now - source.since >= kInterval) {
      source.since = now;
      source.bad = 0;
    }
    if (++source.bad != kBadMax) return false;
    source.held_until = now + kHold;
    return true;
  }
  bool Floods(const Gid& gid, Time now) const {
    const Source& source = sources_[IndexOf(gid)];
    return source.gid == gid && now < source.held_until;
  }

 private:
  struct Source {
    Gid gid{};
    Time since{};
    uint32_t bad = 0;  // since then
    Time held_until{};
  };

  static size_t IndexOf(const Gid& gid) {
    size_t hash = 0;
    for (const uint8_t byte : gid) hash = hash * 31 + byte;
    return hash % kSources;
  }
  Source& SourceOf(const Gid& gid) { return sources_[IndexOf(gid)]; }

  static constexpr size_t kSources = 256;
  std::array<Source, kSources> sources_{};
};

}  // namespace sumac::soft_nic
