// Choosing a device and a GID, mostly among made-up ones.
#include "verbs/device_choice.h"

#include <arpa/inet.h>

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sumac::verbs {
namespace {

using testing::HasSubstr;

GidEntry Entry(int index, GidType type, const char* address) {
  GidEntry entry{.index = index, .type = type, .gid = {}};
  EXPECT_EQ(inet_pton(AF_INET6, address, entry.gid.raw), 1) << address;
  return entry;
}

const std::vector<GidEntry>& Table() {
  static const std::vector<GidEntry> table = {
      Entry(0, GidType::kRoceV1, "fe80::1"),         Entry(1, GidType::kRoceV2, "fe80::1"),
      Entry(2, GidType::kRoceV1, "::ffff:10.0.0.1"), Entry(4, GidType::kRoceV2, "2001:db8::1"),
      Entry(5, GidType::kRoceV2, "::ffff:10.0.0.1"), Entry(6, GidType::kRoceV2, "::ffff:10.0.0.2"),
  };
  return table;
}

// The indices in the order in which they are preferred.
std::vector<int> Preferred(AddressFamily family) {
  std::vector<GidEntry> left = Table();
  std::vector<int> order;
  for (;;) {
    const auto choice = ChooseGid(left, -1, family);
    if (!choice.ok()) return order;
    EXPECT_NE(choice->reason, "");
    order.push_back(choice->entry.index);
    std::erase_if(left, [&](const GidEntry& e) { return e.index == choice->entry.index; });
  }
}

TEST(ChooseGid, PrefersRoceV2OverIpv4AndSaysWhy) {
  EXPECT_EQ(Preferred(AddressFamily::kAny), (std::vector<int>{5, 6, 4, 1, 0, 2}));
}

TEST(ChooseGid, OfOneFamilyTakesNoOther) {
  EXPECT_EQ(Preferred(AddressFamily::kIpv4), (std::vector<int>{5, 6}));
  EXPECT_EQ(Preferred(AddressFamily::kIpv6), (std::vector<int>{4, 1}));
  const auto none = ChooseGid({Table()[0]}, -1, AddressFamily::kIpv6);
  EXPECT_EQ(none.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(none.status().message()), HasSubstr("0 (RoCE v1, fe80::1)"));
}

TEST(ChooseGid, ByIndexOrAnErrorThatListsWhatThereIs) {
  EXPECT_EQ(ChooseGid(Table(), 2)->entry.type, GidType::kRoceV1);
  EXPECT_EQ(ChooseGid(Table(), 2, AddressFamily::kIpv6)->entry.index, 2);
  const auto hole = ChooseGid(Table(), 3);
  EXPECT_EQ(hole.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(hole.status().message()), HasSubstr("no entry 3"));
  EXPECT_THAT(std::string(hole.status().message()), HasSubstr("5 (RoCE v2, 10.0.0.1)"));
  EXPECT_EQ(ChooseGid({}, -1).status().code(), absl::StatusCode::kNotFound);
}

// mlx5_2 has no active port; mlx5_0 has one on port 2 only.
absl::StatusOr<DeviceChoice> Choose(const DeviceWishes& wishes, size_t nth = 0) {
  const std::vector<DeviceInfo> devices = {{"mlx5_2", "libibverbs"},  {"mlx5_0", "libibverbs"},
                                           {"mlx5_1", "libibverbs"},  {"rxe0", "libibverbs"},
                                           {"mlx5_10", "libibverbs"}, {"soft0", "soft"}};
  return ChooseDeviceFrom(devices, wishes, nth, [](const std::string& name, uint8_t port) {
    if (name == "mlx5_2") return false;
    return name != "mlx5_0" || port == 0 || port == 2;
  });
}

std::string NameAndPort(const absl::StatusOr<DeviceChoice>& choice) {
  if (!choice.ok()) return choice.status().ToString();
  return choice->port == 0 ? choice->name : choice->name + ":" + std::to_string(choice->port);
}

// The devices of local ranks 0, 1, ... until the first one comes again.
std::vector<std::string> Dealt(const DeviceWishes& wishes) {
  std::vector<std::string> dealt;
  for (size_t nth = 0;; ++nth) {
    const std::string name = NameAndPort(Choose(wishes, nth));
    if (!dealt.empty() && name == dealt[0]) return dealt;
    dealt.push_back(name);
  }
}

TEST(ChooseDevice, OptionThenVariableThenAliasThenTheFirstActive) {
  EXPECT_EQ(NameAndPort(Choose({"soft0", "rxe0", "mlx5_1"})), "soft0");
  EXPECT_EQ(NameAndPort(Choose({"", "rxe0", "mlx5_1"})), "rxe0");
  EXPECT_EQ(NameAndPort(Choose({"", "", "mlx5_1"})), "mlx5_1");
  EXPECT_EQ(NameAndPort(Choose({})), "mlx5_0");
  EXPECT_THAT(Choose({"", "rxe0"})->reason, HasSubstr("SUMAC_DEVICE='rxe0'"));
  EXPECT_THAT(Choose({"", "", "rxe"})->reason, HasSubstr("NCCL_IB_HCA='rxe'"));
}

TEST(ChooseDevice, ListsAreDealtOutInTheirOrder) {
  const DeviceWishes wishes{"", "rxe0,mlx5_1,mlx5_0:2"};
  EXPECT_EQ(Dealt(wishes), (std::vector<std::string>{"rxe0", "mlx5_1", "mlx5_0:2"}));
  EXPECT_EQ(Choose(wishes, 4)->name, "mlx5_1");
  EXPECT_EQ(Choose(wishes, 4)->reason,
            "SUMAC_DEVICE='rxe0,mlx5_1,mlx5_0:2', number 1 of 3 for local rank 4");
  EXPECT_EQ(Choose({"rxe0,soft0"}, 3)->name, "soft0");
}

TEST(ChooseDevice, NcclHcaForms) {
  const auto hca = [](const char* text) { return Dealt({"", "", text}); };
  using Names = std::vector<std::string>;
  EXPECT_EQ(hca("mlx5"), (Names{"mlx5_0", "mlx5_1", "mlx5_10"}));
  EXPECT_EQ(hca("mlx5_1"), (Names{"mlx5_1", "mlx5_10"}));
  EXPECT_EQ(hca("=mlx5_1"), (Names{"mlx5_1"}));
  EXPECT_EQ(hca("=mlx5_1,rxe0"), (Names{"mlx5_1", "rxe0"}));
  EXPECT_EQ(hca("=mlx5_1,mlx5_1"), (Names{"mlx5_1"}));
  EXPECT_EQ(hca("=mlx5_0:2"), (Names{"mlx5_0:2"}));
  EXPECT_EQ(hca("=mlx5_0:1,rxe0"), (Names{"rxe0"})) << "its port 1 is not active";
  EXPECT_EQ(hca("=mlx5_2"), (Names{"mlx5_2"})) << "asked for alone: the worker says what is wrong";
  EXPECT_EQ(hca("^mlx5"), (Names{"rxe0"}));
  EXPECT_EQ(hca("^mlx5_1"), (Names{"mlx5_0", "rxe0"}));
  EXPECT_EQ(hca("^=mlx5_1"), (Names{"mlx5_0", "rxe0", "mlx5_10"}));
  EXPECT_EQ(hca("^mlx5,rxe"), (Names{"soft0"}));
  EXPECT_THAT(Choose({"", "", "^mlx5,rxe"})->reason, HasSubstr("NCCL_IB_HCA"));
  EXPECT_EQ(hca("soft"), (Names{"soft0"}));
}

TEST(ChooseDevice, WhatCannotBeReadIsNamed) {
  const auto refused = [](const DeviceWishes& wishes, absl::StatusCode code, const char* named) {
    const auto choice = Choose(wishes);
    EXPECT_EQ(choice.status().code(), code) << choice.status();
    EXPECT_THAT(std::string(choice.status().message()), HasSubstr(named));
  };
  for (const char* bad : {",", "rxe0,", ",rxe0", "rxe0,,rxe1", ":1", "rxe0:", "rxe0:0", "rxe0:x",
                          "rxe0:256", "rxe0:1:1"}) {
    refused({"", bad}, absl::StatusCode::kInvalidArgument, "SUMAC_DEVICE='");
    refused({bad}, absl::StatusCode::kInvalidArgument, "device='");
    refused({"", "", bad}, absl::StatusCode::kInvalidArgument, "NCCL_IB_HCA='");
  }
  refused({"", "", "^"}, absl::StatusCode::kInvalidArgument, "NCCL_IB_HCA='^'");
  refused({"", "", "="}, absl::StatusCode::kInvalidArgument, "NCCL_IB_HCA='='");
  refused({"", "rxe0,rxe9"}, absl::StatusCode::kNotFound,
          "no RDMA device 'rxe9'; there is: mlx5_2");
  refused({"", "mlx5"}, absl::StatusCode::kNotFound, "'mlx5'");
  refused({"", "", "=mlx5"}, absl::StatusCode::kNotFound, "'mlx5'");
  refused({"", "", "bnxt"}, absl::StatusCode::kNotFound, "'bnxt'");
}

TEST(ChooseDevice, OfThisMachine) {
  EXPECT_EQ(ChooseDevice("soft0")->name, "soft0");
  const auto choice = ChooseDevice("soft0:1,soft0", 1);
  ASSERT_TRUE(choice.ok()) << choice.status();
  EXPECT_EQ(choice->port, 0);
  EXPECT_EQ(ChooseDevice("nothing0").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace sumac::verbs
