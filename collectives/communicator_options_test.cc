#include "collectives/communicator_options.h"

#include <map>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sumac::collectives {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<CommunicatorOptions> With(const std::map<std::string, std::string>& environment,
                                         const CommunicatorOptions& options = {}) {
  return ResolveOptions(options, [&](const char* name) -> const char* {
    const auto found = environment.find(name);
    return found == environment.end() ? nullptr : found->second.c_str();
  });
}

TEST(CommunicatorOptions, TakesTheEnvironmentWhereNothingIsGiven) {
  const auto options = With({{"SUMAC_ALGO", "ring"}, {"SUMAC_TIMEOUT", "2.5"}});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->algorithm, "ring");
  EXPECT_EQ(options->timeout, absl::Milliseconds(2500));

  CommunicatorOptions given;
  given.algorithm = "recursive_doubling";
  given.timeout = absl::Seconds(3);
  const auto kept = With({{"SUMAC_ALGO", "ring"}, {"SUMAC_TIMEOUT", "2.5"}}, given);
  ASSERT_TRUE(kept.ok());
  EXPECT_EQ(kept->algorithm, "recursive_doubling");
  EXPECT_EQ(kept->timeout, absl::Seconds(3));
}

TEST(CommunicatorOptions, HowPrivateBuffersGo) {
  EXPECT_EQ(With({})->host_copies, HostCopies::kMeasured);
  EXPECT_EQ(With({{"SUMAC_HOST_COPIES", ""}})->host_copies, HostCopies::kMeasured);
  EXPECT_EQ(With({{"SUMAC_HOST_COPIES", "auto"}})->host_copies, HostCopies::kMeasured);
  EXPECT_EQ(With({{"SUMAC_HOST_COPIES", "always"}})->host_copies, HostCopies::kAlways);
  EXPECT_EQ(With({{"SUMAC_HOST_COPIES", "never"}})->host_copies, HostCopies::kNever);
  CommunicatorOptions given;
  given.host_copies = HostCopies::kNever;
  EXPECT_EQ(With({{"SUMAC_HOST_COPIES", "always"}}, given)->host_copies, HostCopies::kNever);
  EXPECT_THAT(std::string(With({{"SUMAC_HOST_COPIES", "1"}}).status().message()),
              HasSubstr("SUMAC_HOST_COPIES=\"1\": expected auto (default), always or never"));
}

TEST(CommunicatorOptions, SaysWhatIsWrong) {
  EXPECT_THAT(std::string(With({{"SUMAC_ALGO", "fast"}}).status().message()),
              HasSubstr("SUMAC_ALGO: unknown algorithm \"fast\"; known: bruck"));
  for (const char* seconds : {"", "x", "0", "-1", "nan", "1e9", "3s"}) {
    EXPECT_THAT(std::string(With({{"SUMAC_TIMEOUT", seconds}}).status().message()),
                HasSubstr("expected seconds, more than 0 and up to 86400"))
        << seconds;
  }
  CommunicatorOptions options;
  options.timeout = absl::ZeroDuration();
  EXPECT_THAT(std::string(With({}, options).status().message()), HasSubstr("option timeout 0"));
  options = {};
  options.name = "a/b";
  EXPECT_THAT(std::string(With({}, options).status().message()), HasSubstr("option name"));
}

}  // namespace
}  // namespace sumac::collectives
