#include "verbs/soft_nic/device/options.h"

#include <map>
#include <string>

#include "gtest/gtest.h"

namespace sumac::soft_nic {
namespace {

absl::StatusOr<DeviceOptions> Read(const std::map<std::string, std::string>& environment) {
  return ReadDeviceOptions([&environment](const char* name) -> const char* {
    const auto found = environment.find(name);
    return found == environment.end() ? nullptr : found->second.c_str();
  });
}

TEST(DeviceOptions, DefaultsAreLoopback) {
  using Environment = std::map<std::string, std::string>;
  for (const Environment& empty : {Environment{}, Environment{{"SUMAC_SOFT_ADDRESS", ""}}}) {
    auto options = Read(empty);
    ASSERT_TRUE(options.ok());
    EXPECT_EQ(options->link.address[12], 127);
    EXPECT_EQ(options->link.interface, "");
    EXPECT_TRUE(options->local);
    EXPECT_EQ(options->send_quota, 0u);
  }
}

TEST(DeviceOptions, ValuesAreTaken) {
  auto options = Read({{"SUMAC_SOFT_ADDRESS", "10.1.2.3"},
                       {"SUMAC_SOFT_INTERFACE", "eth7"},
                       {"SUMAC_SOFT_RECEIVE_BUFFER", "65536"},
                       {"SUMAC_SOFT_LOCAL", "0"},
                       {"SUMAC_SOFT_SEGMENT", "off"},
                       {"SUMAC_SOFT_SEND_QUOTA", "10000"}});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->link.address[12], 10);
  EXPECT_EQ(options->link.address[15], 3);
  EXPECT_EQ(options->link.interface, "eth7");
  EXPECT_EQ(options->link.receive_buffer_bytes, 65536u);
  EXPECT_FALSE(options->local);
  EXPECT_EQ(options->link.segmentation, Segmentation::kOff);
  EXPECT_EQ(options->send_quota, 1'250'000'000u);  // 10 Gbit/s
}

TEST(DeviceOptions, BadValuesAreNamed) {
  const std::pair<const char*, const char*> bad[] = {
      {"SUMAC_SOFT_ADDRESS", "localhost"},
      {"SUMAC_SOFT_ADDRESS", "300.1.1.1"},
      {"SUMAC_SOFT_RECEIVE_BUFFER", "64k"},
      {"SUMAC_SOFT_RECEIVE_BUFFER", "-1"},
      {"SUMAC_SOFT_RECEIVE_BUFFER", "1"},
      {"SUMAC_SOFT_RECEIVE_BUFFER", "99999999999"},
      {"SUMAC_SOFT_RECEIVE_BUFFER", "1e6"},
      {"SUMAC_SOFT_SEND_QUOTA", "0"},
      {"SUMAC_SOFT_SEGMENT", "yes"},
      {"SUMAC_SOFT_SEND_QUOTA", "10G"},
      {"SUMAC_SOFT_SEND_QUOTA", "2000000"},
      {"SUMAC_SOFT_LOCAL", "yes"},
      {"SUMAC_SOFT_LOCAL", "2"},
  };
  for (const auto& [name, value] : bad) {
    const auto options = Read({{name, value}});
    ASSERT_EQ(options.status().code(), absl::StatusCode::kInvalidArgument) << name << "=" << value;
    EXPECT_NE(options.status().message().find(name), absl::string_view::npos) << options.status();
    EXPECT_NE(options.status().message().find(value), absl::string_view::npos) << options.status();
  }
}

TEST(DeviceOptions, TableIsComplete) {
  for (const OptionHelp& option : DeviceOptionTable()) {
    EXPECT_STRNE(option.variable, "");
    EXPECT_STRNE(option.unit, "");
    EXPECT_STRNE(option.range, "");
    EXPECT_STRNE(option.help, "");
  }
}

}  // namespace
}  // namespace sumac::soft_nic
