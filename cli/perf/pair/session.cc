#include "cli/perf/pair/session.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace sumac::cli {
namespace {

constexpr size_t kWindowMin = 4096;
// The other side may be measuring meanwhile; its death ends the wait at once.
constexpr absl::Duration kMeetingPatience = absl::Hours(2);
constexpr uint32_t kPollsPerYield = 1024;
constexpr uint32_t kPollsPerLook = 4096;

std::string HostName() {
  char name[256] = "";
  gethostname(name, sizeof(name) - 1);
  return name;
}

// Capability and signals of a lane, as the peer reads them.
std::string Describe(const Lane& lane) {
  return absl::StrCat(lane.end.id, " ", lane.data.id, " ", lane.grant->capability().Serialize());
}

absl::Status TakeDescription(const std::string& text, int rank, Lane& lane) {
  const std::vector<std::string> fields = absl::StrSplit(text, absl::MaxSplits(' ', 2));
  if (fields.size() != 3 || !absl::SimpleAtoi(fields[0], &lane.peer_end.id) ||
      !absl::SimpleAtoi(fields[1], &lane.peer_data.id)) {
    return absl::InternalError(absl::StrCat("rank ", rank, " gave no capability"));
  }
  lane.peer_end.rank = lane.peer_data.rank = rank;
  auto capability = runtime::Capability::Parse(fields[2]);
  if (!capability.ok()) return capability.status();
  lane.peer = *capability;
  return absl::OkStatus();
}

absl::Status Pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof(set), &set) == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--cpus: can't run on CPU ", cpu, ": ", std::strerror(errno)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Session>> Session::Open(const PairOptions& options,
                                                       const transport::BootstrapOptions& meeting) {
  // First of all: the threads of everything else inherit it.
  if (options.cpus.size() == 2) {
    const int cpu = options.cpus[static_cast<size_t>(meeting.rank)];
    if (auto pinned = Pin(cpu); !pinned.ok()) return pinned;
  }
  std::unique_ptr<Session> session(new Session(options));
  auto bootstrap = transport::Bootstrap::Join(meeting);
  if (!bootstrap.ok()) return bootstrap.status();
  session->bootstrap_ = *std::move(bootstrap);
  if (auto introduced = session->Introduce(); !introduced.ok()) return introduced;
  const auto sizes = options.sizes();
  const size_t largest = *std::max_element(sizes.begin(), sizes.end());
  const size_t window = (std::max(largest, kWindowMin) + kWindowMin - 1) / kWindowMin * kWindowMin;
  for (int i = 0; i < options.queue_pairs; ++i) {
    if (auto made = session->MakeLane(i, window); !made.ok()) return made;
  }
  if (auto together = session->Together(); !together.ok()) return together;
  return session;
}

Session::~Session() {
  if (bootstrap_ != nullptr && !bootstrap_->failed() && !lanes_.empty()) (void)Together();
}

absl::Status Session::Introduce() {
  const auto agreed = Swap(options_.Agreement());
  if (!agreed.ok()) return agreed.status();
  if (*agreed != options_.Agreement()) {
    return absl::FailedPreconditionError(absl::StrCat("the two sides have different options: \"",
                                                      options_.Agreement(), "\" here, \"", *agreed,
                                                      "\" there"));
  }
  const CpuPair own = AllowedCpus();
  const auto peer = Swap(absl::StrCat(HostName(), " ", getpid(), " ", own.first, " ", own.second));
  if (!peer.ok()) return peer.status();
  const std::vector<std::string> fields = absl::StrSplit(*peer, ' ');
  int pid = 0;
  CpuPair theirs;
  if (fields.size() != 4 || !absl::SimpleAtoi(fields[1], &pid) ||
      !absl::SimpleAtoi(fields[2], &theirs.first) || !absl::SimpleAtoi(fields[3], &theirs.second)) {
    return absl::InternalError("the other side did not introduce itself");
  }
  hosts_ = {HostName(), fields[0]};
  pids_ = {static_cast<int>(getpid()), pid};
  if (!initiator()) {
    std::reverse(hosts_.begin(), hosts_.end());
    std::reverse(pids_.begin(), pids_.end());
    return absl::OkStatus();
  }
  machine_ = ReadMachine();
  if (hosts_[0] == hosts_[1]) {
    MeasureDistance(machine_, own.first, theirs.first != own.first ? theirs.first : theirs.second);
  }
  return absl::OkStatus();
}

