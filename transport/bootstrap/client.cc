#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <random>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "transport/bootstrap/bootstrap.grpc.pb.h"
#include "transport/bootstrap/bootstrap.h"
#include "transport/bootstrap/grpc_status.h"
#include "transport/bootstrap/server.h"
#include "verbs/log.h"

namespace sumac::transport {
namespace {

namespace pb = bootstrap::v1;

constexpr size_t kNotificationsKeptMax = 1 << 16;  // until there is a handler
constexpr absl::Duration kQuickCall = absl::Seconds(1);
// How long the rank that serves stays for the others after it has left itself.
constexpr absl::Duration kServerLinger = absl::Seconds(5);

std::chrono::system_clock::time_point After(absl::Duration timeout) {
  return absl::ToChronoTime(absl::Now() + timeout);
}

std::string HostName() {
  char name[256] = "";
  gethostname(name, sizeof(name) - 1);
  return name;
}

std::shared_ptr<grpc::Channel> OpenChannel(const std::string& server) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 3000);  // the time-out of one connect
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 2000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 6000);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // Gatherings return a value of every rank.
  arguments.SetMaxReceiveMessageSize(-1);
  // A pool of its own: ranks in one process (tests) must not share a connection.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(server, grpc::InsecureChannelCredentials(), arguments);
}

class Client : public Bootstrap {
 public:
  explicit Client(const BootstrapOptions& options) : options_(options) {
    caller_.set_job(options.job);
    caller_.set_rank(options.rank);
  }

  absl::Status Join(std::unique_ptr<BootstrapServer> server) {
    server_ = std::move(server);
    const absl::Time deadline = absl::Now() + options_.join_timeout;
    watch_ = std::thread([this, deadline] { Watch(deadline); });
    std::unique_lock lock(mutex_);
    const bool settled = changed_.wait_until(lock, absl::ToChronoTime(deadline), [this] {
      return complete_ || !refused_.ok() || !failure_.ok();
    });
    if (complete_) return absl::OkStatus();
    if (!refused_.ok()) return refused_;
    if (settled) return failure_;
    const bool accepted = caller_.session() != 0;
    const std::string last_error = last_error_;
    lock.unlock();
    if (!accepted) {
      return absl::DeadlineExceededError(absl::StrCat(
          Where(), " did not answer in ", absl::FormatDuration(options_.join_timeout), " (",
          last_error.empty() ? "no connection" : last_error,
          "): is the process that serves it up (rank 0, or the launcher), and the address right?"));
    }
    return absl::DeadlineExceededError(
        absl::StrCat(Where(), ": after ", absl::FormatDuration(options_.join_timeout),
                     " these ranks of ", options_.size, " are missing: ", MissingRanks("")));
  }

  ~Client() override {
    SetNotificationHandler({});
    closing_.store(true);
    const pb::Caller caller = CallerNow();
    if (caller.session() != 0 && !server_gone_.load()) {
      grpc::ClientContext context;
      context.set_deadline(After(kQuickCall));
      pb::LeaveRequest request;
      *request.mutable_caller() = caller;
      pb::Empty reply;
      stub_->Leave(&context, request, &reply);
      if (server_ && complete()) {
        server_->WaitUntilAlone(failed() ? absl::Seconds(1) : kServerLinger);
      }
    }
    {
      const std::lock_guard lock(mutex_);
      if (watch_context_ != nullptr) watch_context_->TryCancel();
      changed_.notify_all();
    }
    if (watch_.joinable()) watch_.join();
  }

  int rank() const override { return options_.rank; }
  int size() const override { return options_.size; }

  absl::Status Publish(absl::string_view key, absl::string_view value,
                       absl::Duration timeout) override {
    pb::PublishRequest request;
    request.set_key(std::string(key));
    request.set_value(std::string(value));
    pb::Empty reply;
    return Call("publishing '", key, timeout, &pb::BootstrapService::Stub::Publish, request,
                &reply);
  }

