#include "transport/bootstrap/launch_environment.h"

#include <map>
#include <string>

#include "gtest/gtest.h"

namespace sumac::transport {
namespace {

using Variables = std::map<std::string, std::string>;

absl::StatusOr<LaunchEnvironment> Read(const Variables& variables) {
  return ReadLaunchEnvironment([&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

TEST(LaunchEnvironment, NothingMeansASingleProcess) {
  const auto found = Read({});
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(found->bootstrap.size, 1);
  EXPECT_TRUE(found->bootstrap.serve);
  EXPECT_EQ(found->origin, "single process");
}

struct Case {
  const char* origin;
  Variables variables;
  const char* server;
  bool serve;
};

class LauncherTest : public testing::TestWithParam<Case> {};

TEST_P(LauncherTest, IsUnderstood) {
  const auto found = Read(GetParam().variables);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->origin, GetParam().origin);
  EXPECT_EQ(found->bootstrap.size, 4);
  EXPECT_EQ(found->bootstrap.rank == 0, GetParam().serve);
  EXPECT_EQ(found->bootstrap.serve, GetParam().serve);
  if (*GetParam().server != '\0') {
    EXPECT_EQ(found->bootstrap.server, GetParam().server);
  } else {
    EXPECT_EQ(found->bootstrap.server.rfind("127.0.0.1:2", 0), 0u) << found->bootstrap.server;
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, LauncherTest,
    testing::Values(Case{"sumac run",
                         {{"SUMAC_RANK", "2"},
                          {"SUMAC_SIZE", "4"},
                          {"SUMAC_BOOTSTRAP", "127.0.0.1:99"},
                          // Explicit wins over what an outer launcher left behind.
                          {"RANK", "1"},
                          {"WORLD_SIZE", "2"}},
                         "127.0.0.1:99",
                         false},
                    Case{"torchrun",
                         {{"RANK", "0"},
                          {"WORLD_SIZE", "4"},
                          {"MASTER_ADDR", "10.0.0.1"},
                          {"MASTER_PORT", "29500"}},
                         "10.0.0.1:29501",
                         true},
                    Case{"Open MPI",
                         {{"OMPI_COMM_WORLD_RANK", "3"},
                          {"OMPI_COMM_WORLD_SIZE", "4"},
                          {"OMPI_COMM_WORLD_LOCAL_SIZE", "4"},
                          {"PMIX_RANK", "3"}},
                         "",
                         false},
                    Case{"PMI", {{"PMI_RANK", "1"}, {"PMI_SIZE", "4"}}, "", false},
                    Case{"Slurm",
                         {{"PMIX_RANK", "1"},  // srun --mpi=pmix
                          {"PMIX_NAMESPACE", "slurm.pmix.7.0"},
                          {"SLURM_PROCID", "1"},
                          {"SLURM_NTASKS", "4"},
                          {"SLURM_NNODES", "1"}},
                         "",
                         false},
                    Case{"Slurm",
                         {{"SLURM_PROCID", "0"},
                          {"SLURM_NTASKS", "4"},
                          {"SLURM_NNODES", "2"},
                          {"SUMAC_BOOTSTRAP", "node1:7000"}},
                         "node1:7000",
                         true}));

TEST(LaunchEnvironment, SallocShellIsNoRank) {
  EXPECT_EQ(Read({{"SLURM_NTASKS", "4"}})->origin, "single process");
}

struct BadCase {
  Variables variables;
  const char* named;  // what the error must mention
};

class BadEnvironmentTest : public testing::TestWithParam<BadCase> {};

TEST_P(BadEnvironmentTest, IsRefusedByName) {
  const auto found = Read(GetParam().variables);
  ASSERT_EQ(found.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(found.status().message().find(GetParam().named), absl::string_view::npos)
      << found.status();
}

INSTANTIATE_TEST_SUITE_P(
    All, BadEnvironmentTest,
    testing::Values(
        BadCase{{{"SUMAC_RANK", "0"}}, "SUMAC_SIZE"}, BadCase{{{"PMIX_RANK", "0"}}, "PMIX_SIZE"},
        BadCase{{{"SUMAC_RANK", "4"}, {"SUMAC_SIZE", "4"}}, "SUMAC_RANK='4'"},
        BadCase{{{"SUMAC_RANK", "-1"}, {"SUMAC_SIZE", "4"}}, "SUMAC_RANK='-1'"},
        BadCase{{{"SUMAC_RANK", "x"}, {"SUMAC_SIZE", "4"}}, "SUMAC_RANK='x'"},
        BadCase{{{"SUMAC_RANK", "0"}, {"SUMAC_SIZE", "0"}}, "SUMAC_SIZE='0'"},
        BadCase{{{"SUMAC_RANK", "0"}, {"SUMAC_SIZE", "99999999999999999999"}}, "SUMAC_SIZE"},
        BadCase{{{"SUMAC_RANK", "0"}, {"SUMAC_SIZE", "2"}, {"SUMAC_BOOTSTRAP", "nowhere"}},
                "host:port"},
        BadCase{{{"SUMAC_RANK", "0"}, {"SUMAC_SIZE", "2"}, {"SUMAC_BOOTSTRAP", "a:70000"}},
                "host:port"},
        BadCase{{{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "a"}}, "MASTER_PORT"},
        BadCase{{{"OMPI_COMM_WORLD_RANK", "0"},
                 {"OMPI_COMM_WORLD_SIZE", "4"},
                 {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}},
                "SUMAC_BOOTSTRAP"}));

}  // namespace
}  // namespace sumac::transport
