// Counters that another process can read: here the same one, through the same sockets.
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

#include "verbs/port_counters.h"
#include "verbs/soft_nic/device/device_test_support.h"
#include "verbs/soft_nic/device/port_counters.h"
#include "verbs/soft_nic/link/abstract_socket.h"

namespace sumac::verbs {
namespace {

// Of this process alone, so that other tests' devices are not in the sums.
const std::string& Address() {
  static const std::string address =
      absl::StrCat("127.91.", getpid() / 256 % 256, ".", getpid() % 256);
  return address;
}

class CounterServiceTest : public testing::Test {
 protected:
  CounterServiceTest() { setenv("SUMAC_SOFT_ADDRESS", Address().c_str(), 1); }
  ~CounterServiceTest() override { unsetenv("SUMAC_SOFT_ADDRESS"); }

  const PacketsOnly packets_;  // they are what is counted

  static std::map<std::string, uint64_t> Read(size_t devices) {
    const PortCounters found = ReadSoftPortCounters(Address());
    EXPECT_EQ(found.processes, std::vector<pid_t>(devices, getpid()));
    EXPECT_TRUE(found.silent.empty());
    std::map<std::string, uint64_t> values;
    for (const PortCounter& counter : found.counters) {
      EXPECT_TRUE(values.emplace(counter.group + "/" + counter.name, counter.value).second);
    }
    return values;
  }
};

TEST_F(CounterServiceTest, SumsOverDevicesAndForgetsClosedOnes) {
  EXPECT_EQ(Read(0).at("counters/port_xmit_packets"), 0u) << "all names, though nobody is there";
  constexpr size_t kBytes = 64 << 10;
  {
    End a(kBytes);
    EXPECT_EQ(Read(1).at("counters/port_xmit_packets"), 0u);
    End b(kBytes);
    Connect(a, b, IBV_MTU_1024);
    ASSERT_EQ(a.Post(IBV_WR_RDMA_WRITE, a.Sge(0, kBytes), b.Address(), b.region->rkey()), 0);
    ASSERT_EQ(a.Next().status, IBV_WC_SUCCESS);
    const auto values = Read(2);
    EXPECT_GE(values.at("counters/port_xmit_packets"), kBytes / 1024 + 1) << "and an ACK";
    EXPECT_EQ(values.at("counters/port_xmit_packets"), values.at("counters/unicast_xmit_packets"));
    EXPECT_GE(values.at("counters/port_rcv_data"), kBytes / 4);
    EXPECT_EQ(values.at("hw_counters/rx_icrc_encapsulated"), 0u);
    // By the general way, in which other tests' devices may be.
    const auto all = ReadPortCounters("soft0", 1);
    ASSERT_TRUE(all.ok()) << all.status();
    EXPECT_EQ(all->counters.size(), values.size());
    EXPECT_GE(std::count(all->processes.begin(), all->processes.end(), getpid()), 2);
  }
  Read(0);
}

TEST_F(CounterServiceTest, NamesAreSortedAndInTheTwoGroups) {
  const auto counters = soft_nic::PortCountersOf({});
  EXPECT_TRUE(std::is_sorted(counters.begin(), counters.end(), [](const auto& x, const auto& y) {
    return std::tie(x.group, x.name) < std::tie(y.group, y.name);
  }));
  for (const PortCounter& counter : counters) {
    EXPECT_TRUE(counter.group == "counters" || counter.group == "hw_counters") << counter.name;
  }
}

// Listens under the name of a device, and never answers.
TEST_F(CounterServiceTest, WhoDoesNotAnswerIsNamed) {
  const auto silent = soft_nic::ListenOnName("sumac/soft-nic-counters/" +
                                             std::to_string(geteuid()) + "/" + Address() + "/1/0");
  ASSERT_TRUE(silent.ok()) << silent.status();
  const PortCounters found = ReadSoftPortCounters(Address());
  EXPECT_EQ(found.silent, std::vector<pid_t>{getpid()});
  EXPECT_TRUE(found.processes.empty());
}

}  // namespace
}  // namespace sumac::verbs
