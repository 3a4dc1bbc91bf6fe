// The ranges of WorkerOptions, and the queue entries that a queue pair needs for itself.
//
// Used by the worker's parts. ValidateOptions names the field, its value and its range.
#pragma once

#include <cstdint>

#include "absl/status/status.h"

#include "transport/worker.h"

namespace sumac::transport {

inline constexpr uint32_t kSendDepthMin = 1;
inline constexpr uint32_t kSendDepthMax = 8192;
inline constexpr uint32_t kReceiveDepthMin = 1;
inline constexpr uint32_t kReceiveDepthMax = 8192;
inline constexpr uint32_t kEagerBytesMin = 64;
inline constexpr uint32_t kEagerBytesMax = 1u << 20;
inline constexpr uint32_t kWorkerNameBytesMax = 128;

// Send-queue entries on top of send_depth for messages that no caller asked for (credits,
// confirmations): they must never wait for room that only a caller can make.
inline constexpr uint32_t kControlDepth = 8;
// Receives on top of receive_depth for the peer's messages that take no credit: at most two credit
// messages can be on the way (each gives back at least half of the credits), one confirmation (a
// rendezvous blocks its sender) and one close.
inline constexpr uint32_t kReceiveReserve = 4;

struct Range {
  int64_t least = 0;
  int64_t most = 0;
};
inline constexpr Range kGidIndexRange{-1, 255};
inline constexpr Range kTrafficClassRange{0, 255};
inline constexpr Range kServiceLevelRange{0, 7};  // RoCE: the priority of IEEE 802.1Q
// 0 would mean that a lost packet is waited for without end (IBTA vol. 1, 9.7.6.1.3).
inline constexpr Range kAckTimeoutRange{1, 31};
inline constexpr Range kRetryRange{0, 7};

// Path fields that are not set are not looked at.
absl::Status ValidateOptions(const WorkerOptions& options);

}  // namespace sumac::transport
