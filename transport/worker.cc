#include "transport/worker.h"

#include <sched.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

#include "transport/connector.h"
#include "transport/local_path.h"
#include "transport/notification_router.h"
#include "transport/registered_region.h"
#include "transport/worker_limits.h"
#include "verbs/log.h"
#include "verbs/status.h"

namespace sumac::transport {
namespace {

constexpr uint8_t kReadDepthMax = 16;
constexpr int kPollBatch = 32;
// Between two of these nobody looks whether the job has failed.
constexpr absl::Duration kBlockMax = absl::Milliseconds(10);
// While somebody waits, each peer has to give a sign of life so often: its death would else be seen
// only by those who have something on the way to it.
constexpr absl::Duration kProbeInterval = absl::Seconds(1);
constexpr int kIdlePollsPerYield = 16;
// How long a worker that goes away waits for its last words to arrive.
constexpr absl::Duration kCloseTimeout = absl::Seconds(1);

class WorkerImpl final : public Worker {
 public:
  explicit WorkerImpl(Bootstrap& bootstrap, const WorkerOptions& options)
      : bootstrap_(bootstrap), options_(options) {}
  ~WorkerImpl() override;

  absl::Status Open();

  Bootstrap& bootstrap() override { return bootstrap_; }
  const WorkerOptions& options() const override { return options_; }
  const std::string& device_name() const override { return device_->name(); }
  absl::StatusOr<Endpoint*> Connect(int peer, absl::Time deadline) override;
  Endpoint* Find(int peer) override {
    const bool is_rank = peer >= 0 && static_cast<size_t>(peer) < connector_->size();
    return is_rank ? connector_->Connected(peer) : nullptr;
  }
  absl::StatusOr<std::unique_ptr<RegisteredMemory>> Register(void* addr, size_t length,
                                                             uint32_t remote_access) override {
    return RegisterRegion(host_.pd, addr, length, remote_access);
  }
  void SetImmediateHandler(ImmediateHandler handler) override {
    host_.on_immediate = std::move(handler);
  }
  int Progress() override;
  absl::Status Wait(absl::FunctionRef<bool()> done, absl::Time deadline) override;

 private:
  absl::Status CreateQueue(LocalPath& path);
  void CloseEndpoints();
  template <typename Visit>
  void ForEachConnected(Visit visit);
  void ProbePeers(absl::Time now);
  absl::Status Block(absl::Time deadline);

  Bootstrap& bootstrap_;
  WorkerOptions options_;
  std::shared_ptr<verbs::Device> device_;
  std::shared_ptr<verbs::CompletionChannel> channel_;
  EndpointHost host_;
  std::unique_ptr<Connector> connector_;
  std::unique_ptr<NotificationRoute> route_;
  absl::Status queue_status_;  // the completion queue's own failure; ends every wait
  bool in_progress_ = false;
  absl::Time last_probe_ = absl::Now();
};

absl::Status WorkerImpl::Open() {
  if (auto status = ValidateOptions(options_); !status.ok()) return status;
  if (bootstrap_.size() > kRanksMax) {
    return absl::InvalidArgumentError(absl::StrCat("a job of more than ", kRanksMax, " ranks"));
  }
  auto path = ChooseLocalPath(bootstrap_, options_);
  if (!path.ok()) return path.status();
  device_ = path->device;
  auto pd = verbs::ProtectionDomain::Create(device_);
  if (!pd.ok()) return pd.status();
  host_.worker = this;
  host_.pd = *std::move(pd);
  if (auto status = CreateQueue(*path); !status.ok()) return status;

  auto setup = MakeConnectionSetup(*options_.connect, bootstrap_.rank(), bootstrap_.size(), *path);
  if (!setup.ok()) return setup.status();
  connector_ = std::make_unique<Connector>(host_, *std::move(path), *std::move(setup));
  host_.report_failure = [this](int rank, std::string reason) {
    connector_->EnqueueFailure(rank, std::move(reason));
  };
  auto route = NotificationRoute::Register(bootstrap_, options_.name,
                                           [this](int from) { connector_->Enqueue(from); });
  if (!route.ok()) return route.status();
  route_ = *std::move(route);
  return absl::OkStatus();
}

absl::Status WorkerImpl::CreateQueue(LocalPath& path) {
  const auto attr = device_->QueryDevice();
  if (!attr.ok()) return attr.status();
  const uint32_t sends = options_.send_depth + kControlDepth;
  const uint32_t receives = options_.receive_depth + kReceiveReserve;
  const uint32_t most = static_cast<uint32_t>(std::max(attr->max_qp_wr, 0));
  if (std::max(sends, receives) > most) {
    return absl::InvalidArgumentError(
        absl::StrCat("WorkerOptions::send_depth ", options_.send_depth, " and receive_depth ",
                     options_.receive_depth, " need ", std::max(sends, receives),
                     " queue entries; ", device_->name(), " allows ", most));
  }
  const int read_depth =
      std::min({attr->max_qp_rd_atom, attr->max_qp_init_rd_atom, static_cast<int>(kReadDepthMax)});
  path.connection.max_rd_atomic = static_cast<uint8_t>(std::max(read_depth, 1));

  // One queue for all, with an entry for everything that can be posted, as it must never overrun.
  const uint64_t each = sends + receives;
  const auto size = static_cast<uint64_t>(bootstrap_.size());
  path.endpoints_max = std::min(size, static_cast<uint64_t>(std::max(attr->max_cqe, 0)) / each);
  if (path.endpoints_max == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "one queue pair needs ", each, " completion queue entries; ", device_->name(), " allows ",
        attr->max_cqe, ": lower WorkerOptions::send_depth or receive_depth"));
  }
  auto channel = verbs::CompletionChannel::Create(device_);
  if (!channel.ok()) return channel.status();
  channel_ = *std::move(channel);
  auto cq = verbs::CompletionQueue::Create(device_, static_cast<int>(path.endpoints_max * each),
                                           channel_);
  if (!cq.ok()) return cq.status();
  host_.cq = *std::move(cq);
  return absl::OkStatus();
}

