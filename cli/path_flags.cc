#include "cli/path_flags.h"

#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "transport/path_options.h"

namespace sumac::cli {
namespace {

struct Flag {
  const char* name;
  const char* perftest;  // what perftest calls it
  const char* variable;
  const char* type;
  const char* help;
};

constexpr Flag kFlags[] = {
    {"--device", "-d,--ib-dev", "SUMAC_DEVICE", "NAME[:PORT],...",
     "RDMA device (see sumac devices); of several local rank i takes number i; default: chosen"},
    {"--gid-index", "-x", "SUMAC_GID_INDEX", "N",
     "GID of the port (see sumac devices); default -1: RoCE v2, IPv4 before IPv6"},
    {"--address-family", "", "SUMAC_ADDRESS_FAMILY", "ipv4|ipv6", "of the GID that is chosen"},
    {"--path-mtu", "-m,--mtu", "SUMAC_PATH_MTU", "BYTES",
     "256 to 4096; default: the largest possible"},
    {"--traffic-class", "--tclass", "SUMAC_TRAFFIC_CLASS", "N",
     "the whole byte, DSCP * 4 + ECN bits, 0 to 255; default 0"},
    {"--service-level", "-S,--sl", "SUMAC_SERVICE_LEVEL", "N", "priority, 0 to 7; default 0"},
    {"--ack-timeout", "-u,--qp-timeout", "SUMAC_ACK_TIMEOUT", "N",
     "4.096 us * 2^N until a packet is sent again, 1 to 31; default 14"},
    {"--retry-count", "--retry_count", "SUMAC_RETRY_COUNT", "N", "how often, 0 to 7; default 4"},
    {"--rnr-retry", "", "SUMAC_RNR_RETRY", "N",
     "how often to a receiver that is not ready, 0 to 7; default 7: without end"},
    {"--connect", "", "SUMAC_CONNECT", "exchange|rdma_cm",
     "how queue pairs meet; default: exchange"},
};

// What is wrong with a value; names of devices are checked where the devices are.
std::string Check(const char* variable, const std::string& text) {
  if (text.empty()) return "must not be empty";
  transport::WorkerOptions options;
  const auto filled = transport::FillPathOptions(
      [&](const char* name) { return std::strcmp(name, variable) == 0 ? text.c_str() : nullptr; },
      options);
  return filled.ok() ? std::string() : std::string(filled.status().message());
}

}  // namespace

void AddPathFlags(CLI::App& app, std::vector<std::string>* variables, PathFlagNames names) {
  for (const Flag& flag : kFlags) {
    const char* variable = flag.variable;
    const bool perftest = names == PathFlagNames::kWithPerftest && *flag.perftest != '\0';
    app.add_option_function<std::string>(
           perftest ? absl::StrCat(flag.perftest, ",", flag.name) : flag.name,
           [variables, variable](const std::string& text) {
             variables->push_back(absl::StrCat(variable, "=", text));
           },
           absl::StrCat(flag.help, " (", variable, ")"))
        ->type_name(flag.type)
        ->group("Device and path")
        ->check([variable](const std::string& text) { return Check(variable, text); });
  }
}

void SetVariables(const std::vector<std::string>& variables) {
  for (const std::string& each : variables) {
    const std::vector<std::string> halves = absl::StrSplit(each, absl::MaxSplits('=', 1));
    setenv(halves[0].c_str(), halves[1].c_str(), 1);
  }
}

}  // namespace sumac::cli
