#include "transport/address_record.h"

#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sumac::transport {
namespace {

AddressRecord Example() {
  AddressRecord record;
  record.qpn = 0x40012;
  record.psn = 0xffffff;
  for (size_t i = 0; i < 16; ++i) record.gid.raw[i] = static_cast<uint8_t>(0xf0 + i);
  record.mtu_bytes = 1024;
  record.read_depth = 16;
  record.receive_depth = 128;
  record.eager_bytes_max = 4096;
  record.cm_port = 65535;
  record.cm_key = 0xfedcba9876543210;
  record.host = "node-7";
  record.pid = 4711;
  return record;
}

TEST(AddressRecord, SurvivesTheTrip) {
  const AddressRecord sent = Example();
  const auto got = ParseAddressRecord(ToText(sent));
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->qpn, sent.qpn);
  EXPECT_EQ(got->psn, sent.psn);
  EXPECT_EQ(std::memcmp(got->gid.raw, sent.gid.raw, 16), 0);
  EXPECT_EQ(got->mtu_bytes, sent.mtu_bytes);
  EXPECT_EQ(got->read_depth, sent.read_depth);
  EXPECT_EQ(got->receive_depth, sent.receive_depth);
  EXPECT_EQ(got->eager_bytes_max, sent.eager_bytes_max);
  EXPECT_EQ(got->cm_port, sent.cm_port);
  EXPECT_EQ(got->cm_key, sent.cm_key);
  EXPECT_EQ(got->host, sent.host);
  EXPECT_EQ(got->pid, sent.pid);
}

TEST(AddressRecord, IsRefusedByField) {
  const std::string good = ToText(Example());
  const auto refused = [&](absl::string_view from, absl::string_view to, const char* field) {
    const std::string bad = absl::StrReplaceAll(good, {{from, to}});
    ASSERT_NE(bad, good);
    const auto got = ParseAddressRecord(bad);
    EXPECT_EQ(got.status().code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_THAT(std::string(got.status().message()), testing::HasSubstr(absl::StrCat("'", field)))
        << bad;
  };
  refused("sumac-address-2", "sumac-address-1", "version");
  refused("qpn=262162", "qpn=0", "qpn");
  refused("qpn=262162", "qpn=16777216", "qpn");
  refused("qpn=262162", "qpn=-1", "qpn");
  refused("qpn=262162", "qpn=18446744073709551617", "qpn");
  refused("qpn=262162 ", "", "qpn");
  refused("cm_port=65535", "cm_port=65536", "cm_port");
  refused("cm_key=18364758544493064720", "cm_key=18446744073709551616", "cm_key");
  refused("cm_key=18364758544493064720", "cm_key=x", "cm_key");
  refused("psn=16777215", "psn=16777216", "psn");
  refused("gid=f0", "gid=g0", "gid");
  refused("gid=f0", "gid=", "gid");
  refused("mtu=1024", "mtu=1025", "mtu");
  refused("mtu=1024", "mtu=", "mtu");
  refused("reads=16", "reads=256", "reads");
  refused("receives=128", "receives=0", "receives");
  refused("receives=128", "receives=4294967297", "receives");
  refused("eager=4096", "eager=1", "eager");
  refused("host=node-7", "host=", "host");
  refused("host=node-7", "host=a\nb", "host");
  refused("pid=4711", "pid=0", "pid");
  refused("pid=4711", "pid=4711 more=1", "end");
}

TEST(AddressRecord, AnyTruncationOrFlippedByteIsRefusedOrStillInRange) {
  const std::string good = ToText(Example());
  for (size_t length = 0; length < good.size(); ++length) {
    const auto cut = ParseAddressRecord(good.substr(0, length));
    // Only the last number may lose digits and still be one.
    EXPECT_EQ(cut.ok(), length > good.find("pid=") + 4) << length;
  }
  for (size_t at = 0; at < good.size(); ++at) {
    for (int byte = 0; byte < 256; ++byte) {
      std::string bad = good;
      bad[at] = static_cast<char>(byte);
      const auto got = ParseAddressRecord(bad);
      if (got.ok()) {
        EXPECT_TRUE(got->qpn <= 0xffffff && got->psn <= 0xffffff && got->receive_depth <= 8192);
      }
    }
  }
}

}  // namespace
}  // namespace sumac::transport
