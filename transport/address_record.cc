#include "transport/address_record.h"

#include <algorithm>
#include <cctype>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

#include "transport/worker_limits.h"
#include "verbs/device.h"

namespace sumac::transport {
namespace {

constexpr absl::string_view kTitle = "sumac-address-2";
constexpr size_t kHostBytesMax = 255;

absl::Status Bad(absl::string_view field, absl::string_view value) {
  return absl::InvalidArgumentError(absl::StrCat("address record: field '", field, "' has value '",
                                                 absl::CEscape(value.substr(0, 64)),
                                                 "'; do all ranks run the same version?"));
}

// Takes the fields in order.
class Fields {
 public:
  explicit Fields(absl::string_view text) : parts_(absl::StrSplit(text, ' ')) {}

  absl::string_view Text(absl::string_view name) {
    absl::string_view part = next_ < parts_.size() ? parts_[next_] : absl::string_view();
    ++next_;
    if (!absl::ConsumePrefix(&part, name) || !absl::ConsumePrefix(&part, "=")) {
      Refuse(name, part);
      return {};
    }
    return part;
  }
  template <typename Integer>
  void Number(absl::string_view name, uint64_t least, uint64_t most, Integer& out) {
    const absl::string_view text = Text(name);
    uint64_t value = 0;
    if (!absl::SimpleAtoi(text, &value) || value < least || value > most) Refuse(name, text);
    out = static_cast<Integer>(value);
  }
  void Refuse(absl::string_view name, absl::string_view value) { status_.Update(Bad(name, value)); }
  void Title() {
    if (parts_[next_++] != kTitle) Refuse("version", parts_[0]);
  }
  absl::Status End() {
    if (next_ != parts_.size()) Refuse("end", "more fields");
    return status_;
  }

 private:
  std::vector<absl::string_view> parts_;
  size_t next_ = 0;
  absl::Status status_;
};

bool IsHostCharacter(char c) { return std::isgraph(static_cast<unsigned char>(c)) != 0; }

}  // namespace

std::string ToText(const AddressRecord& record) {
  const absl::string_view gid(reinterpret_cast<const char*>(record.gid.raw), sizeof record.gid.raw);
  return absl::StrCat(kTitle, " qpn=", record.qpn, " psn=", record.psn,
                      " gid=", absl::BytesToHexString(gid), " mtu=", record.mtu_bytes,
                      " reads=", record.read_depth, " receives=", record.receive_depth,
                      " eager=", record.eager_bytes_max, " cm_port=", record.cm_port,
                      " cm_key=", record.cm_key, " host=", record.host, " pid=", record.pid);
}

absl::StatusOr<AddressRecord> ParseAddressRecord(absl::string_view text) {
  Fields fields(text);
  AddressRecord record;
  fields.Title();
  fields.Number("qpn", 1, 0xffffff, record.qpn);
  fields.Number("psn", 0, 0xffffff, record.psn);
  const absl::string_view gid = fields.Text("gid");
  if (gid.size() == 2 * sizeof record.gid.raw && std::all_of(gid.begin(), gid.end(), [](char c) {
        return std::isxdigit(static_cast<unsigned char>(c)) != 0;
      })) {
    const std::string bytes = absl::HexStringToBytes(gid);
    std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(record.gid.raw));
  } else {
    fields.Refuse("gid", gid);
  }
  fields.Number("mtu", 256, 4096, record.mtu_bytes);
  if (!verbs::MtuOf(record.mtu_bytes).ok()) fields.Refuse("mtu", absl::StrCat(record.mtu_bytes));
  fields.Number("reads", 1, 255, record.read_depth);
  fields.Number("receives", kReceiveDepthMin, kReceiveDepthMax, record.receive_depth);
  fields.Number("eager", kEagerBytesMin, kEagerBytesMax, record.eager_bytes_max);
  fields.Number("cm_port", 0, UINT16_MAX, record.cm_port);
  fields.Number("cm_key", 0, UINT64_MAX, record.cm_key);
  record.host = std::string(fields.Text("host"));
  if (record.host.empty() || record.host.size() > kHostBytesMax ||
      !std::all_of(record.host.begin(), record.host.end(), IsHostCharacter)) {
    fields.Refuse("host", record.host);
  }
  fields.Number("pid", 1, INT32_MAX, record.pid);
  if (const absl::Status status = fields.End(); !status.ok()) return status;
  return record;
}

}  // namespace sumac::transport
