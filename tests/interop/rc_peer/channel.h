// What two test processes tell each other beside the packets under test: a TCP connection.
//
// One thread. Failure: std::runtime_error, which ends the process with the reason; nothing waits
// longer than the deadline given at the start of each call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>

#include "verbs/soft_nic/link/unique_fd.h"

namespace sumac::interop {

class Channel {
 public:
  // "10.0.0.1:5000"; IPv4.
  static Channel Listen(const std::string& address);
  static Channel Connect(const std::string& address);

  // Gives `mine` and takes the peer's, which is of the same type.
  template <typename Value>
  Value Swap(const Value& mine) {
    static_assert(std::is_trivially_copyable_v<Value>);
    Value theirs;
    Send(std::as_bytes(std::span(&mine, 1)));
    Receive(std::as_writable_bytes(std::span(&theirs, 1)));
    return theirs;
  }
  // Both have come here.
  void Sync() { Swap<uint8_t>(0); }

  void Send(std::span<const std::byte> bytes);
  void Receive(std::span<std::byte> bytes);

 private:
  explicit Channel(soft_nic::UniqueFd fd);
  soft_nic::UniqueFd fd_;
};

}  // namespace sumac::interop
