#include "verbs/soft_nic/device/counter_service.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <map>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

#include "verbs/log.h"
#include "verbs/soft_nic/device/port_counters.h"
#include "verbs/soft_nic/link/abstract_socket.h"
#include "verbs/soft_nic/link/address.h"

namespace sumac::soft_nic {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kMessageBytesMax = 16384;
constexpr std::chrono::milliseconds kPatience{1000};

std::string Prefix() { return absl::StrCat("sumac/soft-nic-counters/", ::geteuid(), "/"); }

// All abstract names of this network namespace that begin so.
std::vector<std::string> NamesWith(const std::string& prefix) {
  std::vector<std::string> names;
  std::ifstream list("/proc/net/unix");
  for (std::string line; std::getline(list, line);) {
    const size_t at = line.find("@" + prefix);
    if (at != std::string::npos) names.push_back(line.substr(at + 1));
  }
  // A listener's accepted connections have its name, too.
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

// One device that was asked.
struct Asked {
  UniqueFd connection;
  pid_t pid = 0;
};

using Sum = std::map<std::pair<std::string, std::string>, uint64_t>;

bool AddTo(Sum& sum, absl::string_view text) {
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const std::vector<std::string> words = absl::StrSplit(line, absl::ByAnyChar("/ "));
    uint64_t value = 0;
    if (words.size() != 3 || !absl::SimpleAtoi(words[2], &value)) return false;
    sum[{words[0], words[1]}] += value;
  }
  return true;
}

// False when nothing came in time.
bool TakeAnswer(const Asked& asked, Clock::time_point deadline, Sum& sum) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
  pollfd readable{asked.connection.get(), POLLIN, 0};
  if (::poll(&readable, 1, static_cast<int>(std::max(left, 0L))) <= 0) return false;
  std::string text(kMessageBytesMax, '\0');
  const ssize_t got = ::recv(asked.connection.get(), text.data(), text.size(), 0);
  return got > 0 && AddTo(sum, absl::string_view(text).substr(0, static_cast<size_t>(got)));
}

}  // namespace

CounterService::CounterService(ibv_context* context, const Gid& address) : context_(context) {
  static std::atomic<uint32_t> serial{0};
  auto listener = ListenOnName(
      absl::StrCat(Prefix(), ToString(address), "/", ::getpid(), "/", serial.fetch_add(1)));
  if (listener.ok()) {
    listener_ = *std::move(listener);
  } else {
    Log().info("soft NIC: its counters can't be read from outside: {}",
               std::string(listener.status().message()));
  }
}

void CounterService::OnReadable() {
  for (;;) {
    const UniqueFd asking(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!asking.valid()) return;
    const auto peer = CredentialsOfPeer(asking.get());
    if (!peer.ok() || (peer->uid != ::geteuid() && peer->uid != 0)) continue;
    std::string text;
    for (const verbs::PortCounter& counter : PortCountersOf(ReadCounters(context_))) {
      absl::StrAppend(&text, counter.group, "/", counter.name, " ", counter.value, "\n");
    }
    (void)::send(asking.get(), text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  }
}

}  // namespace sumac::soft_nic

namespace sumac::verbs {

PortCounters ReadSoftPortCounters(const std::string& address) {
  using namespace soft_nic;
  const std::string prefix = Prefix() + (address.empty() ? "" : address + "/");
  std::vector<Asked> asked;
  for (const std::string& name : NamesWith(prefix)) {
    Asked device{ConnectToName(name), 0};
    if (!device.connection.valid()) continue;  // just gone
    const auto peer = CredentialsOfPeer(device.connection.get());
    if (!peer.ok() || peer->uid != ::geteuid()) continue;
    device.pid = peer->pid;
    asked.push_back(std::move(device));
  }
  Sum sum;
  for (const PortCounter& counter : PortCountersOf({})) sum[{counter.group, counter.name}] = 0;
  PortCounters found;
  const auto deadline = Clock::now() + kPatience;
  for (const Asked& device : asked) {
    (TakeAnswer(device, deadline, sum) ? found.processes : found.silent).push_back(device.pid);
  }
  for (const auto& [name, value] : sum) found.counters.push_back({name.first, name.second, value});
  return found;
}

}  // namespace sumac::verbs
