// Goodput over virtual links, as a table under version control: window x loss rate, and senders
// sharing one socket buffer.
//
// Virtual time makes it exact, so any change of the engine's behaviour under loss shows as a
// difference of text. `goodput_test --update` writes the table anew; look at the difference before
// committing it.
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "tests/simulation/endpoint.h"

namespace sumac::soft_nic::simulation {
namespace {

bool update = false;

constexpr uint32_t kMessageBytes = 64 << 10;
constexpr uint32_t kMessages = 256;            // per sender
constexpr uint64_t kLineRate = 1'250'000'000;  // 10 Gb/s
constexpr Duration kDelay = std::chrono::microseconds(20);

struct Setup {
  ibv_wr_opcode opcode = IBV_WR_RDMA_WRITE;
  uint32_t window_bytes = CongestionOptions{}.window_bytes_max;
  uint32_t loss = 0;
  uint32_t senders = 1;
  uint64_t queue_bytes = 0;
};

// Bytes per microsecond that arrive for good.
uint64_t Goodput(const Setup& setup) {
  VirtualNetwork network(7);
  LinkOptions link;
  link.delay = kDelay;
  link.bytes_per_second = kLineRate;
  link.queue_bytes = setup.queue_bytes;
  link.faults.loss = setup.loss;
  link.faults.until = kNever;
  const size_t there = network.AddLink(link);
  const size_t back = network.AddLink(link);

  std::vector<std::byte> memory(kMessageBytes);
  uint32_t completed = 0;
  bool failed = false;
  Time finished{};
  const Time start = network.now();
  const auto on_send = [&](const ibv_wc& completion, bool) {
    failed |= completion.status != IBV_WC_SUCCESS;
    if (++completed == kMessages * setup.senders) finished = network.now();
  };
  const auto nothing = [](const ibv_wc&, bool) {};
  std::vector<std::unique_ptr<Endpoint>> endpoints;
  for (uint32_t i = 0; i < setup.senders; ++i) {
    QueuePairLimits limits;
    limits.max_send_wr = kMessages;
    limits.signal_all = true;
    limits.qpn = 0x100 + 2 * i;
    auto sender = std::make_unique<Endpoint>(network, Way{there, back}, limits, on_send, nothing);
    limits.qpn = 0x101 + 2 * i;
    auto target = std::make_unique<Endpoint>(network, Way{back, there}, limits, nothing, nothing);
    ReceiveConfig receive;
    receive.mtu_bytes = 4096;
    receive.access_flags = testing::kAllAccess;
    SendConfig send;
    send.timeout = 10;  // 4.2 ms
    send.congestion.window_bytes_max = setup.window_bytes;
    receive.remote_qpn = 0x101 + 2 * i;
    sender->Connect(receive, send);
    receive.remote_qpn = 0x100 + 2 * i;
    target->Connect(receive, send);
    const uint32_t local = sender->keys.Add(memory.data(), memory.size(), testing::kAllAccess);
    const uint32_t remote = target->keys.Add(memory.data(), memory.size(), testing::kAllAccess);
    ibv_sge sge{reinterpret_cast<uint64_t>(memory.data()), kMessageBytes, local};
    ibv_send_wr wr{};
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.opcode = setup.opcode;
    wr.wr.rdma = {sge.addr, remote};
    for (uint32_t message = 0; message < kMessages; ++message) {
      EXPECT_EQ(sender->qp().PostSend(wr), 0);
    }
    endpoints.push_back(std::move(sender));
    endpoints.push_back(std::move(target));
  }
  for (size_t i = 0; i < endpoints.size(); i += 2) endpoints[i]->Ring();
  while (finished == Time{} && !failed && network.Step()) {
  }
  EXPECT_FALSE(failed);
  EXPECT_EQ(completed, kMessages * setup.senders);
  const auto microseconds = static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(finished - start).count());
  return uint64_t{kMessages} * setup.senders * kMessageBytes / microseconds;
}

void WindowTable(std::ostringstream* out, ibv_wr_opcode opcode, const char* name) {
  static constexpr uint32_t kLosses[] = {0, 1, 10, 100, 300, 1000};
  *out << "\n" << name << ": window (KiB) x loss (%)\n       ";
  char cell[32];
  for (const uint32_t loss : kLosses) {
    std::snprintf(cell, sizeof(cell), "%8.2f", loss / 100.0);
    *out << cell;
  }
  *out << "\n";
  for (const uint32_t window : {8u, 16u, 32u, 64u, 128u, 256u, 512u}) {
    std::snprintf(cell, sizeof(cell), "%7u", window);
    *out << cell;
    for (const uint32_t loss : kLosses) {
      Setup setup;
      setup.opcode = opcode;
      setup.window_bytes = window << 10;
      setup.loss = loss;
      std::snprintf(cell, sizeof(cell), "%8lu", Goodput(setup));
      *out << cell;
    }
    *out << "\n";
  }
}

void SharingTable(std::ostringstream* out) {
  *out << "\nWRITE, senders sharing a receiver's 208 KiB: all together\n";
  for (const uint32_t senders : {1u, 2u, 4u, 8u, 16u}) {
    Setup setup;
    setup.senders = senders;
    setup.queue_bytes = 208 << 10;
    char line[32];
    std::snprintf(line, sizeof(line), "%7u%8lu\n", senders, Goodput(setup));
    *out << line;
  }
}

TEST(Goodput, IsWhatTheGoldenFileSays) {
  std::ostringstream table;
  table << "Goodput in MB/s of virtual time: 64 KiB messages, MTU 4096, 10 Gb/s, 20 us each way, "
           "ACK timeout 4.2 ms.\n"
           "Written by goodput_test --update.\n";
  WindowTable(&table, IBV_WR_RDMA_WRITE, "WRITE");
  WindowTable(&table, IBV_WR_RDMA_READ, "READ");
  SharingTable(&table);
  if (update) {
    std::ofstream(SUMAC_GOODPUT_GOLDEN) << table.str();
    return;
  }
  std::ifstream file(SUMAC_GOODPUT_GOLDEN);
  std::ostringstream golden;
  golden << file.rdbuf();
  EXPECT_EQ(table.str(), golden.str()) << "if the change is meant: goodput_test --update";
}

}  // namespace
}  // namespace sumac::soft_nic::simulation

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i < argc; ++i) {
    if (std::string(argv[i]) != "--update") {
      std::fprintf(stderr, "usage: %s [--update]\n", argv[0]);
      return 2;
    }
    sumac::soft_nic::simulation::update = true;
  }
  return RUN_ALL_TESTS();
}
