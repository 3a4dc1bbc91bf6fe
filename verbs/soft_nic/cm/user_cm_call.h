// One command of librdmacm as it was written, for the files that implement UserCm.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <type_traits>

#include "verbs/soft_nic/cm/user_cm.h"

namespace sumac::soft_nic {

struct UserCm::Call {
  Channel channel;
  uint32_t command = 0;
  Bytes in;            // behind the header
  size_t out_max = 0;  // bytes that the caller has room for

  // False: shorter than the struct up to `needed`. What a program does not send is zero: later ABIs
  // only add fields at the end.
  template <typename Command>
  [[nodiscard]] bool Read(Command* into, size_t needed = sizeof(Command)) const {
    static_assert(std::is_trivially_copyable_v<Command>);
    *into = {};
    if (in.size() < needed) return false;
    std::memcpy(static_cast<void*>(into), in.data(), std::min(in.size(), sizeof(Command)));
    return true;
  }

  // 0, or ENOSPC when there is no room for the part that is `needed`.
  template <typename Response>
  [[nodiscard]] int Respond(uint64_t address, const Response& response,
                            size_t needed = sizeof(Response)) const {
    if (out_max < needed) return ENOSPC;
    if (address == 0) return EFAULT;
    std::memcpy(reinterpret_cast<void*>(address),  // NOLINT: that is how the ABI passes pointers
                &response, std::min(out_max, sizeof(Response)));
    return 0;
  }
};

}  // namespace sumac::soft_nic
