#include "transport/path_options.h"

#include <map>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sumac::transport {
namespace {

using testing::HasSubstr;
using Variables = std::map<std::string, std::string>;

absl::StatusOr<std::string> Fill(const Variables& variables, WorkerOptions& options) {
  return FillPathOptions(
      [&](const char* name) -> const char* {
        const auto found = variables.find(name);
        return found == variables.end() ? nullptr : found->second.c_str();
      },
      options);
}

TEST(PathOptions, NothingSetGivesTheDefaults) {
  WorkerOptions options;
  const auto origins = Fill({}, options);
  ASSERT_TRUE(origins.ok()) << origins.status();
  EXPECT_EQ(options.gid_index, -1);
  EXPECT_EQ(options.address_family, verbs::AddressFamily::kAny);
  EXPECT_EQ(options.path_mtu_bytes, 0u);
  EXPECT_EQ(options.traffic_class, 0);
  EXPECT_EQ(options.service_level, 0);
  EXPECT_EQ(options.timeout, 16);
  EXPECT_EQ(options.retry_count, 7);
  EXPECT_EQ(options.rnr_retry, 7);
  EXPECT_EQ(options.connect, ConnectBy::kExchange);
  EXPECT_THAT(*origins, HasSubstr("timeout 16 (default)"));
  EXPECT_THAT(*origins, HasSubstr("connect exchange (default)"));
}

TEST(PathOptions, OursAreTaken) {
  WorkerOptions options;
  const auto origins = Fill({{"SUMAC_GID_INDEX", "3"},
                             {"SUMAC_ADDRESS_FAMILY", "ipv6"},
                             {"SUMAC_PATH_MTU", "2048"},
                             {"SUMAC_TRAFFIC_CLASS", "106"},
                             {"SUMAC_SERVICE_LEVEL", "5"},
                             {"SUMAC_ACK_TIMEOUT", "31"},
                             {"SUMAC_RETRY_COUNT", "0"},
                             {"SUMAC_RNR_RETRY", "6"},
                             {"SUMAC_CONNECT", "rdma_cm"}},
                            options);
  ASSERT_TRUE(origins.ok()) << origins.status();
  EXPECT_EQ(options.gid_index, 3);
  EXPECT_EQ(options.address_family, verbs::AddressFamily::kIpv6);
  EXPECT_EQ(options.path_mtu_bytes, 2048u);
  EXPECT_EQ(options.traffic_class, 106);
  EXPECT_EQ(options.service_level, 5);
  EXPECT_EQ(options.timeout, 31);
  EXPECT_EQ(options.retry_count, 0);
  EXPECT_EQ(options.rnr_retry, 6);
  EXPECT_EQ(options.connect, ConnectBy::kRdmaCm);
  EXPECT_THAT(*origins, HasSubstr("traffic_class 106 (SUMAC_TRAFFIC_CLASS)"));
  EXPECT_THAT(*origins, HasSubstr("path_mtu_bytes 2048 (SUMAC_PATH_MTU)"));
}

TEST(PathOptions, NcclsNamesAreAliases) {
  WorkerOptions options;
  const auto origins = Fill({{"NCCL_IB_GID_INDEX", "-1"},
                             {"NCCL_IB_ADDR_FAMILY", "AF_INET"},
                             {"NCCL_IB_TC", "0x68"},
                             {"NCCL_IB_SL", "3"},
                             {"NCCL_IB_TIMEOUT", "20"},
                             {"NCCL_IB_RETRY_CNT", "7"}},
                            options);
  ASSERT_TRUE(origins.ok()) << origins.status();
  EXPECT_EQ(options.gid_index, -1);
  EXPECT_EQ(options.address_family, verbs::AddressFamily::kIpv4);
  EXPECT_EQ(options.traffic_class, 104);
  EXPECT_EQ(options.service_level, 3);
  EXPECT_EQ(options.timeout, 20);
  EXPECT_EQ(options.retry_count, 7);
  EXPECT_THAT(*origins, HasSubstr("address_family AF_INET (NCCL_IB_ADDR_FAMILY)"));
  EXPECT_THAT(*origins, HasSubstr("timeout 20 (NCCL_IB_TIMEOUT)"));
}

TEST(PathOptions, TheProgramThenOursThenTheAlias) {
  WorkerOptions options;
  options.timeout = 12;
  options.gid_index = -1;  // chosen, whatever the environment says
  options.connect = ConnectBy::kExchange;
  const auto origins = Fill({{"SUMAC_ACK_TIMEOUT", "nonsense"},
                             {"SUMAC_GID_INDEX", "1"},
                             {"SUMAC_CONNECT", "rdma_cm"},
                             {"SUMAC_RETRY_COUNT", "2"},
                             {"NCCL_IB_RETRY_CNT", "5"},
                             {"SUMAC_TRAFFIC_CLASS", ""},
                             {"NCCL_IB_TC", "8"}},
                            options);
  ASSERT_TRUE(origins.ok()) << origins.status();
  EXPECT_EQ(options.timeout, 12);
  EXPECT_EQ(options.gid_index, -1);
  EXPECT_EQ(options.connect, ConnectBy::kExchange);
  EXPECT_EQ(options.retry_count, 2);
  EXPECT_EQ(options.traffic_class, 8) << "an empty variable is none";
  EXPECT_THAT(*origins, HasSubstr("timeout 12 (set by the program)"));
  EXPECT_THAT(*origins, HasSubstr("connect exchange (set by the program)"));
}

TEST(PathOptions, BadValuesAreNamedWithWhatIsAllowed) {
  const auto refused = [](const char* name, const char* value, const char* allowed) {
    WorkerOptions options;
    const auto origins = Fill({{name, value}}, options);
    EXPECT_EQ(origins.status().code(), absl::StatusCode::kInvalidArgument) << name << "=" << value;
    const std::string message(origins.status().message());
    EXPECT_THAT(message, HasSubstr(std::string(name) + "='" + value + "'"));
    EXPECT_THAT(message, HasSubstr(allowed));
  };
  refused("SUMAC_GID_INDEX", "-2", "a number from -1 to 255");
  refused("SUMAC_GID_INDEX", "256", "-1 to 255");
  refused("NCCL_IB_GID_INDEX", "first", "-1 to 255");
  refused("SUMAC_ADDRESS_FAMILY", "AF_INET", "ipv4, ipv6");
  refused("NCCL_IB_ADDR_FAMILY", "ipv4", "AF_INET, AF_INET6");
  refused("SUMAC_PATH_MTU", "1500", "256, 512, 1024, 2048, 4096");
  refused("SUMAC_PATH_MTU", "0", "256, 512");
  refused("SUMAC_TRAFFIC_CLASS", "256", "0 to 255");
  refused("SUMAC_TRAFFIC_CLASS", "-1", "0 to 255");
  refused("NCCL_IB_TC", "0xfff", "0 to 255");
  refused("NCCL_IB_TC", "99999999999999999999", "0 to 255");
  refused("SUMAC_SERVICE_LEVEL", "8", "0 to 7");
  refused("SUMAC_ACK_TIMEOUT", "0", "1 to 31");
  refused("SUMAC_ACK_TIMEOUT", "32", "1 to 31");
  refused("NCCL_IB_TIMEOUT", "20x", "1 to 31");
  refused("SUMAC_RETRY_COUNT", "8", "0 to 7");
  refused("NCCL_IB_RETRY_CNT", "1.5", "0 to 7");
  refused("SUMAC_RNR_RETRY", "8", "0 to 7");
  refused("SUMAC_CONNECT", "RDMA_CM", "exchange, rdma_cm");
}

}  // namespace
}  // namespace sumac::transport
