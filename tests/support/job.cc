#include "tests/support/job.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <stdexcept>

#include "gtest/gtest.h"

#include "tests/support/device.h"
#include "transport/bootstrap/server.h"

namespace sumac::test_support {
namespace {

constexpr std::chrono::seconds kServerStart{20};
constexpr char kReady[] = "serving at ";

void Serve(const transport::BootstrapServerOptions& options) {
  auto server = transport::BootstrapServer::Start(options);
  if (!server.ok()) throw std::runtime_error(server.status().ToString());
  std::printf("%s%s\n", kReady, (*server)->address().c_str());
  std::fflush(stdout);
  for (;;) pause();  // until the job's destructor kills it
}

void SetLauncherVariables(const transport::BootstrapOptions& options) {
  setenv("SUMAC_DEVICE", TestDevice(options.rank).c_str(), 1);
  setenv("SUMAC_RANK", std::to_string(options.rank).c_str(), 1);
  setenv("SUMAC_SIZE", std::to_string(options.size).c_str(), 1);
  setenv("SUMAC_BOOTSTRAP", options.server.c_str(), 1);
  setenv("SUMAC_JOB", options.job.c_str(), 1);
}

}  // namespace

ForkedJob::ForkedJob(int size, const Body& body) {
  transport::BootstrapServerOptions server_options;
  server_options.size = size;
  server_options.job = "test-" + std::to_string(getpid());
  server_ = std::make_unique<ForkedRanks>(1, [&](int) { Serve(server_options); });
  if (!server_->WaitForOutput(0, "\n", kServerStart)) {
    throw std::runtime_error("no bootstrap server: " + server_->WaitFor(0, {}).ToString());
  }
  const std::string& said = server_->output(0);
  const size_t begin = said.find(kReady);
  const size_t end = said.find('\n', begin);
  if (begin == std::string::npos || end == std::string::npos) {
    throw std::runtime_error("no bootstrap server: " + said);
  }
  address_ = said.substr(begin + sizeof kReady - 1, end - begin - (sizeof kReady - 1));

  transport::BootstrapOptions options;
  options.server = address_;
  options.job = server_options.job;
  options.size = size;
  ranks_ = std::make_unique<ForkedRanks>(size, [&](int rank) {
    options.rank = rank;
    SetLauncherVariables(options);
    body(options);
  });
}

void ForkedJob::ExpectAllOk(std::chrono::milliseconds deadline) {
  for (const RankOutcome& outcome : ranks_->Wait(deadline)) {
    EXPECT_TRUE(outcome.ok()) << outcome.ToString();
  }
}

}  // namespace sumac::test_support
