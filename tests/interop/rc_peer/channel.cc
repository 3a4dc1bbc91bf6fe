#include "tests/interop/rc_peer/channel.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <thread>

namespace sumac::interop {
namespace {

constexpr int kPatienceMs = 60'000;

[[noreturn]] void Fail(const std::string& what) {
  throw std::runtime_error(what + ": " + std::strerror(errno));
}

sockaddr_in Parse(const std::string& address) {
  const size_t colon = address.rfind(':');
  sockaddr_in parsed{};
  parsed.sin_family = AF_INET;
  if (colon == std::string::npos ||
      inet_pton(AF_INET, address.substr(0, colon).c_str(), &parsed.sin_addr) != 1) {
    throw std::runtime_error("'" + address + "' is not ADDRESS:PORT");
  }
  parsed.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(colon + 1))));
  return parsed;
}

void Await(int fd, short events, const char* what) {
  pollfd entry{fd, events, 0};
  const int ready = poll(&entry, 1, kPatienceMs);
  if (ready < 0) Fail("poll");
  if (ready == 0) throw std::runtime_error(std::string("the peer did not ") + what + " in 60 s");
}

}  // namespace

Channel::Channel(soft_nic::UniqueFd fd) : fd_(std::move(fd)) {
  const int on = 1;
  setsockopt(fd_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

Channel Channel::Listen(const std::string& address) {
  const sockaddr_in local = Parse(address);
  const soft_nic::UniqueFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (bind(listener.get(), reinterpret_cast<const sockaddr*>(&local), sizeof(local)) != 0 ||
      listen(listener.get(), 1) != 0) {
    Fail("listening on " + address);
  }
  Await(listener.get(), POLLIN, "connect");
  soft_nic::UniqueFd accepted(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (accepted.get() < 0) Fail("accepting on " + address);
  return Channel(std::move(accepted));
}

Channel Channel::Connect(const std::string& address) {
  const sockaddr_in remote = Parse(address);
  // Who listens may not have begun.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(kPatienceMs);
  for (;;) {
    soft_nic::UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&remote), sizeof(remote)) == 0) {
      return Channel(std::move(fd));
    }
    if (errno != ECONNREFUSED || std::chrono::steady_clock::now() >= deadline) {
      Fail("connecting to " + address);
    }
    std::this_thread::yield();
  }
}

void Channel::Send(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0) Fail("telling the peer");
    bytes = bytes.subspan(static_cast<size_t>(sent));
  }
}

void Channel::Receive(std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    Await(fd_.get(), POLLIN, "answer");
    const ssize_t received = recv(fd_.get(), bytes.data(), bytes.size(), 0);
    if (received < 0) Fail("hearing from the peer");
    if (received == 0) throw std::runtime_error("the peer has gone");
    bytes = bytes.subspan(static_cast<size_t>(received));
  }
}

}  // namespace sumac::interop
