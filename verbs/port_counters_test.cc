// Counters of a kernel device, from a made-up /sys/class/infiniband.
#include "verbs/port_counters.h"

#include <filesystem>
#include <fstream>

#include "gtest/gtest.h"

namespace sumac::verbs {
namespace {

namespace fs = std::filesystem;

class PortCountersTest : public testing::Test {
 protected:
  PortCountersTest() {
    std::string name = testing::TempDir() + "/port_counters_XXXXXX";
    EXPECT_NE(mkdtemp(name.data()), nullptr);
    root = name;
  }
  ~PortCountersTest() override { fs::remove_all(root); }
  void Write(const std::string& file, const std::string& text) const {
    const fs::path path = root / "mlx5_0" / "ports" / "1" / file;
    fs::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }
  fs::path root;
};

TEST_F(PortCountersTest, ReadsNumbersOfBothGroups) {
  Write("hw_counters/out_of_buffer", "7\n");
  Write("counters/port_xmit_data", "18446744073709551615\n");
  Write("counters/port_rcv_data", "4\n");
  Write("counters/nonsense", "N/A (no PMA)\n");
  Write("state", "4: ACTIVE\n");
  const auto found = ReadPortCountersUnder(root, "mlx5_0", 1);
  ASSERT_TRUE(found.ok()) << found.status();
  ASSERT_EQ(found->counters.size(), 3u);
  EXPECT_EQ(found->counters[0].name, "port_rcv_data");
  EXPECT_EQ(found->counters[1].name, "port_xmit_data");
  EXPECT_EQ(found->counters[1].value, UINT64_MAX);
  EXPECT_EQ(found->counters[2].group, "hw_counters");
  EXPECT_EQ(found->counters[2].value, 7u);
}

TEST_F(PortCountersTest, SaysWhatIsNotThere) {
  Write("counters/port_rcv_data", "4\n");
  for (const auto& [device, port] : {std::pair{"mlx5_0", 2}, std::pair{"mlx5_1", 1}}) {
    const auto found = ReadPortCountersUnder(root, device, static_cast<uint8_t>(port));
    EXPECT_EQ(found.status().code(), absl::StatusCode::kNotFound);
    EXPECT_NE(found.status().message().find(device), absl::string_view::npos);
  }
  EXPECT_EQ(ReadPortCounters("soft0", 2).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReadPortCounters("no_such", 1).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace sumac::verbs