absl::Status Session::MakeLane(int index, size_t window) {
  Lane lane;
  lane.window = window;
  runtime::DomainOptions domain_options;
  domain_options.name = absl::StrCat(index);
  domain_options.timeout = options_.timeout;
  domain_options.worker.name = domain_options.name;
  domain_options.worker.send_depth = std::max(domain_options.worker.send_depth, options_.tx_depth);
  auto domain = runtime::Domain::Create(*bootstrap_, domain_options);
  if (!domain.ok()) return domain.status();
  lane.domain = *std::move(domain);
  auto segment = lane.domain->Allocate(2 * window);
  if (!segment.ok()) return segment.status();
  lane.segment = std::make_unique<runtime::Segment>(*std::move(segment));
  auto grant = lane.domain->MakeGrant(*lane.segment, window, window, runtime::kAllRights);
  if (!grant.ok()) return grant.status();
  lane.grant = std::make_unique<runtime::Grant>(*std::move(grant));
  for (runtime::Signal* signal : {&lane.end, &lane.data}) {
    auto made = lane.domain->CreateSignal();
    if (!made.ok()) return made.status();
    *signal = *made;
  }
  const auto peers = Swap(Describe(lane));
  if (!peers.ok()) return peers.status();
  if (auto taken = TakeDescription(*peers, peer_rank(), lane); !taken.ok()) return taken;
  // Connects now, not in the first timed operation.
  if (auto room = lane.domain->SignalRoom(peer_rank()); !room.ok()) return room.status();
  auto endpoint = lane.domain->worker().Connect(peer_rank(), Deadline());
  if (!endpoint.ok()) return endpoint.status();
  lane.endpoint = *endpoint;
  if (index == 0) {
    const auto device = Swap(lane.domain->device_name());
    if (!device.ok()) return device.status();
    devices_ = {lane.domain->device_name(), *device};
    if (!initiator()) std::reverse(devices_.begin(), devices_.end());
  }
  lanes_.push_back(std::move(lane));
  return absl::OkStatus();
}

absl::Status Session::Together() {
  return bootstrap_->Barrier(absl::StrCat("perf/", exchanges_++), kMeetingPatience);
}

absl::StatusOr<std::string> Session::Swap(const std::string& mine) {
  auto values = bootstrap_->Exchange(absl::StrCat("perf/", exchanges_++), mine, kMeetingPatience);
  if (!values.ok()) return values.status();
  return (*values)[static_cast<size_t>(peer_rank())];
}

absl::Status Session::Broken() const {
  if (bootstrap_->failed()) return bootstrap_->failure();
  for (const Lane& lane : lanes_) {
    if (auto status = lane.endpoint->status(); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Session::PollUntil(absl::FunctionRef<bool()> done, absl::Duration patience) {
  absl::Time deadline = absl::InfiniteFuture();
  for (uint32_t polls = 1; !done(); ++polls) {
    int progressed = 0;
    for (Lane& lane : lanes_) progressed += lane.domain->Progress();
    if (progressed > 0) continue;
    // With more ranks than CPUs the peer may be waiting for this one.
    if (polls % kPollsPerYield == 0) sched_yield();
    if (polls % kPollsPerLook != 0) continue;
    if (auto broken = Broken(); !broken.ok()) return broken;
    if (deadline == absl::InfiniteFuture()) deadline = absl::Now() + patience;
    if (absl::Now() > deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat("rank ", peer_rank(), " did nothing for ", absl::FormatDuration(patience)));
    }
  }
  return absl::OkStatus();
}

absl::Status Session::SayEnd() {
  Lane& first = lanes_.front();
  if (auto raised = first.domain->RaiseSignal(first.peer_end); !raised.ok()) return raised.status();
  return first.domain->Flush(peer_rank());
}

bool Session::PeerSaidEnd() const {
  const Lane& first = lanes_.front();
  return first.domain->SignalValue(first.end, peer_rank()) >= phase_;
}

absl::Status Session::AwaitPeersEnd() {
  return PollUntil([this] { return PeerSaidEnd(); }, kMeetingPatience);
}

}  // namespace sumac::cli
