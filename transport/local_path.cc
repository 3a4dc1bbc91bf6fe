#include "transport/local_path.h"

#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"

#include "transport/bootstrap/launch_environment.h"
#include "transport/path_options.h"
#include "verbs/device_choice.h"
#include "verbs/log.h"

namespace sumac::transport {
namespace {

// Which of the processes of this host we are, for lists of devices. Without a launcher that says
// so, the rank in the job is the best guess.
size_t LocalRank(const Bootstrap& bootstrap) {
  const auto launch = ReadLaunchEnvironment();
  const bool told = launch.ok() && launch->bootstrap.size > 1;
  return static_cast<size_t>(told ? launch->local_rank : bootstrap.rank());
}

absl::Status ChooseMtu(const ibv_port_attr& port, absl::string_view where, WorkerOptions& options) {
  const uint32_t active = verbs::BytesOf(port.active_mtu);
  if (*options.path_mtu_bytes > active) {
    return absl::InvalidArgumentError(absl::StrCat("path_mtu_bytes (SUMAC_PATH_MTU) is ",
                                                   *options.path_mtu_bytes, "; ", where, " allows ",
                                                   active, " at most: raise its interface's MTU"));
  }
  if (*options.path_mtu_bytes == 0) options.path_mtu_bytes = active;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<LocalPath> ChooseLocalPath(const Bootstrap& bootstrap, WorkerOptions& options) {
  const auto origins = FillPathOptions([](const char* name) { return std::getenv(name); }, options);
  if (!origins.ok()) return origins.status();
  const auto choice = verbs::ChooseDevice(options.device, LocalRank(bootstrap));
  if (!choice.ok()) return choice.status();
  auto device = verbs::Device::Open(choice->name);
  if (!device.ok()) return device.status();

  LocalPath path;
  path.device = *std::move(device);
  verbs::ConnectionOptions& connection = path.connection;
  connection.port = choice->port != 0 ? choice->port : verbs::FirstActivePort(*path.device);
  options.device = choice->name;
  const std::string where = absl::StrCat("device ", choice->name, " port ", connection.port);
  Log().info("worker '{}': {}: {}", options.name, where, choice->reason);
  Log().info("worker '{}': {}", options.name, *origins);

  const auto port = path.device->QueryPort(connection.port);
  if (!port.ok()) return port.status();
  if (port->state != IBV_PORT_ACTIVE) {
    return absl::UnavailableError(
        absl::StrCat(where, " is not active: is its network interface up?"));
  }
  if (auto status = ChooseMtu(*port, where, options); !status.ok()) return status;

  const auto gids = path.device->QueryGids(connection.port);
  if (!gids.ok()) return gids.status();
  const auto gid = verbs::ChooseGid(*gids, *options.gid_index, *options.address_family);
  if (!gid.ok()) {
    return absl::Status(gid.status().code(), absl::StrCat(where, ": ", gid.status().message()));
  }
  path.gid = gid->entry;
  options.gid_index = gid->entry.index;
  Log().info("worker '{}': GID {} ({}), MTU {}: {}", options.name, gid->entry.index,
             gid->entry.address(), *options.path_mtu_bytes, gid->reason);

  connection.gid_index = gid->entry.index;
  connection.traffic_class = *options.traffic_class;
  connection.service_level = *options.service_level;
  connection.timeout = *options.timeout;
  connection.retry_count = *options.retry_count;
  connection.rnr_retry = *options.rnr_retry;
  // Each registration says what a peer may do to it; the queue pair refuses nothing by itself.
  connection.access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
                      IBV_ACCESS_REMOTE_ATOMIC;
  return path;
}

}  // namespace sumac::transport
