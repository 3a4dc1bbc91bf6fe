// The cases that two ends go through together: each side runs the same function, one as requester,
// the other as responder. One thread; failure: std::runtime_error.
#pragma once

#include <cstdint>
#include <string>

#include "tests/interop/rc_peer/channel.h"
#include "tests/interop/rc_peer/end.h"

namespace sumac::interop {

struct Context {
  Channel& channel;
  End& end;
  bool requester = false;
  uint64_t seed = 0;
  uint64_t operations = 0;  // of the random case
};

// Each returns how many operations were checked.
// SEND, WRITE (with and without immediate), READ: sizes around the borders of packets, at every
// path MTU that both ports allow, byte by byte, with the bytes around them; PSNs wrap in each.
uint64_t Sizes(Context& c);
// Gathered from several pieces, scattered into several.
uint64_t Pieces(Context& c);
// COMPARE_SWAP and FETCH_ADD return what was there and leave what is due.
uint64_t Atomics(Context& c);
// A SEND that finds no receive gets through once there is one.
uint64_t ReceiverNotReady(Context& c);
// SEND with invalidate, where the responder's device has memory windows; 0 where it has none.
uint64_t Invalidate(Context& c);
// What must fail: by the right status, changing no byte.
uint64_t Refusals(Context& c);
// A packet with a wrong ICRC changes nothing; the soft NIC counts it. IPv4 only.
uint64_t WrongIcrc(Context& c);
// A request is not retried before its ACK timeout; by rxe it is.
uint64_t AckTimer(Context& c);
// Everything mixed in a pipeline, against a model.
uint64_t RandomOperations(Context& c);

// The byte at `index` of pattern `seed`.
inline uint8_t PatternByte(uint64_t seed, uint64_t index) {
  uint64_t x = seed * 0x9e3779b97f4a7c15u + index * 0xd1342543de82ef95u + 1;
  x ^= x >> 29;
  x *= 0xbf58476d1ce4e5b9u;
  return static_cast<uint8_t>(x >> 56);
}
void Fill(std::span<uint8_t> bytes, uint64_t seed);
// Throws, naming the first byte that differs.
void Expect(std::span<const uint8_t> bytes, uint64_t seed, const std::string& what);
void ExpectAll(std::span<const uint8_t> bytes, uint8_t value, const std::string& what);
void ExpectStatus(const ibv_wc& wc, ibv_wc_status status, const std::string& what);

}  // namespace sumac::interop
