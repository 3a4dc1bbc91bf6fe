#include "collectives/communicator.h"

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

#include "collectives/buffers.h"
#include "collectives/communicator_options.h"
#include "collectives/executor/domain_transport.h"
#include "collectives/executor/runner.h"
#include "collectives/host/host_runner.h"
#include "transport/bootstrap/launch_environment.h"
#include "verbs/log.h"

namespace sumac::collectives {
namespace {

// How long a rank that is through waits for the others before it takes its NIC away.
constexpr absl::Duration kLeaveTimeoutMax = absl::Seconds(5);

class CommunicatorImpl final : public Communicator {
 public:
  // `group`: the ranks that share memory; null: they don't.
  CommunicatorImpl(runtime::Domain& domain, const CommunicatorOptions& options,
                   std::shared_ptr<runtime::HostGroup> group, std::shared_ptr<BufferTable> buffers,
                   std::unique_ptr<DomainTransport> transport)
      : domain_(domain),
        options_(options),
        buffers_(std::move(buffers)),
        transport_(std::move(transport)),
        runner_(*transport_, domain.rank(), domain.size(), {options.algorithm, options.timeout}) {
    if (group != nullptr) host_.emplace(std::move(group), buffers_, options);
  }

  ~CommunicatorImpl() override {
    if (owned_domain_ != nullptr) Leave();
  }

  void Own(std::unique_ptr<transport::Bootstrap> bootstrap,
           std::unique_ptr<runtime::Domain> domain) {
    owned_bootstrap_ = std::move(bootstrap);
    owned_domain_ = std::move(domain);
  }

  int rank() const override { return domain_.rank(); }
  int size() const override { return domain_.size(); }
  runtime::Domain& domain() override { return domain_; }
  bool uses_host_memory() const override { return host_.has_value(); }
  absl::StatusOr<RegisteredBuffer> Allocate(size_t bytes) override {
    return buffers_->Allocate(domain_, bytes);
  }

  absl::Status AllReduce(const void* send, void* recv, size_t count, DataType type,
                         ReduceOp op) override {
    return host_ ? host_->AllReduce(send, recv, count, type, op)
                 : runner_.AllReduce(send, recv, count, type, op);
  }
  absl::Status Broadcast(const void* send, void* recv, size_t count, DataType type,
                         int root) override {
    return host_ ? host_->Broadcast(send, recv, count, type, root)
                 : runner_.Broadcast(send, recv, count, type, root);
  }
  absl::Status AllGather(const void* send, void* recv, size_t send_count, DataType type) override {
    return host_ ? host_->AllGather(send, recv, send_count, type)
                 : runner_.AllGather(send, recv, send_count, type);
  }
  absl::Status ReduceScatter(const void* send, void* recv, size_t recv_count, DataType type,
                             ReduceOp op) override {
    return host_ ? host_->ReduceScatter(send, recv, recv_count, type, op)
                 : runner_.ReduceScatter(send, recv, recv_count, type, op);
  }
  absl::Status Barrier() override { return host_ ? host_->Barrier() : runner_.Barrier(); }

 private:
  // Nobody's NIC goes while a peer may still need an acknowledgement from it.
  void Leave() {
    const absl::Status& failure = host_ ? host_->status() : runner_.status();
    if (size() == 1 || !failure.ok() || owned_bootstrap_->failed()) return;
    absl::Status status = domain_.Flush();
    if (status.ok()) {
      status = owned_bootstrap_->Barrier(absl::StrCat("collectives/", options_.name, "/leave"),
                                         std::min(options_.timeout, kLeaveTimeoutMax));
    }
    if (!status.ok()) Log().debug("rank {} leaves alone: {}", rank(), status.ToString());
  }

