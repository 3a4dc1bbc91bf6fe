#include "runtime/host/host_record.h"

#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace sumac::runtime {
namespace {

// Changes with the layout of anything that ranks share, so that builds that differ don't.
constexpr absl::string_view kVersion = "sumac-host-2";
constexpr size_t kFields = 13;

// Four CPUs a digit.
std::string AllowedCpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  // Fails on machines with more CPUs than the set holds: then there are plenty.
  if (::sched_getaffinity(0, sizeof set, &set) != 0) std::memset(&set, 0xff, sizeof set);
  std::string digits;
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu += 4) {
    int digit = 0;
    for (int i = 0; i < 4; ++i) digit |= CPU_ISSET(cpu + i, &set) ? 1 << i : 0;
    digits.push_back("0123456789abcdef"[digit]);
  }
  digits.resize(digits.find_last_not_of('0') + 1);
  return digits;
}

int ValueOf(char digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : 0;
}

}  // namespace

int CountCpus(const std::vector<std::string>& sets) {
  std::vector<unsigned> all;
  for (const std::string& set : sets) {
    all.resize(std::max(all.size(), set.size()));
    for (size_t i = 0; i < set.size(); ++i) all[i] |= static_cast<unsigned>(ValueOf(set[i]));
  }
  int count = 0;
  for (const unsigned digit : all) count += std::popcount(digit);
  return count;
}

std::string HostRecord::Serialize() const {
  // The refusal comes last: it may hold anything but is not parsed further.
  return absl::StrCat(kVersion, " ", host, " ", user, " ", pid_namespace, " ", cpus, " ", area.pid,
                      " ", area.fd, " ", area.device, " ", area.inode, " ", area.bytes, " ", nonce,
                      " ", nonce_address, " ", asymmetric_fence ? 1 : 0, " ", refusal);
}

absl::StatusOr<HostRecord> HostRecord::Parse(absl::string_view text) {
  const std::vector<absl::string_view> fields =
      absl::StrSplit(text, absl::MaxSplits(' ', static_cast<int>(kFields)));
  HostRecord record;
  int fence = 0;
  const bool sound = fields.size() == kFields + 1 && fields[0] == kVersion &&
                     absl::SimpleAtoi(fields[2], &record.user) &&
                     absl::SimpleAtoi(fields[3], &record.pid_namespace) &&
                     absl::SimpleAtoi(fields[5], &record.area.pid) &&
                     absl::SimpleAtoi(fields[6], &record.area.fd) &&
                     absl::SimpleAtoi(fields[7], &record.area.device) &&
                     absl::SimpleAtoi(fields[8], &record.area.inode) &&
                     absl::SimpleAtoi(fields[9], &record.area.bytes) &&
                     absl::SimpleAtoi(fields[10], &record.nonce) &&
                     absl::SimpleAtoi(fields[11], &record.nonce_address) &&
                     absl::SimpleAtoi(fields[12], &fence);
  if (!sound) {
    return absl::InvalidArgumentError(
        absl::StrCat("a malformed host record (", text.size(), " bytes), or another version's"));
  }
  record.host = std::string(fields[1]);
  record.cpus = std::string(fields[4]);
  record.asymmetric_fence = fence != 0;
  record.refusal = std::string(fields[kFields]);
  return record;
}

absl::StatusOr<HostRecord> OwnHost() {
  HostRecord record;
  std::ifstream boot("/proc/sys/kernel/random/boot_id");
  if (!(boot >> record.host)) {
    return absl::UnavailableError("/proc/sys/kernel/random/boot_id can't be read");
  }
  struct stat status {};
  if (::stat("/proc/self/ns/pid", &status) != 0) {
    return absl::UnavailableError(absl::StrCat("/proc/self/ns/pid: ", std::strerror(errno)));
  }
  record.pid_namespace = status.st_ino;
  record.user = ::geteuid();
  record.cpus = AllowedCpus();
  return record;
}

std::string WhyApart(const HostRecord& first, const HostRecord& other) {
  if (!other.refusal.empty()) return other.refusal;
  if (first.host != other.host) return "it is on another host";
  if (first.user != other.user) return "it is another user's";
  if (first.pid_namespace != other.pid_namespace) {
    return "it is in another pid namespace (another container)";
  }
  if (first.area.bytes != other.area.bytes) return "its area has another size";
  return "";
}

}  // namespace sumac::runtime
