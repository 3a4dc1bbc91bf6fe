// Workers in one process over the soft NIC: connecting, one-sided operations, immediates, errors.

#include "transport/worker.h"

#include <atomic>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "transport/testing/fake_bootstrap.h"
#include "transport/testing/ranks_on_threads.h"
#include "verbs/device.h"

namespace sumac::transport {
namespace {

using testing::HasSubstr;

constexpr uint32_t kAll = kRemoteRead | kRemoteWrite | kRemoteAtomic;

// Registered memory that every rank tells every other about.
struct Shared {
  Shared(Worker& worker, size_t bytes, absl::string_view tag, uint32_t access = kAll)
      : memory(bytes) {
    auto registered = worker.Register(memory.data(), bytes, access);
    EXPECT_TRUE(registered.ok()) << registered.status();
    region = *std::move(registered);
    const auto all = worker.bootstrap().Exchange(
        tag, absl::StrCat(reinterpret_cast<uint64_t>(memory.data()), " ", region->rkey()),
        absl::Seconds(20));
    EXPECT_TRUE(all.ok()) << all.status();
    for (const std::string& each : *all) {
      const std::vector<std::string> parts = absl::StrSplit(each, ' ');
      RemoteSlice slice;
      EXPECT_TRUE(absl::SimpleAtoi(parts[0], &slice.addr));
      EXPECT_TRUE(absl::SimpleAtoi(parts[1], &slice.rkey));
      remote.push_back(slice);
    }
  }
  LocalSlice Local(size_t offset, size_t length) const {
    return {const_cast<std::byte*>(memory.data()) + offset, length, region->lkey()};
  }
  RemoteSlice At(int rank, size_t offset) const {
    RemoteSlice slice = remote[static_cast<size_t>(rank)];
    slice.addr += offset;
    return slice;
  }
  uint64_t Word(size_t offset) const {
    uint64_t word = 0;
    std::memcpy(&word, memory.data() + offset, sizeof word);
    return word;
  }