  // Owned or borrowed; the rest must go before them.
  std::unique_ptr<transport::Bootstrap> owned_bootstrap_;
  std::unique_ptr<runtime::Domain> owned_domain_;
  runtime::Domain& domain_;
  const CommunicatorOptions options_;
  const std::shared_ptr<BufferTable> buffers_;
  const std::unique_ptr<DomainTransport> transport_;
  Runner runner_;
  std::optional<HostRunner> host_;  // runs everything, if there
};

// The ranks that share memory, if all do and want to; else null, on all ranks alike.
absl::StatusOr<std::shared_ptr<runtime::HostGroup>> MeetOnHost(runtime::Domain& domain,
                                                               const CommunicatorOptions& options) {
  std::string refusal;
  const bool forced = options.algorithm == kHostAlgorithm;
  if (!options.algorithm.empty() && !forced) {
    refusal = absl::StrCat("algorithm ", options.algorithm, " is asked for");
  } else if (!options.host_memory) {
    refusal = "host memory is turned off (SUMAC_HOST_MEMORY)";
  }
  auto group =
      HostRunner::Meet(domain.worker().bootstrap(), absl::StrCat("collectives/", options.name),
                       refusal, options.timeout);
  if (group.ok() || !absl::IsFailedPrecondition(group.status())) return group;
  if (forced) return Annotate(group.status(), "algorithm host, but ranks can't share memory");
  if (domain.size() > 1) {
    Log().info("communicator \"{}\": not in shared memory: {}", options.name,
               std::string(group.status().message()));
  }
  return std::shared_ptr<runtime::HostGroup>();
}

absl::StatusOr<std::unique_ptr<CommunicatorImpl>> Make(runtime::Domain& domain,
                                                       const CommunicatorOptions& options) {
  auto group = MeetOnHost(domain, options);
  if (!group.ok()) return group.status();
  auto buffers = std::make_shared<BufferTable>(*group);
  DomainTransportOptions transport_options;
  transport_options.name = options.name;
  transport_options.slot_bytes = options.slot_bytes;
  transport_options.slots_per_peer = options.slots_per_peer;
  auto transport = DomainTransport::Create(domain, transport_options, buffers);
  if (!transport.ok()) return transport.status();
  return std::make_unique<CommunicatorImpl>(domain, options, *std::move(group), std::move(buffers),
                                            std::move(*transport));
}

absl::StatusOr<CommunicatorOptions> Resolve(const CommunicatorOptions& options) {
  return ResolveOptions(options, [](const char* name) -> const char* { return std::getenv(name); });
}

}  // namespace

absl::StatusOr<std::unique_ptr<Communicator>> Communicator::Create(
    runtime::Domain& domain, const CommunicatorOptions& options) {
  const absl::StatusOr<CommunicatorOptions> used = Resolve(options);
  if (!used.ok()) return used.status();
  return Make(domain, *used);
}

absl::StatusOr<std::unique_ptr<Communicator>> Communicator::FromEnvironment(
    const CommunicatorOptions& options) {
  const absl::StatusOr<CommunicatorOptions> used = Resolve(options);
  if (!used.ok()) return used.status();
  const absl::StatusOr<transport::LaunchEnvironment> launch = transport::ReadLaunchEnvironment();
  if (!launch.ok()) return launch.status();
  auto bootstrap = transport::Bootstrap::Join(launch->bootstrap);
  if (!bootstrap.ok()) return bootstrap.status();
  runtime::DomainOptions domain_options;
  domain_options.name = used->name;
  domain_options.timeout = used->timeout;
  domain_options.worker.device = used->device;
  auto domain = runtime::Domain::Create(**bootstrap, domain_options);
  if (!domain.ok()) return domain.status();
  auto communicator = Make(**domain, *used);
  if (!communicator.ok()) return communicator.status();
  Log().debug("communicator \"{}\": rank {} of {} (launched by {}), device {}", used->name,
              (*domain)->rank(), (*domain)->size(), launch->origin, (*domain)->device_name());
  (*communicator)->Own(std::move(*bootstrap), std::move(*domain));
  return std::move(*communicator);
}

}  // namespace sumac::collectives
