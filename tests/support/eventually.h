// Waits for what another thread or process is about to bring about, under a deadline that only ends
// a hang.
//
// For tests that would otherwise read a counter before the one who moves it was scheduled.
#pragma once

#include <chrono>
#include <thread>

namespace sumac::test_support {

// Whether `condition` came true within 30 seconds; it is asked again and again on the calling
// thread.
template <typename Condition>
bool Eventually(Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!condition()) {
    if (std::chrono::steady_clock::now() >= deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

}  // namespace sumac::test_support
