// Workers in real processes, with a real bootstrap server: what threads in one process can't show.

#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/support/job.h"
#include "transport/worker.h"

namespace sumac::transport {
namespace {

using test_support::ForkedJob;
using Bytes = std::vector<std::byte>;

constexpr std::chrono::seconds kPatience{60};

absl::Time Soon() { return absl::Now() + absl::Seconds(30); }

using RankBody = std::function<void(Worker& worker, int rank)>;

ForkedJob::Body WithWorker(const RankBody& body) {
  return [body](const BootstrapOptions& options) {
    auto bootstrap = Bootstrap::Join(options);
    ASSERT_TRUE(bootstrap.ok()) << bootstrap.status();
    auto worker = Worker::Create(**bootstrap, {});
    ASSERT_TRUE(worker.ok()) << worker.status();
    body(**worker, options.rank);
  };
}

void Say(const char* text) {
  std::puts(text);
  std::fflush(stdout);
}

Bytes Pattern(size_t length, uint32_t seed) {
  Bytes bytes(length);
  uint32_t state = seed * 2654435761u + 1;
  for (std::byte& each : bytes) {
    state = state * 1664525u + 1013904223u;
    each = static_cast<std::byte>(state >> 24);
  }
  return bytes;
}

TEST(WorkerProcesses, AllToAllMessagesOfAllSizes) {
  constexpr int kRanks = 4;
  ForkedJob job(kRanks, WithWorker([](Worker& worker, int rank) {
                  const std::vector<size_t> sizes = {0, 1, 4096, 4097, 65536, 5 << 20};
                  // Pairs in a fixed order, the lower rank sends first: no two long sends meet.
                  for (int step = 1; step < kRanks; ++step) {
                    const int peer = rank ^ step;
                    const auto endpoint = worker.Connect(peer, Soon());
                    ASSERT_TRUE(endpoint.ok()) << endpoint.status();
                    for (const bool lower_sends : {true, false}) {
                      for (size_t size : sizes) {
                        const bool send = (rank < peer) == lower_sends;
                        const uint32_t seed = static_cast<uint32_t>(send ? rank : peer);
                        const Bytes message = Pattern(size, seed);
                        if (send) {
                          const auto status = (*endpoint)->Send(message, Soon());
                          ASSERT_TRUE(status.ok()) << status;
                        } else {
                          Bytes got(size);
                          const auto length = (*endpoint)->Receive(got, Soon());
                          ASSERT_TRUE(length.ok()) << length.status();
                          ASSERT_EQ(*length, size);
                          ASSERT_TRUE(got == message) << size << " bytes from rank " << peer;
                        }
                      }
                    }
                  }
                }));
  job.ExpectAllOk(kPatience);
}

TEST(WorkerProcesses, EightRanksConnectToAll) {
  ForkedJob job(8, WithWorker([](Worker& worker, int rank) {
                  for (int i = 1; i < 8; ++i) {
                    const int peer = (rank + i) % 8;
                    const auto endpoint = worker.Connect(peer, Soon());
                    ASSERT_TRUE(endpoint.ok()) << endpoint.status();
                    const std::byte byte = static_cast<std::byte>(rank);
                    ASSERT_TRUE((*endpoint)->Send({&byte, 1}, Soon()).ok());
                  }
                  for (int peer = 0; peer < 8; ++peer) {
                    if (peer == rank) continue;
                    std::byte byte{};
                    const auto length = worker.Find(peer)->Receive({&byte, 1}, Soon());
                    ASSERT_TRUE(length.ok()) << length.status();
                    EXPECT_EQ(std::to_integer<int>(byte), peer);
                  }
                  ASSERT_TRUE(worker.bootstrap().Barrier("done", absl::Seconds(30)).ok());
                }));
  job.ExpectAllOk(kPatience);
}

TEST(WorkerProcesses, APassiveTargetServesWhileItComputes) {
  ForkedJob job(
      2, WithWorker([](Worker& worker, int rank) {
        std::vector<uint64_t> memory(1024);
        const auto region = worker.Register(memory.data(), memory.size() * 8,
                                            kRemoteRead | kRemoteWrite | kRemoteAtomic);
        ASSERT_TRUE(region.ok()) << region.status();
        const auto all = worker.bootstrap().Exchange(
            "memory",
            absl::StrCat(reinterpret_cast<uint64_t>(memory.data()), " ", (*region)->rkey()),
            absl::Seconds(30));
        ASSERT_TRUE(all.ok()) << all.status();
        if (rank == 0) {
          RemoteSlice target;
          const std::vector<std::string> parts = absl::StrSplit((*all)[1], ' ');
          ASSERT_TRUE(absl::SimpleAtoi(parts[0], &target.addr));
          ASSERT_TRUE(absl::SimpleAtoi(parts[1], &target.rkey));
          const auto endpoint = worker.Connect(1, Soon());
          ASSERT_TRUE(endpoint.ok()) << endpoint.status();
          for (int i = 0; i < 100; ++i) {
            ASSERT_TRUE(
                (*endpoint)->FetchAdd({memory.data(), 8, (*region)->lkey()}, target, 1).ok());
          }
          const auto status = (*endpoint)->Flush(Soon());
          ASSERT_TRUE(status.ok()) << status;
          EXPECT_EQ(memory[0], 99u);
          ASSERT_TRUE(worker.bootstrap().Publish("end", "1", absl::Seconds(30)).ok());
        } else {
          // No verbs call at all until rank 0 is done.
          volatile uint64_t work = 0;
          for (int i = 0; i < 10'000'000; ++i) work = work + 1;
          ASSERT_TRUE(worker.bootstrap().Lookup("end", absl::Seconds(30)).ok());
          EXPECT_EQ(__atomic_load_n(&memory[0], __ATOMIC_ACQUIRE), 100u);
        }
        ASSERT_TRUE(worker.bootstrap().Barrier("done", absl::Seconds(30)).ok());
      }));
  job.ExpectAllOk(kPatience);
}

// What both sides of a killed rank see: a typed error that names it.
void ExpectNamed(const absl::Status& status, int rank) {
  EXPECT_EQ(FailedRankOf(status), rank) << status;
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
}

TEST(WorkerProcesses, AKilledRankIsATypedErrorForReceiverAndSender) {
  ForkedJob job(3, WithWorker([](Worker& worker, int rank) {
                  const auto victim = worker.Connect(rank == 1 ? 0 : 1, Soon());
                  ASSERT_TRUE(victim.ok()) << victim.status();
                  Say("connected");
                  if (rank == 1) {
                    for (;;) pause();
                  }
                  absl::Status status;
                  Bytes buffer(1000);
                  while (status.ok()) {
                    status = rank == 0 ? (*victim)->Receive(buffer, Soon()).status()
                                       : (*victim)->Send(buffer, Soon());
                  }
                  ExpectNamed(status, 1);
                  Say("saw it");
                }));
  for (int rank = 0; rank < 3; ++rank) {
    ASSERT_TRUE(job.ranks().WaitForOutput(rank, "connected", kPatience));
  }
  const auto killed = std::chrono::steady_clock::now();
  job.ranks().Kill(1);
  for (int rank : {0, 2}) {
    EXPECT_TRUE(job.ranks().WaitForOutput(rank, "saw it", kPatience));
  }
  const auto took = std::chrono::steady_clock::now() - killed;
  EXPECT_LT(std::chrono::duration_cast<std::chrono::seconds>(took).count(), 10);
  RecordProperty(
      "milliseconds",
      static_cast<int>(std::chrono::duration_cast<std::chrono::milliseconds>(took).count()));
  for (int rank : {0, 2}) {
    const auto outcome = job.ranks().WaitFor(rank, kPatience);
    EXPECT_TRUE(outcome.ok()) << outcome.ToString();
  }
}

TEST(WorkerProcesses, AStoppedRankIsFoundByItsSilenceAndReportedToAll) {
  // Its process lives, its connection to the bootstrap stands, and nobody has anything to send to
  // it. The soft NIC stops with its process, so the probe of who waits for it tells; other devices
  // go on answering without it, and the bootstrap tells when its keepalives stay unanswered.
  ForkedJob job(3, WithWorker([](Worker& worker, int rank) {
                  if (rank == 2) {
                    Say("connected");
                    // Talks to nobody, and hears of it all the same.
                    ExpectNamed(worker.Wait([] { return false; }, Soon()), 1);
                    return;
                  }
                  const auto endpoint = worker.Connect(1 - rank, Soon());
                  ASSERT_TRUE(endpoint.ok()) << endpoint.status();
                  Say("connected");
                  const auto received = (*endpoint)->Receive({}, Soon());
                  ExpectNamed(received.status(), 1);
                  if (worker.device_name() == "soft0") {
                    EXPECT_THAT(std::string(received.status().message()),
                                testing::HasSubstr("IBV_WC_RETRY_EXC_ERR"));
                  } else if (worker.device_name().rfind("rxe", 0) == 0) {
                    EXPECT_THAT(std::string(received.status().message()),
                                testing::Not(testing::HasSubstr("IBV_WC_")));
                  }
                }));
  for (int rank = 0; rank < 3; ++rank) {
    ASSERT_TRUE(job.ranks().WaitForOutput(rank, "connected", kPatience));
  }
  job.ranks().Kill(1, SIGSTOP);
  for (int rank : {0, 2}) {
    const auto outcome = job.ranks().WaitFor(rank, kPatience);
    EXPECT_TRUE(outcome.ok()) << outcome.ToString();
  }
  job.ranks().Kill(1);
}

}  // namespace
}  // namespace sumac::transport
