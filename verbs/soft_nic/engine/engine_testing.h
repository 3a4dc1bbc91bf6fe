// Ports for tests of the engine: memory with keys, a list of completions, a list of packets, and
// one queue pair whose peer is the test itself (in the manner of packetdrill: post, expect a
// packet, inject a packet).
//
// Tests and benchmarks only; everything runs on the test's thread and allocates freely.
#pragma once

#include <gtest/gtest.h>
#include <infiniband/verbs.h>

#include <chrono>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

#include "verbs/soft_nic/engine/queue_pair.h"

namespace sumac::soft_nic::testing {

// Registered regions; a region's key is both its local and its remote key.
class TestMemory : public Memory {
 public:
  uint32_t Add(void* bytes, size_t length, int access) {
    regions_.push_back({++last_key_, reinterpret_cast<uint64_t>(bytes), length, access});
    return last_key_;
  }
  void Remove(uint32_t key) {
    std::erase_if(regions_, [key](const Region& region) { return region.key == key; });
  }

  std::byte* Local(uint32_t key, uint64_t addr, size_t length, bool write) override {
    return Find(key, addr, length, write ? IBV_ACCESS_LOCAL_WRITE : 0);
  }
  std::byte* Remote(uint32_t key, uint64_t addr, size_t length, int access) override {
    EXPECT_NE(length, 0u);
    return Find(key, addr, length, access);
  }
  bool Invalidate(uint32_t key) override {
    const size_t before = regions_.size();
    Remove(key);
    return regions_.size() != before;
  }

 private:
  struct Region {
    uint32_t key;
    uint64_t addr;
    size_t length;
    int access;
  };

  std::byte* Find(uint32_t key, uint64_t addr, size_t length, int access) {
    for (const Region& region : regions_) {
      if (region.key != key) continue;
      if (addr < region.addr || length > region.length ||
          addr - region.addr > region.length - length || (region.access & access) != access) {
        return nullptr;
      }
      return reinterpret_cast<std::byte*>(addr);
    }
    return nullptr;
  }

  std::vector<Region> regions_;
  uint32_t last_key_ = 100;
};

class CompletionLog : public CompletionSink {
 public:
  void Push(const ibv_wc& completion, bool solicited) override {
    list.push_back(completion);
    solicited_flags.push_back(solicited);
  }
  std::vector<ibv_wc> list;
  std::vector<bool> solicited_flags;
};

struct Packet {
  PacketHeader header;
  std::vector<std::byte> payload;

  PacketView view() const { return {header, FlagsOf(header.opcode), payload}; }
};

class PacketList : public TransmitSink {
 public:
  bool Transmit(const OutgoingPacket& packet) override {
    if (room == 0) return false;
    --room;
    Packet copy{packet.header, {}};
    for (const iovec& piece : packet.payload) {
      const auto* bytes = static_cast<const std::byte*>(piece.iov_base);
      copy.payload.insert(copy.payload.end(), bytes, bytes + piece.iov_len);
    }
    EXPECT_EQ((copy.payload.size() + packet.header.pad_bytes) % 4, 0u);
    list.push_back(std::move(copy));
    return true;
  }
  std::deque<Packet> list;
  size_t room = ~size_t{0};
};

inline constexpr uint32_t kLocalQpn = 0x11;
inline constexpr uint32_t kRemoteQpn = 0x22;
inline constexpr int kAllAccess = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE |
                                  IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC;

// One connected queue pair with 64 KiB of registered memory; the test plays the peer.
class Engine {
 public:
  Engine() {
    receive.remote_qpn = kRemoteQpn;
    receive.expected_psn = 0x500;
    receive.mtu_bytes = 1024;
    receive.access_flags = kAllAccess;
    send.first_psn = 0x100;
    send.congestion.tail_probe_us = 0;  // tests of other timers want to see those alone
    memory.resize(64 << 10);
    for (size_t i = 0; i < memory.size(); ++i) memory[i] = static_cast<std::byte>(i * 7 + 3);
  }

  void Connect() {
    limits.qpn = kLocalQpn;
    key = keys.Add(memory.data(), memory.size(), kAllAccess);
    qp = std::make_unique<QueuePair>(limits, keys, sends, receives);
    qp->ToInit();
    qp->ToReadyToReceive(receive);
    qp->ToReadyToSend(send);
  }

  uint64_t addr(size_t offset) const { return reinterpret_cast<uint64_t>(memory.data() + offset); }
  ibv_sge Sge(size_t offset, uint32_t length) const { return {addr(offset), length, key}; }

