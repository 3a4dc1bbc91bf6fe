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

absl::Status ValidateOptions(const WorkerOptions& options);

}  // namespace sumac::transport