  absl::StatusOr<std::string> Lookup(absl::string_view key, absl::Duration timeout) override {
    pb::LookupRequest request;
    request.set_key(std::string(key));
    pb::LookupReply reply;
    const auto status =
        Call("looking up '", key, timeout, &pb::BootstrapService::Stub::Lookup, request, &reply);
    if (!status.ok()) return status;
    return std::move(*reply.mutable_value());
  }

  absl::StatusOr<std::vector<std::string>> Exchange(absl::string_view tag, absl::string_view value,
                                                    absl::Duration timeout) override {
    pb::GatherRequest request;
    request.set_tag(std::string(tag));
    request.set_value(std::string(value));
    pb::GatherReply reply;
    auto status =
        Call("exchange '", tag, timeout, &pb::BootstrapService::Stub::Gather, request, &reply);
    if (absl::IsDeadlineExceeded(status)) {
      return absl::DeadlineExceededError(
          absl::StrCat(status.message(), "; still missing: ", MissingRanks(request.tag())));
    }
    if (!status.ok()) return status;
    return std::vector<std::string>(std::make_move_iterator(reply.mutable_values()->begin()),
                                    std::make_move_iterator(reply.mutable_values()->end()));
  }

  absl::Status Barrier(absl::string_view tag, absl::Duration timeout) override {
    return Exchange(tag, "", timeout).status();
  }

  absl::Status Notify(int rank, absl::string_view topic, absl::Duration timeout) override {
    pb::NotifyRequest request;
    request.set_rank(rank);
    request.set_topic(std::string(topic));
    pb::Empty reply;
    return Call(absl::StrCat("notifying rank ", rank, " of '"), topic, timeout,
                &pb::BootstrapService::Stub::Notify, request, &reply);
  }

  void SetNotificationHandler(NotificationHandler handler) override {
    const std::lock_guard running(handler_mutex_);  // held while a handler runs
    handler_ = std::move(handler);
    if (!handler_) return;
    std::deque<std::pair<int, std::string>> kept;
    {
      const std::lock_guard lock(mutex_);
      kept.swap(kept_notifications_);
    }
    for (const auto& [from, topic] : kept) handler_(from, topic);
  }

  void ReportFailure(int rank, absl::string_view reason) override {
    pb::ReportFailureRequest request;
    request.set_rank(rank);
    request.set_reason(std::string(reason));
    pb::Empty reply;
    const auto status = Call("reporting '", reason, kQuickCall,
                             &pb::BootstrapService::Stub::ReportFailure, request, &reply);
    // The server may be what failed; then everybody notices by themselves.
    if (!status.ok()) Log().info("{}", status.ToString());
  }

  bool failed() const noexcept override { return failed_.load(std::memory_order_relaxed); }
  absl::Status failure() const override {
    const std::lock_guard lock(mutex_);
    return failure_;
  }

 private:
  pb::Caller CallerNow() const {
    const std::lock_guard lock(mutex_);
    return caller_;
  }
  bool complete() const {
    const std::lock_guard lock(mutex_);
    return complete_;
  }
  std::string Where() const { return absl::StrCat("bootstrap server ", options_.server); }

