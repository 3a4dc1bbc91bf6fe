// Ranks that are real processes, and are killed: a member, the rank that serves, and one that has
// only begun to join.

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

#include "tests/support/multi_process.h"
#include "transport/bootstrap/bootstrap.h"

namespace sumac::transport {
namespace {

using test_support::ForkedRanks;

constexpr absl::Duration kLong = absl::Seconds(30);
constexpr std::chrono::seconds kPatience{40};

// A port of loopback that was free just now.
std::string FreeAddress() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), length), 0);
  EXPECT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length), 0);
  close(fd);
  return absl::StrCat("127.0.0.1:", ntohs(address.sin_port));
}

BootstrapOptions As(const std::string& server, int rank, int size) {
  BootstrapOptions options;
  options.server = server;
  options.job = "test";
  options.rank = rank;
  options.size = size;
  options.serve = rank == 0;
  return options;
}

void Say(const std::string& line) {
  std::puts(line.c_str());
  std::fflush(stdout);
}

void WaitToBeKilled() {
  for (;;) pause();
}

// Waits in a way of its own for what never comes; the status must name the victim.
absl::Status WaitFor(Bootstrap& job, int way) {
  switch (way % 3) {
    case 0:
      return job.Barrier("never", kLong);
    case 1:
      return job.Lookup("never", kLong).status();
    default:
      while (!job.failed()) std::this_thread::yield();
      return job.failure();
  }
}

void KillOneOf(int size, int victim) {
  const std::string server = FreeAddress();
  ForkedRanks ranks(size, [&](int rank) {
    auto job = Bootstrap::Join(As(server, rank, size));
    ASSERT_TRUE(job.ok()) << job.status();
    ASSERT_TRUE((*job)->Barrier("all here", kLong).ok());
    Say("waiting");
    if (rank == victim) WaitToBeKilled();
    const absl::Status status = WaitFor(**job, rank);
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_EQ(FailedRankOf(status), victim) << status;
    EXPECT_NE(status.message().find(absl::StrCat("rank ", victim)), absl::string_view::npos)
        << status;
    EXPECT_TRUE((*job)->failed() || rank % 3 != 2);
  });
  for (int rank = 0; rank < size; ++rank) {
    ASSERT_TRUE(ranks.WaitForOutput(rank, "waiting", kPatience)) << rank;
  }
  const absl::Time killed = absl::Now();
  ranks.Kill(victim);
  for (int rank = 0; rank < size; ++rank) {
    const auto outcome = ranks.WaitFor(rank, kPatience);
    EXPECT_EQ(outcome.ok(), rank != victim) << outcome.ToString();
  }
  testing::Test::RecordProperty("milliseconds",
                                static_cast<int>(absl::ToInt64Milliseconds(absl::Now() - killed)));
  // Loose, for loaded machines; usual are some tens of milliseconds, exits included.
  EXPECT_LT(absl::Now() - killed, absl::Seconds(20));
}

TEST(BootstrapProcesses, AKilledMemberIsNamedToAll) { KillOneOf(5, 3); }
TEST(BootstrapProcesses, AKilledServingRankIsNamedToAll) { KillOneOf(4, 0); }

TEST(BootstrapProcesses, ARankThatDiedWhileJoiningIsMissing) {
  const std::string server = FreeAddress();
  ForkedRanks ranks(3, [&](int rank) {
    auto options = As(server, rank, 4);  // rank 3 never comes
    options.join_timeout = rank == 0 ? absl::Seconds(3) : kLong;
    if (rank == 2) Say("joining");
    const auto job = Bootstrap::Join(options);
    EXPECT_FALSE(job.ok());
    // Rank 1 would wait longer, but rank 0 gives up and takes the server along.
    const absl::string_view said = rank == 0 ? "missing: 2, 3" : "before all ranks had joined";
    EXPECT_NE(job.status().message().find(said), absl::string_view::npos) << job.status();
  });
  ASSERT_TRUE(ranks.WaitForOutput(2, "joining", kPatience));
  ranks.Kill(2);
  for (const int rank : {0, 1}) {
    const auto outcome = ranks.WaitFor(rank, kPatience);
    EXPECT_TRUE(outcome.ok()) << outcome.ToString();
  }
}

// Holds the address until as many connections have come, and closes them all.
void TurnAway(const std::string& server, int connections) {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  const int on = 1;
  EXPECT_EQ(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int port = 0;
  EXPECT_TRUE(absl::SimpleAtoi(server.substr(server.rfind(':') + 1), &port));
  address.sin_port = htons(static_cast<uint16_t>(port));
  EXPECT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_EQ(listen(listener, connections), 0);
  for (int i = 0; i < connections; ++i) {
    const int fd = accept(listener, nullptr, nullptr);
    EXPECT_GE(fd, 0);
    close(fd);
  }
  close(listener);
}

// The others have tried in vain before the rank that serves is there.
TEST(BootstrapProcesses, RanksWaitForTheirServer) {
  const std::string server = FreeAddress();
  ForkedRanks ranks(4, [&](int rank) {
    if (rank == 0) TurnAway(server, 3);
    auto job = Bootstrap::Join(As(server, rank, 4));
    ASSERT_TRUE(job.ok()) << job.status();
    EXPECT_TRUE((*job)->Barrier("b", kLong).ok());
  });
  for (const auto& outcome : ranks.Wait(kPatience)) EXPECT_TRUE(outcome.ok()) << outcome.ToString();
}

TEST(BootstrapProcesses, ASecondProcessOfARankIsRefused) {
  const std::string server = FreeAddress();
  ForkedRanks processes(3, [&](int process) {
    auto job = Bootstrap::Join(As(server, process == 2 ? 1 : process, 2));
    if (job.ok()) WaitToBeKilled();
    EXPECT_EQ(job.status().code(), absl::StatusCode::kAlreadyExists) << job.status();
    Say("refused");
  });
  // Whichever of the twins came second.
  int refused = -1;
  for (const absl::Time end = absl::Now() + kLong; refused < 0 && absl::Now() < end;) {
    for (const int twin : {1, 2}) {
      if (processes.WaitForOutput(twin, "refused", std::chrono::milliseconds(50))) refused = twin;
    }
  }
  ASSERT_GE(refused, 0);
  EXPECT_TRUE(processes.WaitFor(refused, kPatience).ok());
}

}  // namespace
}  // namespace sumac::transport
