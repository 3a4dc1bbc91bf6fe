// The private data of a connection request and of its answer: who speaks to whom, and the key that
// the one spoken to published for the other in the bootstrap's store.
//
// The key proves that the speaker is of the job: anybody on the network can send a request. 20
// bytes, big-endian; a request has room for 56. Pure functions; ParseGreeting trusts nothing.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "absl/status/statusor.h"

namespace sumac::transport::rdma_cm {

struct Greeting {
  uint32_t from = 0;  // ranks
  uint32_t to = 0;
  uint64_t key = 0;
};

inline constexpr size_t kGreetingBytes = 20;

std::array<uint8_t, kGreetingBytes> Encode(const Greeting& greeting);
// More bytes than a greeting has are no error: transports pad private data (man 3 rdma_connect).
absl::StatusOr<Greeting> ParseGreeting(std::span<const uint8_t> bytes);

}  // namespace sumac::transport::rdma_cm