  // Posts with one piece; the work request id counts from 1.
  int Post(ibv_wr_opcode opcode, size_t offset, uint32_t length, unsigned flags = IBV_SEND_SIGNALED,
           uint64_t remote_addr = 0x10000) {
    ibv_sge sge = Sge(offset, length);
    ibv_send_wr wr{};
    wr.wr_id = ++last_wr_id;
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.opcode = opcode;
    wr.send_flags = flags;
    if (opcode == IBV_WR_ATOMIC_CMP_AND_SWP || opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
      wr.wr.atomic = {remote_addr, 11, 22, 0x77};
    } else {
      wr.wr.rdma = {remote_addr, 0x77};
    }
    const int error = qp->PostSend(wr);
    qp->OnDoorbell(now);
    return error;
  }

  int PostReceive(size_t offset, uint32_t length) {
    ibv_sge sge = Sge(offset, length);
    ibv_recv_wr wr{};
    wr.wr_id = ++last_receive_id;
    wr.sg_list = &sge;
    wr.num_sge = 1;
    return qp->PostReceive(wr);
  }

  // What the queue pair sends now.
  std::deque<Packet> Transmit(uint32_t budget = 1000) {
    PacketList sink;
    while (qp->PollTransmit(sink, now, budget) && budget == 1000) {
    }
    return std::move(sink.list);
  }

  void Inject(const PacketHeader& header, size_t payload_bytes = 0, uint8_t fill = 0xab) {
    Packet packet{header, std::vector<std::byte>(payload_bytes, std::byte{fill})};
    packet.header.dest_qpn = kLocalQpn;
    qp->OnPacket(packet.view(), now);
  }
  void Inject(Opcode opcode, uint32_t psn, size_t payload_bytes = 0, uint8_t fill = 0xab) {
    PacketHeader header;
    header.opcode = opcode;
    header.psn = psn;
    header.ack_request = true;
    header.syndrome = kSyndromeAckNoCredits;
    Inject(header, payload_bytes, fill);
  }
  void InjectAck(uint32_t psn, uint8_t syndrome = kSyndromeAckNoCredits) {
    PacketHeader header;
    header.opcode = Opcode::kRcAcknowledge;
    header.psn = psn;
    header.syndrome = syndrome;
    Inject(header);
  }
  // A request of the peer with RETH, to our memory.
  void InjectReth(Opcode opcode, uint32_t psn, size_t offset, uint32_t length,
                  size_t payload_bytes = 0, uint8_t fill = 0xab) {
    PacketHeader header;
    header.opcode = opcode;
    header.psn = psn;
    header.ack_request = true;
    header.remote_addr = addr(offset);
    header.rkey = key;
    header.dma_length = length;
    Inject(header, payload_bytes, fill);
  }
  void InjectAtomic(Opcode opcode, uint32_t psn, size_t offset, uint64_t swap_or_add,
                    uint64_t compare = 0) {
    PacketHeader header;
    header.opcode = opcode;
    header.psn = psn;
    header.remote_addr = addr(offset);
    header.rkey = key;
    header.swap_or_add = swap_or_add;
    header.compare = compare;
    Inject(header);
  }

  // Moves time to the next deadline and lets it pass. Returns how far that was.
  Duration FireTimer() {
    const Time due = qp->NextTimeout();
    EXPECT_NE(due, kNever);
    if (due == kNever) return Duration::zero();
    const Duration waited = due - now;
    now = due;
    qp->OnTimeout(now);
    return waited;
  }

  uint64_t Word(size_t offset) const {
    uint64_t word;
    std::memcpy(&word, memory.data() + offset, sizeof(word));
    return word;
  }
  void SetWord(size_t offset, uint64_t word) {
    std::memcpy(memory.data() + offset, &word, sizeof(word));
  }

  QueuePairLimits limits;
  ReceiveConfig receive;
  SendConfig send;
  TestMemory keys;
  CompletionLog sends;
  CompletionLog receives;
  std::vector<std::byte> memory;
  uint32_t key = 0;
  std::unique_ptr<QueuePair> qp;
  Time now = Time(std::chrono::seconds(1));
  uint64_t last_wr_id = 0;
  uint64_t last_receive_id = 1000;
};

// "opcode@psn" of each packet, for comparing whole exchanges at a glance.
inline std::string Describe(const std::deque<Packet>& packets) {
  std::string text;
  for (const Packet& packet : packets) {
    if (!text.empty()) text += ", ";
    text += NameOf(packet.header.opcode);
    char number[16];
    std::snprintf(number, sizeof(number), "@%x", packet.header.psn);
    text += number;
  }
  return text;
}

}  // namespace sumac::soft_nic::testing
