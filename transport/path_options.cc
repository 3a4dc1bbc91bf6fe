#include "transport/path_options.h"

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "transport/worker_limits.h"

namespace sumac::transport {
namespace {

// How people write one value of an option.
template <typename T>
struct Word {
  const char* text;
  T value;
};
template <typename T>
using Words = std::initializer_list<Word<T>>;

// Decimal, or hexadecimal with 0x in front, as NCCL takes them.
bool ToNumber(absl::string_view text, int64_t& number) {
  if (absl::StartsWithIgnoreCase(text, "0x")) return absl::SimpleHexAtoi(text, &number);
  return absl::SimpleAtoi(text, &number);
}

class PathReader {
 public:
  explicit PathReader(const EnvironmentLookup& lookup) : lookup_(lookup) {}

  // `alias` null: there is none.
  template <typename T>
  void Number(const char* field, std::optional<T>& option, T otherwise, const char* variable,
              const char* alias, Range range) {
    if (option.has_value()) return Note(field, absl::StrCat(*option), "set by the program");
    const auto [name, text] = Find(variable, alias);
    if (name == nullptr) {
      option = otherwise;
      return Note(field, absl::StrCat(otherwise), "default");
    }
    int64_t number = 0;
    if (!ToNumber(text, number) || number < range.least || number > range.most) {
      return Refuse(name, text, absl::StrCat("a number from ", range.least, " to ", range.most));
    }
    option = static_cast<T>(number);
    Note(field, absl::StrCat(*option), name);
  }

  // One of some words; the alias has words of its own.
  template <typename T>
  void Choice(const char* field, std::optional<T>& option, Word<T> otherwise, const char* variable,
              Words<T> words, const char* alias, Words<T> alias_words) {
    if (option.has_value()) {
      for (const Words<T>& each : {words, {otherwise}}) {
        for (const Word<T>& word : each) {
          if (word.value == *option) return Note(field, word.text, "set by the program");
        }
      }
      return Note(field, "?", "set by the program");
    }
    const auto [name, text] = Find(variable, alias);
    if (name == nullptr) {
      option = otherwise.value;
      return Note(field, otherwise.text, "default");
    }
    const Words<T>& known = name == variable ? words : alias_words;
    for (const Word<T>& word : known) {
      if (text == word.text) {
        option = word.value;
        return Note(field, word.text, name);
      }
    }
    Refuse(name, text,
           absl::StrCat("one of ", absl::StrJoin(known, ", ", [](std::string* out, const auto& w) {
                          out->append(w.text);
                        })));
  }

  absl::StatusOr<std::string> Result() const {
    if (!status_.ok()) return status_;
    return notes_;
  }

 private:
  // The variable that counts, and its value. An empty one is none.
  std::pair<const char*, absl::string_view> Find(const char* variable, const char* alias) const {
    for (const char* name : {variable, alias}) {
      if (name == nullptr) continue;
      const char* value = lookup_(name);
      if (value != nullptr && *value != '\0') return {name, value};
    }
    return {nullptr, {}};
  }
  void Note(const char* field, absl::string_view value, absl::string_view origin) {
    absl::StrAppend(&notes_, notes_.empty() ? "" : ", ", field, " ", value, " (", origin, ")");
  }
  void Refuse(const char* name, absl::string_view text, absl::string_view allowed) {
    status_.Update(absl::InvalidArgumentError(
        absl::StrCat(name, "='", absl::CEscape(text.substr(0, 100)), "': expected ", allowed)));
  }

  const EnvironmentLookup& lookup_;
  std::string notes_;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<std::string> FillPathOptions(const EnvironmentLookup& lookup,
                                            WorkerOptions& options) {
  using verbs::AddressFamily;
  PathReader read(lookup);
  read.Number("gid_index", options.gid_index, -1, "SUMAC_GID_INDEX", "NCCL_IB_GID_INDEX",
              kGidIndexRange);
  read.Choice<AddressFamily>(
      "address_family", options.address_family, {"any", AddressFamily::kAny},
      "SUMAC_ADDRESS_FAMILY", {{"ipv4", AddressFamily::kIpv4}, {"ipv6", AddressFamily::kIpv6}},
      "NCCL_IB_ADDR_FAMILY",
      {{"AF_INET", AddressFamily::kIpv4}, {"AF_INET6", AddressFamily::kIpv6}});
  read.Choice<uint32_t>(
      "path_mtu_bytes", options.path_mtu_bytes, {"largest", 0}, "SUMAC_PATH_MTU",
      {{"256", 256}, {"512", 512}, {"1024", 1024}, {"2048", 2048}, {"4096", 4096}}, nullptr, {});
  read.Number<uint8_t>("traffic_class", options.traffic_class, 0, "SUMAC_TRAFFIC_CLASS",
                       "NCCL_IB_TC", kTrafficClassRange);
  read.Number<uint8_t>("service_level", options.service_level, 0, "SUMAC_SERVICE_LEVEL",
                       "NCCL_IB_SL", kServiceLevelRange);
  read.Number<uint8_t>("timeout", options.timeout, 16, "SUMAC_ACK_TIMEOUT", "NCCL_IB_TIMEOUT",
                       kAckTimeoutRange);
  read.Number<uint8_t>("retry_count", options.retry_count, 7, "SUMAC_RETRY_COUNT",
                       "NCCL_IB_RETRY_CNT", kRetryRange);
  read.Number<uint8_t>("rnr_retry", options.rnr_retry, 7, "SUMAC_RNR_RETRY", nullptr, kRetryRange);
  read.Choice<ConnectBy>(
      "connect", options.connect, {"exchange", ConnectBy::kExchange}, "SUMAC_CONNECT",
      {{"exchange", ConnectBy::kExchange}, {"rdma_cm", ConnectBy::kRdmaCm}}, nullptr, {});
  return read.Result();
}

}  // namespace sumac::transport
