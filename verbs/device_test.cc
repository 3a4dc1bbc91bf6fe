// Devices describe themselves. Runs on whatever devices there are; the soft NIC always is.
#include "verbs/device.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace sumac::verbs {
namespace {

GidEntry Entry(int index, GidType type, const char* address) {
  GidEntry entry{.index = index, .type = type, .gid = {}};
  EXPECT_EQ(inet_pton(AF_INET6, address, entry.gid.raw), 1) << address;
  return entry;
}

class ScopedVariable {
 public:
  ScopedVariable(const char* name, const char* value) : name_(name) {
    if (const char* before = std::getenv(name)) before_ = before;
    value != nullptr ? setenv(name, value, 1) : unsetenv(name);
  }
  ~ScopedVariable() { before_ ? setenv(name_, before_->c_str(), 1) : unsetenv(name_); }
  ScopedVariable(const ScopedVariable&) = delete;
  ScopedVariable& operator=(const ScopedVariable&) = delete;

 private:
  const char* name_;
  std::optional<std::string> before_;
};

TEST(GidEntry, AddressesPrintAsPeopleWriteThem) {
  EXPECT_EQ(Entry(0, GidType::kRoceV2, "::ffff:10.0.0.1").address(), "10.0.0.1");
  EXPECT_TRUE(Entry(0, GidType::kRoceV2, "::ffff:10.0.0.1").is_ipv4());
  EXPECT_EQ(Entry(0, GidType::kRoceV2, "fe80::12").address(), "fe80::12");
  EXPECT_FALSE(Entry(0, GidType::kRoceV2, "fe80::12").is_ipv4());
}

TEST(Mtu, ConvertsBothWays) {
  for (const uint32_t bytes : {256u, 512u, 1024u, 2048u, 4096u}) {
    ASSERT_TRUE(MtuOf(bytes).ok());
    EXPECT_EQ(BytesOf(*MtuOf(bytes)), bytes);
  }
  for (const uint32_t bytes : {0u, 1u, 1500u, 8192u}) {
    EXPECT_EQ(MtuOf(bytes).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(Device, EveryListedDeviceDescribesItself) {
  bool soft_seen = false;
  for (const DeviceInfo& info : ListDevices()) {
    SCOPED_TRACE(info.name);
    auto device = Device::Open(info.name);
    ASSERT_TRUE(device.ok()) << device.status();
    auto attr = (*device)->QueryDevice();
    ASSERT_TRUE(attr.ok()) << attr.status();
    EXPECT_GE(attr->phys_port_cnt, 1);
    EXPECT_GT(attr->max_qp, 0);
    EXPECT_TRUE((*device)->QueryPort(1).ok());
    EXPECT_TRUE((*device)->QueryGids(1).ok());
    soft_seen |= info.provider == "soft";
  }
  EXPECT_TRUE(soft_seen);
}

TEST(Device, BadSettingOfTheSoftNicIsSaidNotCrashedOn) {
  const ScopedVariable address("SUMAC_SOFT_ADDRESS", "not-an-address");
  const auto device = Device::Open("soft0");
  EXPECT_EQ(device.status().code(), absl::StatusCode::kInvalidArgument) << device.status();
}

}  // namespace
}  // namespace sumac::verbs