  std::vector<std::byte> memory;
  std::unique_ptr<RegisteredMemory> region;
  std::vector<RemoteSlice> remote;
};

void Meet(Worker& worker, absl::string_view tag) {
  const auto status = worker.bootstrap().Barrier(tag, absl::Seconds(20));
  ASSERT_TRUE(status.ok()) << status;
}

TEST(Worker, BadOptionsAreNamed) {
  FakeJob job(1);
  const auto refused = [&](auto change, const char* field) {
    WorkerOptions options = TestOptions();
    change(options);
    const auto worker = Worker::Create(job.rank(0), options);
    EXPECT_EQ(worker.status().code(), absl::StatusCode::kInvalidArgument) << field;
    EXPECT_THAT(std::string(worker.status().message()), HasSubstr(field));
  };
  refused([](WorkerOptions& o) { o.name = "a/b"; }, "name");
  refused([](WorkerOptions& o) { o.path_mtu_bytes = 1500; }, "path_mtu_bytes");
  refused([](WorkerOptions& o) { o.timeout = 0; }, "timeout");
  refused([](WorkerOptions& o) { o.timeout = 32; }, "timeout");
  refused([](WorkerOptions& o) { o.retry_count = 8; }, "retry_count");
  refused([](WorkerOptions& o) { o.rnr_retry = 8; }, "rnr_retry");
  refused([](WorkerOptions& o) { o.send_depth = 0; }, "send_depth");
  refused([](WorkerOptions& o) { o.send_depth = 1 << 20; }, "send_depth");
  refused([](WorkerOptions& o) { o.receive_depth = 0; }, "receive_depth");
  refused([](WorkerOptions& o) { o.eager_bytes_max = 1; }, "eager_bytes_max");
  refused([](WorkerOptions& o) { o.gid_index = -2; }, "gid_index");
  refused([](WorkerOptions& o) { o.connect_timeout = absl::ZeroDuration(); }, "connect_timeout");
  refused([](WorkerOptions& o) { o.service_level = 8; }, "service_level");
  WorkerOptions options = TestOptions();
  options.device = "nothing0";
  EXPECT_EQ(Worker::Create(job.rank(0), options).status().code(), absl::StatusCode::kNotFound);
  options = TestOptions();
  options.gid_index = 200;
  EXPECT_EQ(Worker::Create(job.rank(0), options).status().code(), absl::StatusCode::kNotFound);
}

TEST(Worker, TheSoftNicIsNotKnownToTheConnectionManager) {
  if (const auto soft = verbs::Device::Open("soft0"); !soft.ok()) {
    GTEST_SKIP() << soft.status();  // where rxe has its port
  }
  FakeJob job(1);
  WorkerOptions options;
  options.device = "soft0";
  options.connect = ConnectBy::kRdmaCm;
  const auto worker = Worker::Create(job.rank(0), options);
  EXPECT_EQ(worker.status().code(), absl::StatusCode::kInvalidArgument) << worker.status();
  EXPECT_THAT(std::string(worker.status().message()), HasSubstr("SUMAC_CONNECT=exchange"));
}

TEST(Worker, FillsInWhatItChose) {
  FakeJob job(1);
  const auto worker = Worker::Create(job.rank(0), TestOptions());
  ASSERT_TRUE(worker.ok()) << worker.status();
  EXPECT_EQ((*worker)->device_name(), test_support::TestDevice(0));
  EXPECT_GE((*worker)->options().gid_index, 0);
  EXPECT_EQ((*worker)->options().path_mtu_bytes, 4096u);
}

TEST(Worker, ConnectsFromBothSidesAtOnce) {
  FakeJob job(2);
  RunRanks(job, TestOptions(), [](Worker& worker, int rank) {
    EXPECT_EQ(worker.Find(1 - rank), nullptr);
    const auto endpoint = worker.Connect(1 - rank, Soon());
    ASSERT_TRUE(endpoint.ok()) << endpoint.status();
    EXPECT_EQ((*endpoint)->peer(), 1 - rank);
    EXPECT_EQ(worker.Find(1 - rank), *endpoint);
    EXPECT_EQ(*worker.Connect(1 - rank, Soon()), *endpoint);
    Meet(worker, "done");
  });
}

TEST(Worker, APeerThatComputesIsConnectedTo) {
  FakeJob job(2);
  RunRanks(job, TestOptions(), [](Worker& worker, int rank) {
    if (rank == 0) {
      const auto endpoint = worker.Connect(1, Soon());
      ASSERT_TRUE(endpoint.ok()) << endpoint.status();
    }
    Meet(worker, "connected");  // rank 1 does nothing but this
    // Its own view follows when its connector has seen rank 0's confirmation.
    const auto deadline = Soon();
    while (worker.Find(1 - rank) == nullptr && absl::Now() < deadline) std::this_thread::yield();
    EXPECT_NE(worker.Find(1 - rank), nullptr);
    Meet(worker, "done");
  });
}

TEST(Worker, EightRanksAllToAll) {
  FakeJob job(8);
  RunRanks(job, TestOptions(), [](Worker& worker, int rank) {
    const Shared shared(worker, 8 * sizeof(uint64_t) + 64, "memory");
    for (int peer = 0; peer < 8; ++peer) {  // each in another order, itself included
      const int to = (rank + peer) % 8;
      const auto endpoint = worker.Connect(to, Soon());
      ASSERT_TRUE(endpoint.ok()) << endpoint.status();
      const uint64_t mark = 100 + static_cast<uint64_t>(rank);
      std::memcpy(shared.Local(64, 8).addr, &mark, sizeof mark);
      ASSERT_TRUE((*endpoint)
                      ->Write(shared.Local(64, 8), shared.At(to, 8 * static_cast<size_t>(rank)))
                      .ok());
      const auto flushed = (*endpoint)->Flush(Soon());
      ASSERT_TRUE(flushed.ok()) << flushed;
    }
    Meet(worker, "written");
    for (size_t from = 0; from < 8; ++from) {
      // Slot 64 overlaps nobody's: 8 words of 8 bytes end there.
      EXPECT_EQ(shared.Word(8 * from), 100 + from) << "at rank " << rank;
    }
    Meet(worker, "done");
  });
}

TEST(Worker, APeerWithoutAWorkerIsADeadlineThatNamesIt) {
  FakeJob job(3);
  const auto worker = Worker::Create(job.rank(0), TestOptions());
  ASSERT_TRUE(worker.ok());
  const auto endpoint = (*worker)->Connect(2, absl::Now() + absl::Milliseconds(300));
  EXPECT_EQ(endpoint.status().code(), absl::StatusCode::kDeadlineExceeded) << endpoint.status();
  EXPECT_THAT(std::string(endpoint.status().message()), HasSubstr("rank 2"));
  EXPECT_EQ((*worker)->Connect(3, Soon()).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ((*worker)->Connect(-1, Soon()).status().code(), absl::StatusCode::kInvalidArgument);
  // What timed out goes on when the peer comes after all.
  const auto late = Worker::Create(job.rank(2), TestOptions());
  ASSERT_TRUE(late.ok());
  const auto again = (*worker)->Connect(2, Soon());
  EXPECT_TRUE(again.ok()) << again.status();
}

TEST(Worker, WorkersOfOneRankAreToldApartByName) {
  FakeJob job(2);
  WorkerOptions other = TestOptions();
  other.name = "other";
  RunRanks(job, TestOptions(), [&](Worker& first, int rank) {
    const auto second = Worker::Create(job.rank(rank), other);
    ASSERT_TRUE(second.ok()) << second.status();
    EXPECT_EQ(Worker::Create(job.rank(rank), other).status().code(),
              absl::StatusCode::kAlreadyExists);
    if (rank == 0) {
      ASSERT_TRUE((*second)->Connect(1, Soon()).ok());
      EXPECT_EQ(first.Find(1), nullptr);
      ASSERT_TRUE(first.Connect(1, Soon()).ok());
    }
    Meet(first, "done");
  });
}

TEST(Worker, OneSidedOperations) {
  FakeJob job(2);
  RunRanks(job, TestOptions(), [](Worker& worker, int rank) {
    constexpr size_t kBytes = 1 << 20;
    Shared shared(worker, 2 * kBytes, "memory");
    if (rank == 0) {
      Endpoint& peer = **worker.Connect(1, Soon());
      for (size_t i = 0; i < kBytes; ++i) shared.memory[i] = static_cast<std::byte>(i * 7);
      EXPECT_EQ(peer.room(), worker.options().send_depth);
      const auto write = peer.Write(shared.Local(0, kBytes), shared.At(1, 0));
      ASSERT_TRUE(write.ok()) << write.status();
      EXPECT_EQ(peer.room(), worker.options().send_depth - 1);
      const auto empty = peer.Write(shared.Local(0, 0), shared.At(1, 0));
      ASSERT_TRUE(empty.ok()) << empty.status();
      const auto read = peer.Read(shared.Local(kBytes, kBytes), shared.At(1, 0));
      ASSERT_TRUE(read.ok()) << read.status();
      EXPECT_EQ(peer.last_ticket(), *read);
      ASSERT_TRUE(peer.Wait(*read, Soon()).ok());
      EXPECT_TRUE(peer.Done(*write));
      EXPECT_EQ(std::memcmp(&shared.memory[0], &shared.memory[kBytes], kBytes), 0);

      const uint64_t before = shared.Word(0);  // what the peer's first word is now
      ASSERT_TRUE(peer.FetchAdd(shared.Local(8, 8), shared.At(1, 0), 5).ok());
      ASSERT_TRUE(
          peer.CompareSwap(shared.Local(16, 8), shared.At(1, 0), before + 5, 0x0102030405060708)
              .ok());
      ASSERT_TRUE(peer.CompareSwap(shared.Local(24, 8), shared.At(1, 0), 1, 2).ok());
      ASSERT_TRUE(peer.Flush(Soon()).ok());
      EXPECT_EQ(shared.Word(8), before);
      EXPECT_EQ(shared.Word(16), before + 5);
      EXPECT_EQ(shared.Word(24), 0x0102030405060708u);

      EXPECT_EQ(peer.FetchAdd(shared.Local(8, 4), shared.At(1, 0), 1).status().code(),
                absl::StatusCode::kInvalidArgument);
      EXPECT_EQ(peer.FetchAdd(shared.Local(8, 8), shared.At(1, 4), 1).status().code(),
                absl::StatusCode::kInvalidArgument);
      EXPECT_EQ(peer.Wait(peer.last_ticket() + 1, Soon()).code(),
                absl::StatusCode::kInvalidArgument);
    }
    Meet(worker, "done");
    if (rank == 1) {
      EXPECT_EQ(shared.Word(0), 0x0102030405060708u);
    }
  });
}

TEST(Worker, PostsUntilThereIsNoRoomThenGoesOn) {
  FakeJob job(2);
  WorkerOptions options = TestOptions();
  options.send_depth = 4;
  RunRanks(job, options, [](Worker& worker, int rank) {
    Shared shared(worker, 64, "memory");
    if (rank == 0) {
      Endpoint& peer = **worker.Connect(1, Soon());
      for (int i = 0; i < 4; ++i) {
        ASSERT_TRUE(peer.FetchAdd(shared.Local(8, 8), shared.At(1, 0), 1).ok());
      }
      EXPECT_EQ(peer.room(), 0u);
      EXPECT_EQ(peer.FetchAdd(shared.Local(8, 8), shared.At(1, 0), 1).status().code(),
                absl::StatusCode::kResourceExhausted);
      for (int i = 4; i < 1000; ++i) {
        ASSERT_TRUE(worker.Wait([&] { return peer.room() > 0; }, Soon()).ok());
        ASSERT_TRUE(peer.FetchAdd(shared.Local(8, 8), shared.At(1, 0), 1).ok());
      }
      ASSERT_TRUE(peer.Flush(Soon()).ok());
      EXPECT_EQ(shared.Word(8), 999u);
    }
    Meet(worker, "done");
  });
}

TEST(Worker, ImmediatesComeInOrderAfterTheirBytesUnderCredits) {
  constexpr uint32_t kSignals = 1000;
  FakeJob job(2);
  WorkerOptions options = TestOptions();
  options.receive_depth = 8;
  RunRanks(job, options, [&](Worker& worker, int rank) {
    Shared shared(worker, 4 * kSignals + 64, "memory");
    if (rank == 1) {
      uint32_t next = 0;
      worker.SetImmediateHandler([&](int from, uint32_t immediate) {
        EXPECT_EQ(from, 0);
        EXPECT_EQ(immediate, next);
        uint32_t word = 0;
        std::memcpy(&word, &shared.memory[4 * size_t{next}], sizeof word);
        EXPECT_EQ(word, 0xabc00000u + next);
        ++next;
      });
      Meet(worker, "handler set");
      const auto status = worker.Wait([&] { return next == kSignals; }, Soon());
      EXPECT_TRUE(status.ok()) << status << " after " << next;
      Meet(worker, "done");
      worker.SetImmediateHandler(nullptr);
      return;
    }
    Meet(worker, "handler set");
    Endpoint& peer = **worker.Connect(1, Soon());
    EXPECT_EQ(peer.immediate_room(), 8u);
    for (uint32_t i = 0; i < kSignals; ++i) {
      ASSERT_TRUE(worker.Wait([&] { return peer.immediate_room() > 0; }, Soon()).ok());
      const uint32_t word = 0xabc00000u + i;
      std::memcpy(&shared.memory[4 * size_t{i}], &word, sizeof word);
      const auto ticket =
          peer.WriteWithImmediate(shared.Local(4 * size_t{i}, 4), shared.At(1, 4 * size_t{i}), i);
      ASSERT_TRUE(ticket.ok()) << ticket.status();
    }
    ASSERT_TRUE(peer.Flush(Soon()).ok());
    Meet(worker, "done");
  });
}

TEST(Worker, ASleepingPeerGetsNoMoreImmediatesThanItHasReceives) {
  FakeJob job(2);
  WorkerOptions options = TestOptions();
  options.receive_depth = 4;
  RunRanks(job, options, [](Worker& worker, int rank) {
    Shared shared(worker, 64, "memory");
    if (rank == 0) {
      Endpoint& peer = **worker.Connect(1, Soon());
      for (int i = 0; i < 4; ++i) {
        ASSERT_TRUE(peer.WriteWithImmediate(shared.Local(0, 8), shared.At(1, 0), 1).ok());
      }
      EXPECT_EQ(peer.immediate_room(), 0u);
      EXPECT_GT(peer.room(), 0u);
      EXPECT_EQ(peer.WriteWithImmediate(shared.Local(0, 8), shared.At(1, 0), 1).status().code(),
                absl::StatusCode::kResourceExhausted);
      EXPECT_TRUE(peer.Write(shared.Local(0, 8), shared.At(1, 0)).ok());
      ASSERT_TRUE(peer.Flush(Soon()).ok());
      EXPECT_EQ(
          worker
              .Wait([&] { return peer.immediate_room() > 0; }, absl::Now() + absl::Milliseconds(50))
              .code(),
          absl::StatusCode::kDeadlineExceeded);
    }
    Meet(worker, "full");
    if (rank == 0) {
      Endpoint& peer = *worker.Find(1);
      EXPECT_TRUE(worker.Wait([&] { return peer.immediate_room() > 0; }, Soon()).ok());
    } else {
      while (worker.Progress() == 0) std::this_thread::yield();
    }
    Meet(worker, "done");
  });
}

TEST(Worker, AWrongKeyIsPermissionDeniedAndTouchesNothing) {
  FakeJob job(2);
  RunRanks(job, TestOptions(), [](Worker& worker, int rank) {
    const uint32_t access = rank == 1 ? uint32_t{kRemoteRead} : uint32_t{kAll};
    Shared shared(worker, 64, "memory", access);
    Endpoint& peer = **worker.Connect(1 - rank, Soon());
    Meet(worker, "connected");
    if (rank == 0) {
      ASSERT_TRUE(peer.Read(shared.Local(0, 8), shared.At(1, 0)).ok());
      ASSERT_TRUE(peer.Flush(Soon()).ok());
      std::memset(shared.memory.data(), 0x55, 64);
      const auto ticket = peer.Write(shared.Local(0, 8), shared.At(1, 0));  // no right to write
      ASSERT_TRUE(ticket.ok());
      const auto denied = peer.Flush(Soon());
      EXPECT_EQ(denied.code(), absl::StatusCode::kPermissionDenied) << denied;
      EXPECT_THAT(std::string(denied.message()),
                  HasSubstr(absl::StrCat("rank 1 (device ", worker.device_name(), ", QP 0x")));
      EXPECT_THAT(std::string(denied.message()), HasSubstr("IBV_WC_REM_ACCESS_ERR"));
      EXPECT_EQ(FailedRankOf(denied), -1);
      EXPECT_FALSE(peer.Done(*ticket));
      EXPECT_EQ(peer.status(), denied);
      EXPECT_GT(peer.room(), 0u);
      EXPECT_EQ(peer.Read(shared.Local(0, 8), shared.At(1, 0)).status(), denied);
      EXPECT_EQ(peer.Send({}, Soon()), denied);
      std::array<std::byte, 1> byte;
      EXPECT_EQ(peer.Receive(byte, Soon()).status(), denied);
    } else {
      std::array<std::byte, 1> byte;
      const auto broken = peer.Receive(byte, Soon());
      EXPECT_EQ(broken.status().code(), absl::StatusCode::kAborted) << broken.status();
      EXPECT_EQ(shared.Word(0), 0u);
    }
    Meet(worker, "done");
    EXPECT_FALSE(worker.bootstrap().failed());
  });
}

TEST(Worker, AJobFailureEndsAWait) {
  FakeJob job(3);
  RunRanks(job, TestOptions(), [&](Worker& worker, int rank) {
    if (rank == 1) {
      job.Fail(2, "test");
      return;
    }
    const auto status = worker.Wait([] { return false; }, Soon());
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_EQ(FailedRankOf(status), 2);
  });
}

TEST(Worker, RegistersWhatMayOnlyBeRead) {
  FakeJob job(1);
  const auto worker = Worker::Create(job.rank(0), TestOptions());
  ASSERT_TRUE(worker.ok());
  static const char text[] = "constant";
  EXPECT_TRUE((*worker)->Register(const_cast<char*>(text), sizeof text, kRemoteNone).ok());
  EXPECT_EQ((*worker)->Register(const_cast<char*>(text), sizeof text, 1u << 9).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ((*worker)->Register(nullptr, 0, kRemoteNone).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace sumac::transport
