// A job of N forked ranks with a bootstrap server in a process of its own, as under `sumac run`.
//
// Used by tests of the floors from transport/ up. Each rank runs `body` with its bootstrap options
// filled in, on the device that the test is to use (device.h), and with the variables of `sumac
// run` set, so Communicator::FromEnvironment works, too. Ownership, threads, output and failures:
// as ForkedRanks (multi_process.h).
//
//   ForkedJob job(2, [](const transport::BootstrapOptions& options) {
//     auto bootstrap = transport::Bootstrap::Join(options);
//     ASSERT_TRUE(bootstrap.ok()) << bootstrap.status();
//     ...
//   });
//   job.ExpectAllOk(std::chrono::seconds(60));
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/multi_process.h"
#include "transport/bootstrap/bootstrap.h"

namespace sumac::test_support {

class ForkedJob {
 public:
  using Body = std::function<void(const transport::BootstrapOptions& options)>;
  ForkedJob(int size, const Body& body);

  ForkedRanks& ranks() { return *ranks_; }
  const std::string& server_address() const { return address_; }
  // Waits for all; a failure of the running test for each rank that did not end well.
  void ExpectAllOk(std::chrono::milliseconds deadline);

 private:
  std::unique_ptr<ForkedRanks> server_;
  std::string address_;
  std::unique_ptr<ForkedRanks> ranks_;
};

}  // namespace sumac::test_support
