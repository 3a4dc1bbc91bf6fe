// For the tests of this folder: addresses of one's own, a thread that serves a link, a handler that
// remembers.
#pragma once

#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <thread>
#include <vector>

#include "verbs/soft_nic/link/address.h"
#include "verbs/soft_nic/link/link.h"

namespace sumac::soft_nic {

// A loopback address that no other test, nor another run of this one, uses at the same time.
inline Gid OwnLoopbackAddress() {
  static std::atomic<uint32_t> count{0};
  const auto pid = static_cast<uint32_t>(::getpid());
  return GidOfIpv4(127, static_cast<uint8_t>(100 + (count++ + (pid >> 16) * 16) % 150),
                   static_cast<uint8_t>(pid >> 8), static_cast<uint8_t>(pid));
}

// Stands for the device's helper thread.
class ControlThread {
 public:
  explicit ControlThread(Link& link) : link_(link), thread_([this] { Run(); }) {}
  ~ControlThread() {
    stop_ = true;
    thread_.join();
  }

 private:
  void Run() {
    while (!stop_) {
      pollfd polled{link_.control_fd(), POLLIN, 0};
      if (::poll(&polled, 1, 5) > 0) link_.OnControlReadable();
    }
  }

  Link& link_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

struct ReceivedPacket {
  Gid source{};
  PacketHeader header;
  std::vector<std::byte> payload;
};

class RecordingHandler : public PacketHandler {
 public:
  void OnPacket(const Gid& source, const PacketView& packet) override {
    packets.push_back({source, packet.header, {packet.payload.begin(), packet.payload.end()}});
  }
  std::vector<ReceivedPacket> packets;
};

// Receives, `budget` packets at a time, until `handler` has `count`; false after a generous
// deadline.
inline bool ReceiveUntil(Link& link, RecordingHandler& handler, size_t count, size_t budget = 64) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (handler.packets.size() < count && std::chrono::steady_clock::now() < end) {
    pollfd polled{link.poll_fd(), POLLIN, 0};
    ::poll(&polled, 1, 20);
    link.Receive(handler, budget);
  }
  return handler.packets.size() >= count;
}

}  // namespace sumac::soft_nic
