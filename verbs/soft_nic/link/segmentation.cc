#include "verbs/soft_nic/link/segmentation.h"

#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "verbs/soft_nic/link/unique_fd.h"

namespace sumac::soft_nic {
namespace {

constexpr const char* kFeature = "tx-udp-segmentation";
// Pass a batch on whole, in memory.
constexpr const char* kCarriers[] = {"veth", "bridge", "dummy"};

class Interface {
 public:
  explicit Interface(const std::string& name) : socket_(::socket(AF_INET, SOCK_DGRAM, 0)) {
    name.copy(request_.ifr_name, sizeof(request_.ifr_name) - 1);
  }

  std::optional<bool> Is(short flag) {
    if (::ioctl(socket_.get(), SIOCGIFFLAGS, &request_) != 0) return std::nullopt;
    return (request_.ifr_flags & flag) != 0;
  }
  std::string Driver() {
    ethtool_drvinfo info{};
    info.cmd = ETHTOOL_GDRVINFO;
    if (!Ask(&info)) return "";
    return {info.driver, ::strnlen(info.driver, sizeof(info.driver))};
  }
  // Nothing when it does not say.
  std::optional<bool> Feature(const char* name) {
    // Each answer is a struct with an array after it.
    alignas(ethtool_sset_info) char sets[sizeof(ethtool_sset_info) + sizeof(uint32_t)] = {};
    auto* info = new (sets) ethtool_sset_info{};
    info->cmd = ETHTOOL_GSSET_INFO;
    info->sset_mask = uint64_t{1} << ETH_SS_FEATURES;
    if (!Ask(info) || info->sset_mask == 0) return std::nullopt;
    uint32_t count = 0;
    std::memcpy(&count, sets + sizeof(ethtool_sset_info), sizeof(count));
    if (count > kFeaturesMax) return std::nullopt;

    std::vector<uint32_t> names((sizeof(ethtool_gstrings) + size_t{count} * ETH_GSTRING_LEN) / 4 +
                                1);
    auto* strings = new (names.data()) ethtool_gstrings{};
    strings->cmd = ETHTOOL_GSTRINGS;
    strings->string_set = ETH_SS_FEATURES;
    strings->len = count;
    if (!Ask(strings)) return std::nullopt;
    const auto* text = reinterpret_cast<const char*>(names.data()) + sizeof(ethtool_gstrings);
    uint32_t index = 0;
    while (index < count &&
           std::strncmp(text + size_t{index} * ETH_GSTRING_LEN, name, ETH_GSTRING_LEN) != 0) {
      ++index;
    }
    if (index == count) return std::nullopt;

    const uint32_t blocks = (count + 31) / 32;
    std::vector<uint32_t> bits(
        (sizeof(ethtool_gfeatures) + blocks * sizeof(ethtool_get_features_block)) / 4);
    auto* features = new (bits.data()) ethtool_gfeatures{};
    features->cmd = ETHTOOL_GFEATURES;
    features->size = blocks;
    if (!Ask(features)) return std::nullopt;
    ethtool_get_features_block block;
    std::memcpy(&block,
                reinterpret_cast<const char*>(bits.data()) + sizeof(ethtool_gfeatures) +
                    index / 32 * sizeof(block),
                sizeof(block));
    return (block.active >> (index % 32) & 1) != 0;
  }

 private:
  static constexpr uint32_t kFeaturesMax = 1024;

  bool Ask(void* question) {
    request_.ifr_data = static_cast<char*>(question);
    return ::ioctl(socket_.get(), SIOCETHTOOL, &request_) == 0;
  }

  const UniqueFd socket_;
  ifreq request_{};
};

}  // namespace

bool MaySegment(Segmentation wanted, const std::string& interface, bool ipv4) {
  if (wanted != Segmentation::kAuto) return wanted == Segmentation::kOn;
  if (!ipv4) return true;
  Interface device(interface);
  if (device.Is(IFF_LOOPBACK).value_or(false)) return true;
  const std::string driver = device.Driver();
  if (std::find(std::begin(kCarriers), std::end(kCarriers), driver) != std::end(kCarriers)) {
    return true;
  }
  return !device.Feature(kFeature).value_or(true);
}

}  // namespace sumac::soft_nic
