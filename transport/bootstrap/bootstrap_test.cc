// Clients and server over real gRPC on loopback, in threads.

#include "transport/bootstrap/bootstrap.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

#include "transport/bootstrap/server.h"

namespace sumac::transport {
namespace {

constexpr absl::Duration kLong = absl::Seconds(20);

std::unique_ptr<BootstrapServer> Serve(int size, size_t value_bytes_max = 64 * 1024) {
  BootstrapServerOptions options;
  options.job = "test";
  options.size = size;
  options.value_bytes_max = value_bytes_max;
  auto server = BootstrapServer::Start(options);
  EXPECT_TRUE(server.ok()) << server.status();
  return *std::move(server);
}

BootstrapOptions As(const std::string& server, int rank, int size) {
  BootstrapOptions options;
  options.server = server;
  options.job = "test";
  options.rank = rank;
  options.size = size;
  return options;
}

// Runs `body` as every rank of a job of `size`, each on its own thread.
void RunRanks(int size, const std::function<void(Bootstrap&)>& body) {
  const auto server = Serve(size);
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < size; ++rank) {
    ranks.emplace_back([&, rank] {
      auto bootstrap = Bootstrap::Join(As(server->address(), rank, size));
      ASSERT_TRUE(bootstrap.ok()) << bootstrap.status();
      body(**bootstrap);
    });
  }
  for (std::thread& rank : ranks) rank.join();
}

TEST(Bootstrap, ExchangeGathersByRank) {
  RunRanks(8, [](Bootstrap& job) {
    for (int round = 0; round < 5; ++round) {
      const auto values =
          job.Exchange(absl::StrCat("x", round), absl::StrCat(job.rank(), "/", round), kLong);
      ASSERT_TRUE(values.ok()) << values.status();
      ASSERT_EQ(values->size(), 8u);
      for (int i = 0; i < 8; ++i)
        EXPECT_EQ((*values)[static_cast<size_t>(i)], absl::StrCat(i, "/", round));
      EXPECT_TRUE(job.Barrier(absl::StrCat("b", round), kLong).ok());
    }
    EXPECT_FALSE(job.failed());
  });
}

TEST(Bootstrap, SixtyFourClients) {
  RunRanks(64, [](Bootstrap& job) { EXPECT_TRUE(job.Barrier("b", kLong).ok()); });
}

TEST(Bootstrap, LookupWaitsForPublish) {
  RunRanks(2, [](Bootstrap& job) {
    if (job.rank() == 0) {
      const auto value = job.Lookup("key", kLong);
      ASSERT_TRUE(value.ok()) << value.status();
      EXPECT_EQ(*value, absl::string_view("a\0b", 3));
    } else {
      EXPECT_TRUE(job.Publish("key", absl::string_view("a\0b", 3), kLong).ok());
      EXPECT_EQ(job.Publish("key", "again", kLong).code(), absl::StatusCode::kAlreadyExists);
    }
    EXPECT_TRUE(job.Barrier("end", kLong).ok());
  });
}

TEST(Bootstrap, NotificationsReachTheHandlerAlsoWhenItComesLate) {
  RunRanks(2, [](Bootstrap& job) {
    if (job.rank() == 0) {
      EXPECT_TRUE(job.Notify(1, "hello", kLong).ok());
      EXPECT_TRUE(job.Barrier("sent", kLong).ok());
    } else {
      EXPECT_TRUE(job.Barrier("sent", kLong).ok());
      std::atomic<int> heard{0};
      job.SetNotificationHandler([&](int from, const std::string& topic) {
        EXPECT_EQ(from, 0);
        EXPECT_EQ(topic, "hello");
        ++heard;
      });
      const absl::Time deadline = absl::Now() + kLong;
      while (heard == 0 && absl::Now() < deadline) std::this_thread::yield();
      EXPECT_EQ(heard, 1);
      job.SetNotificationHandler({});
    }
    EXPECT_TRUE(job.Barrier("end", kLong).ok());
  });
}

TEST(Bootstrap, DeadlinesNameWhoIsMissing) {
  const auto server = Serve(3);
  auto options = As(server->address(), 1, 3);
  options.join_timeout = absl::Milliseconds(300);
  const auto alone = Bootstrap::Join(options);
  ASSERT_EQ(alone.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_NE(alone.status().message().find("missing: 0, 2"), absl::string_view::npos)
      << alone.status();

  RunRanks(2, [](Bootstrap& job) {
    if (job.rank() == 0) {
      const auto status = job.Barrier("lonely", absl::Milliseconds(200));
      EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
      EXPECT_NE(status.message().find("missing: 1"), absl::string_view::npos) << status;
      EXPECT_EQ(job.Lookup("nothing", absl::Milliseconds(100)).status().code(),
                absl::StatusCode::kDeadlineExceeded);
    }
    EXPECT_TRUE(job.Barrier("end", kLong).ok());
  });
}

TEST(Bootstrap, NoServerIsAnErrorInTime) {
  auto options = As("127.0.0.1:1", 0, 1);
  options.join_timeout = absl::Milliseconds(400);
  const absl::Time start = absl::Now();
  const auto joined = Bootstrap::Join(options);
  EXPECT_FALSE(joined.ok());
  EXPECT_NE(joined.status().message().find("127.0.0.1:1"), absl::string_view::npos)
      << joined.status();
  EXPECT_NE(joined.status().message().find("refused"), absl::string_view::npos) << joined.status();
  for (const char* address : {"nowhere", ":80", "host:"}) {
    EXPECT_EQ(Bootstrap::Join(As(address, 0, 1)).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_LT(absl::Now() - start, absl::Seconds(10));
}

TEST(Bootstrap, WrongSizeJobOrRankIsRefused) {
  const auto server = Serve(2);
  EXPECT_EQ(Bootstrap::Join(As(server->address(), 0, 3)).status().code(),
            absl::StatusCode::kFailedPrecondition);
  auto stranger = As(server->address(), 0, 2);
  stranger.job = "other";
  EXPECT_EQ(Bootstrap::Join(stranger).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Bootstrap::Join(As(server->address(), 2, 2)).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(Bootstrap, ReportedAndDeclaredFailuresReachEverybodyWaiting) {
  const auto server = Serve(3);
  std::vector<std::thread> ranks;
  std::vector<absl::Status> statuses(3);
  for (int rank = 0; rank < 3; ++rank) {
    ranks.emplace_back([&, rank] {
      auto job = Bootstrap::Join(As(server->address(), rank, 3));
      ASSERT_TRUE(job.ok()) << job.status();
      if (rank == 0) {
        (*job)->ReportFailure(2, "does not answer");
        statuses[0] = (*job)->Lookup("x", kLong).status();
      } else {
        statuses[static_cast<size_t>(rank)] = (*job)->Barrier("never", kLong);
      }
      // The answer of a call and the notice on the stream may overtake each other.
      const absl::Time deadline = absl::Now() + kLong;
      while (!(*job)->failed() && absl::Now() < deadline) std::this_thread::yield();
      EXPECT_EQ(FailedRankOf((*job)->failure()), 2);
    });
  }
  for (std::thread& rank : ranks) rank.join();
  for (const absl::Status& status : statuses) {
    EXPECT_EQ(FailedRankOf(status), 2) << status;
    EXPECT_NE(status.message().find("does not answer"), absl::string_view::npos) << status;
  }
}

TEST(Bootstrap, LeavingCleanlyIsNoFailure) {
  const auto server = Serve(2);
  auto first = std::thread([&] { ASSERT_TRUE(Bootstrap::Join(As(server->address(), 0, 2)).ok()); });
  auto second = Bootstrap::Join(As(server->address(), 1, 2));
  first.join();
  ASSERT_TRUE(second.ok());
  const auto status = (*second)->Barrier("b", kLong);
  EXPECT_FALSE((*second)->failed());
  EXPECT_EQ(FailedRankOf(status), 0);
  EXPECT_NE(status.message().find("left"), absl::string_view::npos) << status;
}

TEST(Bootstrap, OversizedValuesAreRefusedAndTheServerLives) {
  RunRanks(2, [](Bootstrap& job) {
    EXPECT_EQ(job.Publish(absl::StrCat("big", job.rank()), std::string(100'000, 'x'), kLong).code(),
              absl::StatusCode::kInvalidArgument);
    EXPECT_FALSE(
        job.Publish(absl::StrCat("huge", job.rank()), std::string(20 << 20, 'x'), kLong).ok());
    EXPECT_TRUE(job.Barrier("end", kLong).ok());
  });
}

TEST(Bootstrap, GarbageOnThePortDoesNotHurt) {
  const auto server = Serve(1);
  const std::string address = server->address();
  int port = 0;
  ASSERT_TRUE(absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port));
  for (int i = 0; i < 20; ++i) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<uint16_t>(port));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof(to)), 0);
    const std::string garbage = i % 2 == 0 ? std::string(1000, static_cast<char>(i * 37))
                                           : "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff";
    EXPECT_GT(send(fd, garbage.data(), garbage.size(), MSG_NOSIGNAL), 0);
    close(fd);
  }
  EXPECT_TRUE(Bootstrap::Join(As(address, 0, 1)).ok());
}

TEST(Bootstrap, RankZeroCanServeAndGoLast) {
  const auto probe = Serve(1);
  const std::string address = probe->address();  // a port that was free just now
  std::vector<std::thread> ranks;
  const std::string own = absl::StrCat("127.0.0.1:", 20000 + getpid() % 10000);
  for (int rank = 0; rank < 3; ++rank) {
    ranks.emplace_back([&, rank] {
      auto options = As(own, rank, 3);
      options.serve = rank == 0;
      auto job = Bootstrap::Join(options);
      ASSERT_TRUE(job.ok()) << job.status();
      EXPECT_TRUE((*job)->Barrier("b", kLong).ok());
      EXPECT_FALSE((*job)->failed());
    });
  }
  for (std::thread& rank : ranks) rank.join();
}

TEST(Bootstrap, AServerThatEndsEarlyEndsTheJoin) {
  auto server = Serve(3);
  const std::string address = server->address();
  absl::Status status;
  std::thread rank([&] { status = Bootstrap::Join(As(address, 0, 3)).status(); });
  // Until the server knows the rank.
  auto probe = As(address, 1, 3);
  probe.join_timeout = absl::Milliseconds(100);
  while (Bootstrap::Join(probe).status().message().find("missing: 2") == absl::string_view::npos) {
  }
  server.reset();
  rank.join();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_NE(status.message().find("before all ranks had joined"), absl::string_view::npos)
      << status;
}

// Many at a time, on a server whose threads could not wait for each.
TEST(Bootstrap, HundredsOfLookupsWaitAtOnce) {
  RunRanks(2, [](Bootstrap& job) {
    constexpr int kWaiting = 500;
    std::vector<std::thread> waiting;
    std::atomic<int> found{0};
    if (job.rank() == 0) {
      for (int i = 0; i < kWaiting; ++i) {
        waiting.emplace_back([&, i] {
          const auto value = job.Lookup(absl::StrCat("key", i % 7), kLong);
          EXPECT_TRUE(value.ok()) << value.status();
          if (value.ok()) ++found;
        });
      }
    }
    EXPECT_TRUE(job.Barrier("begun", kLong).ok());
    if (job.rank() == 1) {
      for (int i = 0; i < 7; ++i) EXPECT_TRUE(job.Publish(absl::StrCat("key", i), "v", kLong).ok());
    }
    for (std::thread& each : waiting) each.join();
    if (job.rank() == 0) {
      EXPECT_EQ(found, kWaiting);
    }
    EXPECT_TRUE(job.Barrier("end", kLong).ok());
  });
}

TEST(Bootstrap, TwoServersOnOnePortIsAnError) {
  const auto server = Serve(1);
  BootstrapServerOptions options;
  options.listen = server->address();
  const auto second = BootstrapServer::Start(options);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace sumac::transport
