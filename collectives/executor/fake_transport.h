// A network in memory for tests: deterministic under a seed, adversarial about time.
//
// Pieces of a pair arrive in order, but pairs overtake each other at random; a large piece's bytes
// are read only when it is delivered, released later still; a popped slot is freed
// at once. So a buffer that the executor reuses early shows as wrong bytes. It also checks
// the executor's side of the contract: sizes, registration, room.
#pragma once

#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "collectives/executor/piece_transport.h"

namespace sumac::collectives {

struct FakeNetworkOptions {
  uint64_t seed = 1;
  size_t slot_bytes = 64;
  size_t copied_bytes_max = 16;
  uint32_t slots_per_peer = 2;
};

class FakeNetwork {
 public:
  explicit FakeNetwork(const FakeNetworkOptions& options)
      : options_(options), random_(options.seed) {}

  const FakeNetworkOptions& options() const { return options_; }
  std::mt19937_64& random() { return random_; }

  struct Message {
    std::vector<std::byte> bytes;     // once delivered, or when copied
    const std::byte* data = nullptr;  // read at delivery
    size_t length = 0;
  };
  struct Pair {
    std::deque<Message> flying;
    std::deque<Message> arrived;
    uint64_t sent = 0, delivered = 0, released = 0, popped = 0, credited = 0;
  };
  Pair& At(int from, int to) { return pairs_[{from, to}]; }

  // One random thing happens. False when nothing is under way.
  bool Step() {
    std::vector<std::pair<Pair*, int>> choices;
    for (auto& [key, pair] : pairs_) {
      if (!pair.flying.empty()) choices.emplace_back(&pair, 0);
      if (pair.released < pair.delivered) choices.emplace_back(&pair, 1);
      if (pair.credited < pair.popped) choices.emplace_back(&pair, 2);
    }
    if (choices.empty()) return false;
    auto [pair, what] = choices[random_() % choices.size()];
    if (what == 1) {
      ++pair->released;
    } else if (what == 2) {
      ++pair->credited;
    } else {
      Message message = std::move(pair->flying.front());
      pair->flying.pop_front();
      if (message.bytes.empty()) message.bytes.assign(message.data, message.data + message.length);
      message.bytes.resize(options_.slot_bytes);  // a slot is whole, whatever lies in it
      pair->arrived.push_back(std::move(message));
      ++pair->delivered;
    }
    return true;
  }
  bool Idle() const {
    for (const auto& [key, pair] : pairs_) {
      if (!pair.flying.empty() || !pair.arrived.empty()) return false;
    }
    return true;
  }
  // This pair's pieces no longer arrive.
  void Cut(int from, int to) { At(from, to).flying.clear(), cut_ = {from, to}; }
  bool IsCut(int from, int to) const { return cut_ == std::pair(from, to); }

 private:
  const FakeNetworkOptions options_;
  std::mt19937_64 random_;
  std::map<std::pair<int, int>, Pair> pairs_;
  std::pair<int, int> cut_{-1, -1};
};

class FakeTransport final : public PieceTransport {
 public:
  FakeTransport(FakeNetwork& network, int rank) : network_(network), rank_(rank) {}

  size_t piece_bytes_max() const override { return network_.options().slot_bytes; }
  size_t copied_bytes_max() const override { return network_.options().copied_bytes_max; }

  absl::Status Connect(std::span<const Lane> lanes, absl::Time) override {
    for (const Lane& lane : lanes) {
      if (lane.peer == rank_) return absl::InternalError("a lane to oneself");
    }
    return absl::OkStatus();
  }
  absl::Status Wait(absl::FunctionRef<bool()> done, absl::Time) override {
    while (!done()) {
      if (!network_.Step() && !done()) return absl::DeadlineExceededError("nothing moves");
    }
    return absl::OkStatus();
  }
  absl::Status Poll() override { return absl::OkStatus(); }
  absl::Status RootCause(const absl::Status& status) override { return status; }

  absl::Status Attach(Buffer buffer, const void* addr, size_t bytes) override {
    attached_[buffer] = {static_cast<const std::byte*>(addr), bytes};
    return absl::OkStatus();
  }
  void Detach() override {
    attached_.erase(Buffer::kInput);
    attached_.erase(Buffer::kOutput);
  }
  absl::StatusOr<std::byte*> TempMemory(size_t bytes) override {
    if (temp_.size() < bytes) temp_.resize(bytes);
    attached_[Buffer::kTemp] = {temp_.data(), temp_.size()};
    return temp_.data();
  }

  absl::StatusOr<bool> CanSend(int peer) override {
    if (peer == fail_peer_) return absl::UnavailableError("rank is gone");
    const FakeNetwork::Pair& pair = network_.At(rank_, peer);
    return pair.sent - pair.credited < network_.options().slots_per_peer;
  }
  absl::StatusOr<uint64_t> Send(int peer, Buffer buffer, const std::byte* data,
                                size_t bytes) override {
    FakeNetwork::Pair& pair = network_.At(rank_, peer);
    if (pair.sent - pair.credited >= network_.options().slots_per_peer) {
      return absl::InternalError("no room");
    }
    if (bytes == 0 || bytes > piece_bytes_max()) return absl::InternalError("bad size");
    FakeNetwork::Message message;
    message.length = bytes;
    message.data = data;
    if (bytes <= copied_bytes_max()) {
      message.bytes.assign(data, data + bytes);
    } else {
      const auto& [addr, size] = attached_[buffer];
      if (addr == nullptr || data < addr || data + bytes > addr + size) {
        return absl::InternalError("not attached");
      }
    }
    copied_[peer].push_back(!message.bytes.empty());
    if (!network_.IsCut(rank_, peer)) pair.flying.push_back(std::move(message));
    return pair.sent++;
  }
  bool Released(int peer, uint64_t ticket) override {
    return copied_[peer][ticket] || ticket < network_.At(rank_, peer).released;
  }
  const std::byte* Front(int peer) override {
    FakeNetwork::Pair& pair = network_.At(peer, rank_);
    return pair.arrived.empty() ? nullptr : pair.arrived.front().bytes.data();
  }
  absl::Status Pop(int peer) override {
    FakeNetwork::Pair& pair = network_.At(peer, rank_);
    if (pair.arrived.empty()) return absl::InternalError("nothing to pop");
    pair.arrived.pop_front();
    ++pair.popped;
    return absl::OkStatus();
  }

  void FailSendsTo(int peer) { fail_peer_ = peer; }
  bool attached() const {
    return attached_.contains(Buffer::kInput) || attached_.contains(Buffer::kOutput);
  }

 private:
  FakeNetwork& network_;
  const int rank_;
  int fail_peer_ = -1;
  std::map<Buffer, std::pair<const std::byte*, size_t>> attached_;
  std::vector<std::byte> temp_;
  std::map<int, std::deque<bool>> copied_;  // per peer and ticket
};

}  // namespace sumac::collectives
