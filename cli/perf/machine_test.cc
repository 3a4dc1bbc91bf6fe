#include "cli/perf/machine.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sumac::cli {
namespace {

TEST(Machine, IsDescribed) {
  const Machine machine = ReadMachine();
  EXPECT_FALSE(machine.cpu_model.empty());
  EXPECT_GE(machine.cpus, 1);
  EXPECT_THAT(machine.kernel, testing::StartsWith("Linux "));
  EXPECT_THAT(machine.ToText(), testing::HasSubstr("core to core: not measured"));
  EXPECT_TRUE(machine.ToJson()["core_one_way_ns"].is_null());
}

TEST(Machine, DistanceIsMeasuredWhereThereAreTwoCpus) {
  const CpuPair cpus = AllowedCpus();
  if (cpus.second < 0) GTEST_SKIP() << "one CPU only";
  Machine machine = ReadMachine();
  MeasureDistance(machine, cpus.first, cpus.second);
  EXPECT_GT(machine.core_one_way_ns, 0);
  EXPECT_THAT(machine.ToText(), testing::HasSubstr("ns core to core one way"));
  EXPECT_EQ(machine.ToJson()["cpu_pair"][1], cpus.second);
}

TEST(Machine, NoDistanceToItselfOrToNoCpu) {
  EXPECT_EQ(CoreOneWayNs(0, 0).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(CoreOneWayNs(0, 1 << 20).status().code(), absl::StatusCode::kFailedPrecondition);
  Machine machine;
  MeasureDistance(machine, 0, -1);
  EXPECT_EQ(machine.core_one_way_ns, 0);
}

}  // namespace
}  // namespace sumac::cli