WorkerImpl::~WorkerImpl() {
  route_.reset();
  if (connector_ == nullptr) return;
  CloseEndpoints();
  connector_->Stop();
}

// Without this a peer that gives back credits, or whose last acknowledgement got lost, would take
// an orderly end for a death.
void WorkerImpl::CloseEndpoints() {
  const absl::Time deadline = absl::Now() + kCloseTimeout;
  const auto drain = [&] {
    (void)Wait(
        [&] {
          bool drained = true;
          ForEachConnected([&](ReliableEndpoint& each) { drained = drained && each.drained(); });
          return drained;
        },
        deadline);
  };
  host_.on_immediate = nullptr;
  host_.report_failure = [](int, const std::string&) {};
  drain();
  ForEachConnected([&](ReliableEndpoint& each) {
    if (each.peer() != bootstrap_.rank()) each.SendClose();
  });
  drain();
}

template <typename Visit>
void WorkerImpl::ForEachConnected(Visit visit) {
  for (size_t peer = 0; peer < connector_->size(); ++peer) {
    if (ReliableEndpoint* endpoint = connector_->Connected(static_cast<int>(peer))) {
      visit(*endpoint);
    }
  }
}

absl::StatusOr<Endpoint*> WorkerImpl::Connect(int peer, absl::Time deadline) {
  auto endpoint =
      connector_->Connect(peer, std::min(deadline, absl::Now() + options_.connect_timeout));
  if (!endpoint.ok()) return endpoint.status();
  return *endpoint;
}

int WorkerImpl::Progress() {
  if (in_progress_) return 0;  // called by an immediate handler, which must not wait
  std::array<ibv_wc, kPollBatch> completions;
  const int count = host_.cq->Poll(completions);
  if (count <= 0) {
    if (count < 0 && queue_status_.ok()) {
      queue_status_ = absl::InternalError(absl::StrCat("ibv_poll_cq on ", device_->name(),
                                                       " failed: the queue overran or the "
                                                       "device is gone"));
    }
    return count;
  }
  in_progress_ = true;
  for (int i = 0; i < count; ++i) {
    const ibv_wc& completion = completions[static_cast<size_t>(i)];
    if (ReliableEndpoint* endpoint = connector_->Established(PeerOf(completion.wr_id))) {
      endpoint->OnCompletion(completion);
    }
  }
  in_progress_ = false;
  return count;
}

absl::Status WorkerImpl::Wait(absl::FunctionRef<bool()> done, absl::Time deadline) {
  if (done()) return absl::OkStatus();
  absl::Time spin_until;
  bool spin_begins = true;
  for (int idle = 0;;) {
    if (Progress() > 0) spin_begins = true;
    if (done()) return absl::OkStatus();  // often at the first look: no clock was read for it
    if (!queue_status_.ok()) return queue_status_;
    if (bootstrap_.failed()) return bootstrap_.failure();
    const absl::Time now = absl::Now();
    if (now >= deadline) return absl::DeadlineExceededError("it did not happen in time");
    if (std::exchange(spin_begins, false)) {
      spin_until = now + options_.spin;
      idle = 0;
    } else if (now < spin_until) {
      if (++idle % kIdlePollsPerYield == 0) sched_yield();
    } else {
      ProbePeers(now);
      if (auto status = Block(deadline); !status.ok()) return status;
    }
  }
}

void WorkerImpl::ProbePeers(absl::Time now) {
  if (now - last_probe_ < kProbeInterval) return;
  last_probe_ = now;
  ForEachConnected([](ReliableEndpoint& each) { each.Probe(); });
}

// Sleeps until something completes, at most kBlockMax. What came between the last poll and the
// arming raises no event, so it is polled for once more.
absl::Status WorkerImpl::Block(absl::Time deadline) {
  if (auto status = host_.cq->Arm(); !status.ok()) return status;
  if (Progress() != 0) return absl::OkStatus();
  return channel_->Wait(std::clamp(deadline - absl::Now(), absl::ZeroDuration(), kBlockMax))
      .status();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Worker>> Worker::Create(Bootstrap& bootstrap,
                                                       const WorkerOptions& options) {
  auto worker = std::make_unique<WorkerImpl>(bootstrap, options);
  if (auto status = worker->Open(); !status.ok()) return status;
  return worker;
}

}  // namespace sumac::transport