  template <typename Request, typename Reply>
  absl::Status Call(absl::string_view doing, absl::string_view what, absl::Duration timeout,
                    grpc::Status (pb::BootstrapService::Stub::*method)(grpc::ClientContext*,
                                                                       const Request&, Reply*),
                    Request& request, Reply* reply) {
    *request.mutable_caller() = CallerNow();
    const std::string context_text = absl::StrCat(Where(), ": ", doing, what, "'");
    grpc::ClientContext context;
    context.set_deadline(After(timeout));
    absl::Status status = FromGrpc((stub_.get()->*method)(&context, request, reply), context_text);
    if (absl::IsDeadlineExceeded(status)) {
      return absl::DeadlineExceededError(
          absl::StrCat(context_text, ": not done in ", absl::FormatDuration(timeout)));
    }
    // A dead server is a dead rank, if a rank served; the watch knows.
    if (absl::IsUnavailable(status) && FailedRankOf(status) < 0) {
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, std::chrono::milliseconds(500),
                        [this] { return !failure_.ok() || server_gone_.load(); });
      if (!failure_.ok()) return failure_;
    }
    return status;
  }

  std::string MissingRanks(const std::string& tag) {
    pb::MissingRequest request;
    request.set_tag(tag);
    pb::MissingReply reply;
    const auto status = Call("asking who is missing in '", tag, kQuickCall,
                             &pb::BootstrapService::Stub::Missing, request, &reply);
    if (!status.ok()) return "unknown, the server does not answer";
    return reply.ranks().empty() ? "none" : absl::StrJoin(reply.ranks(), ", ");
  }

  void SetFailure(int rank, const std::string& message) {
    const std::lock_guard lock(mutex_);
    if (!failure_.ok()) return;
    failure_ = WithFailedRank(absl::UnavailableError(message), rank);
    failed_.store(true);
    changed_.notify_all();
  }

  // The watch thread: opens the stream (again and again until the server is there), then follows
  // it.
  void Watch(absl::Time join_deadline) {
    std::minstd_rand jitter(std::random_device{}());
    absl::Duration pause = absl::Milliseconds(20);
    for (;;) {
      const absl::Status ended = FollowOnce();
      if (closing_.load()) return;
      const bool joined = CallerNow().session() != 0;
      if (joined || !absl::IsUnavailable(ended) || absl::Now() > join_deadline) {
        OnStreamEnd(joined, ended);
        return;
      }
      // Not there yet. Doubling with jitter, so that thousands of ranks do not knock in step.
      const absl::Duration wait = pause * std::uniform_real_distribution(0.5, 1.5)(jitter);
      std::unique_lock lock(mutex_);
      last_error_ = std::string(ended.message());
      changed_.wait_for(lock, absl::ToChronoMicroseconds(wait), [this] { return closing_.load(); });
      pause = std::min(pause * 2, absl::Milliseconds(500));
    }
  }

  absl::Status FollowOnce() {
    // A channel of its own for each try: one that has failed goes on failing for seconds, whatever
    // its back-off arguments say (gRPC 1.51).
    stub_ = pb::BootstrapService::NewStub(OpenChannel(options_.server));
    grpc::ClientContext context;
    {
      const std::lock_guard lock(mutex_);
      if (closing_.load()) return absl::CancelledError("leaving");
      watch_context_ = &context;
    }
    pb::JoinRequest request;
    *request.mutable_caller() = CallerNow();
    request.set_size(options_.size);
    request.set_host(HostName());
    request.set_pid(getpid());
    const auto reader = stub_->Join(&context, request);
    pb::Event event;
    while (reader->Read(&event)) OnEvent(event);
    const absl::Status ended = FromGrpc(reader->Finish(), Where());
    const std::lock_guard lock(mutex_);
    watch_context_ = nullptr;
    return ended;
  }

  void OnEvent(const pb::Event& event) {
    switch (event.kind_case()) {
      case pb::Event::kAccepted: {
        const std::lock_guard lock(mutex_);
        caller_.set_session(event.accepted().session());
        serving_rank_ = event.accepted().serving_rank();
        return;
      }
      case pb::Event::kComplete: {
        const std::lock_guard lock(mutex_);
        complete_ = true;
        changed_.notify_all();
        return;
      }
      case pb::Event::kFailed:
        SetFailure(event.failed().rank(), event.failed().reason());
        return;
      case pb::Event::kNotification:
        OnNotification(event.notification().from_rank(), event.notification().topic());
        return;
      case pb::Event::kClosing:
        server_gone_.store(true);
        return;
      case pb::Event::KIND_NOT_SET:
        Log().warn("{}: an event of an unknown kind; is the server a newer version?", Where());
        return;
    }
  }

  void OnNotification(int from, const std::string& topic) {
    const std::lock_guard running(handler_mutex_);
    if (handler_) {
      handler_(from, topic);
      return;
    }
    const std::lock_guard lock(mutex_);
    if (kept_notifications_.size() < kNotificationsKeptMax) {
      kept_notifications_.emplace_back(from, topic);
    } else {
      Log().warn("{}: dropped a notification of rank {}: nobody here takes them", Where(), from);
    }
  }

  void OnStreamEnd(bool joined, const absl::Status& ended) {
    if (!joined) {
      const std::lock_guard lock(mutex_);
      refused_ =
          ended.ok() ? absl::UnavailableError(absl::StrCat(Where(), ": ended the stream")) : ended;
      changed_.notify_all();
      return;
    }
    if (!complete()) {
      const std::lock_guard lock(mutex_);
      refused_ = absl::UnavailableError(
          absl::StrCat(Where(), ": it ended before all ranks had joined: ", ended.message()));
      server_gone_.store(true);
      changed_.notify_all();
      return;
    }
    if (server_gone_.exchange(true)) return;  // it said good-bye
    if (serving_rank_ >= 0) {
      SetFailure(serving_rank_, absl::StrCat("rank ", serving_rank_, " failed: the ", Where(),
                                             " that it runs is gone (", ended.message(), ")"));
    } else {
      SetFailure(-1, absl::StrCat("the ", Where(), " is gone: did the launcher die? (",
                                  ended.message(), ")"));
    }
  }

  const BootstrapOptions options_;
  // Replaced by the watch thread until the server is there; fixed once there is a session.
  std::unique_ptr<pb::BootstrapService::Stub> stub_;
  std::unique_ptr<BootstrapServer> server_;

  mutable std::mutex mutex_;
  pb::Caller caller_;  // its session comes with Accepted
  int serving_rank_ = -1;
  std::string last_error_;  // why the server could not be reached
  std::condition_variable changed_;
  bool complete_ = false;
  absl::Status refused_;
  absl::Status failure_;
  grpc::ClientContext* watch_context_ = nullptr;
  std::deque<std::pair<int, std::string>> kept_notifications_;
  std::atomic<bool> failed_{false};
  std::atomic<bool> closing_{false};
  std::atomic<bool> server_gone_{false};

  std::mutex handler_mutex_;
  NotificationHandler handler_;
  std::thread watch_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Bootstrap>> Bootstrap::Join(const BootstrapOptions& options) {
  if (options.size < 1 || options.rank < 0 || options.rank >= options.size) {
    return absl::InvalidArgumentError(absl::StrCat("rank ", options.rank, " of a job with ",
                                                   options.size,
                                                   " ranks: rank must be 0 to size - 1"));
  }
  BootstrapOptions actual = options;
  std::unique_ptr<BootstrapServer> server;
  if (options.serve) {
    BootstrapServerOptions serving;
    serving.listen = options.server.empty() ? "127.0.0.1:0" : options.server;
    serving.job = options.job;
    serving.size = options.size;
    serving.serving_rank = options.rank;
    auto started = BootstrapServer::Start(serving);
    if (!started.ok()) return started.status();
    server = *std::move(started);
    actual.server = server->address();
  }
  if (actual.server.empty()) {
    return absl::InvalidArgumentError(
        "no bootstrap server given: set SUMAC_BOOTSTRAP to host:port");
  }
  const size_t colon = actual.server.rfind(':');
  if (colon == std::string::npos || colon == 0 || colon + 1 == actual.server.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("bootstrap server '", actual.server, "': must be host:port"));
  }
  auto client = std::make_unique<Client>(actual);
  if (auto joined = client->Join(std::move(server)); !joined.ok()) return joined;
  return client;
}

}  // namespace sumac::transport
