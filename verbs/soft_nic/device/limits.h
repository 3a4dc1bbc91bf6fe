// What the soft NIC offers: the limits that ibv_query_device reports and create calls enforce.
#pragma once

#include <cstdint>

namespace sumac::soft_nic {

inline constexpr uint32_t kQueuePairsMax = 4096;
inline constexpr uint32_t kWorkRequestsMax = 16384;  // a queue
inline constexpr uint32_t kSgesMax = 32;
inline constexpr uint32_t kInlineBytesMax = 1024;
inline constexpr uint32_t kCompletionsMax = 1u << 22;  // a completion queue
inline constexpr uint32_t kCompletionQueuesMax = 65536;
inline constexpr uint32_t kSharedReceiveQueuesMax = 65536;
inline constexpr uint32_t kMemoryRegionsMax = 1u << 20;
inline constexpr uint32_t kMemoryWindowsMax = 65536;
inline constexpr uint32_t kProtectionDomainsMax = 65536;
inline constexpr uint32_t kAddressHandlesMax = 65536;
inline constexpr uint32_t kXrcDomainsMax = 65536;
// Of one queue pair, in kbit/s; the port's rate is the most.
inline constexpr uint32_t kRateLimitMin = 1000;
inline constexpr uint32_t kRateLimitMax = 40'000'000;
inline constexpr uint8_t kReadAtomicsMax =
    16;  // outstanding READ and atomic requests a queue pair, each way

}  // namespace sumac::soft_nic
