#include "transport/bootstrap/server.h"

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <deque>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

#include "transport/bootstrap/bootstrap.grpc.pb.h"
#include "transport/bootstrap/grpc_status.h"
#include "transport/bootstrap/job_state.h"

namespace sumac::transport {
namespace {

namespace pb = bootstrap::v1;

constexpr size_t kUnreadMax = 1 << 16;  // notifications for a member that does not read

// A member's event stream. Keeps itself alive until gRPC is done with it.
class WatchStream : public grpc::ServerWriteReactor<pb::Event>, public MemberEvents {
 public:
  static std::shared_ptr<WatchStream> Create(std::shared_ptr<JobState> job, int rank,
                                             int serving_rank) {
    std::shared_ptr<WatchStream> stream(new WatchStream(std::move(job), rank, serving_rank));
    stream->self_ = stream;
    return stream;
  }

  void OnAccepted(uint64_t session) override {
    session_ = session;
    pb::Event event;
    event.mutable_accepted()->set_session(session);
    event.mutable_accepted()->set_serving_rank(serving_rank_);
    Send(std::move(event));
  }
  void OnComplete() override {
    pb::Event event;
    event.mutable_complete();
    Send(std::move(event));
  }
  void OnFailed(int rank, const std::string& reason) override {
    pb::Event event;
    event.mutable_failed()->set_rank(rank);
    event.mutable_failed()->set_reason(reason);
    Send(std::move(event));
  }
  bool OnNotification(int from_rank, const std::string& topic) override {
    pb::Event event;
    event.mutable_notification()->set_from_rank(from_rank);
    event.mutable_notification()->set_topic(topic);
    return Send(std::move(event));
  }
  void OnClosing() override {
    pb::Event event;
    event.mutable_closing();
    Send(std::move(event));
  }
  void End(const absl::Status& status) {
    if (!finished_.exchange(true)) Finish(ToGrpc(status));
  }

  // gRPC's side.
  void OnWriteDone(bool ok) override {
    if (!ok) {
      End(absl::CancelledError("the member's stream broke"));
      return;
    }
    const std::lock_guard lock(mutex_);
    writing_ = false;
    WriteNext();
  }
  void OnCancel() override {
    job_->Disconnect(rank_, session_);
    End(absl::CancelledError("the member's stream broke"));
  }
  void OnDone() override {
    const auto last = std::move(self_);  // the job may still hold the other reference
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }

 private:
  WatchStream(std::shared_ptr<JobState> job, int rank, int serving_rank)
      : job_(std::move(job)), rank_(rank), serving_rank_(serving_rank) {}

  // False: dropped, since the member does not read.
  bool Send(pb::Event event) {
    const std::lock_guard lock(mutex_);
    if (closed_ || finished_.load()) return true;  // about to be known as gone
    // What the server itself says is bounded by the number of ranks, and always kept.
    if (event.has_notification() && queue_.size() >= kUnreadMax) return false;
    queue_.push_back(std::move(event));
    if (!writing_) WriteNext();
    return true;
  }
  void WriteNext() {
    if (queue_.empty() || finished_.load()) return;
    writing_ = true;
    current_ = std::move(queue_.front());
    queue_.pop_front();
    StartWrite(&current_);
  }

  const std::shared_ptr<JobState> job_;
  const int rank_;
  const int serving_rank_;
  std::atomic<uint64_t> session_{0};
  std::atomic<bool> finished_{false};
  std::mutex mutex_;
  bool writing_ = false;
  bool closed_ = false;
  pb::Event current_;
  std::deque<pb::Event> queue_;
  std::shared_ptr<WatchStream> self_;
};

// A call whose answer may come later, from another thread, or never (its client went away): the
// first to claim it finishes it.
class WaitingCall : public grpc::ServerUnaryReactor {
 public:
  WaitingCall() : claimed_(std::make_shared<std::atomic<bool>>(false)) {}
  // What to clean up when the caller goes away first. Set once, before the reactor is returned.
  void SetOnCancel(std::function<void()> on_cancel) { on_cancel_ = std::move(on_cancel); }
  void OnCancel() override {
    if (claimed_->exchange(true)) return;
    if (on_cancel_) on_cancel_();
    Finish(grpc::Status::CANCELLED);
  }
  void OnDone() override { delete this; }

  // What to run once when the answer is there; safe also after the call is gone.
  template <typename Result, typename Fill>
  std::function<void(absl::StatusOr<Result>)> Answer(Fill fill) {
    return [this, claimed = claimed_, fill](absl::StatusOr<Result> result) {
      if (claimed->exchange(true)) return;
      const grpc::Status status = ToGrpc(result.status());
      if (result.ok()) fill(*std::move(result));
      Finish(status);
    };
  }

 private:
  const std::shared_ptr<std::atomic<bool>> claimed_;
  std::function<void()> on_cancel_;
};

grpc::ServerUnaryReactor* FinishNow(grpc::CallbackServerContext* context,
                                    const absl::Status& status) {
  auto* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpc(status));
  return reactor;
}

class Service : public pb::BootstrapService::CallbackService {
 public:
  Service(std::shared_ptr<JobState> job, int serving_rank)
      : job_(std::move(job)), serving_rank_(serving_rank) {}

  grpc::ServerWriteReactor<pb::Event>* Join(grpc::CallbackServerContext*,
                                            const pb::JoinRequest* request) override {
    const pb::Caller& caller = request->caller();
    auto stream = WatchStream::Create(job_, caller.rank(), serving_rank_);
    const auto session = job_->Join(caller.job(), caller.rank(), request->size(),
                                    {request->host(), request->pid()}, stream);
    if (!session.ok()) stream->End(session.status());
    return stream.get();
  }
  grpc::ServerUnaryReactor* Leave(grpc::CallbackServerContext* context,
                                  const pb::LeaveRequest* request, pb::Empty*) override {
    const absl::Status checked = Check(request->caller());
    if (checked.ok()) job_->Leave(request->caller().rank());
    return FinishNow(context, checked);
  }
  grpc::ServerUnaryReactor* Publish(grpc::CallbackServerContext* context,
                                    const pb::PublishRequest* request, pb::Empty*) override {
    absl::Status status = Check(request->caller());
    if (status.ok()) status = job_->Publish(request->key(), request->value());
    return FinishNow(context, status);
  }
  grpc::ServerUnaryReactor* Lookup(grpc::CallbackServerContext*, const pb::LookupRequest* request,
                                   pb::LookupReply* reply) override {
    auto* call = new WaitingCall();
    auto done = call->Answer<std::string>(
        [reply](std::string value) { reply->set_value(std::move(value)); });
    if (auto checked = Check(request->caller()); !checked.ok()) {
      done(checked);
    } else {
      const uint64_t ticket = job_->Lookup(request->key(), std::move(done));
      if (ticket != 0) {
        call->SetOnCancel(
            [job = job_, key = request->key(), ticket] { job->ForgetLookup(key, ticket); });
      }
    }
    return call;
  }
  grpc::ServerUnaryReactor* Gather(grpc::CallbackServerContext*, const pb::GatherRequest* request,
                                   pb::GatherReply* reply) override {
    auto* call = new WaitingCall();
    auto done = call->Answer<std::vector<std::string>>([reply](std::vector<std::string> values) {
      for (std::string& value : values) reply->add_values(std::move(value));
    });
    if (auto checked = Check(request->caller()); !checked.ok()) {
      done(checked);
    } else {
      job_->Gather(request->tag(), request->caller().rank(), request->value(), done);
    }
    return call;
  }
  grpc::ServerUnaryReactor* Missing(grpc::CallbackServerContext* context,
                                    const pb::MissingRequest* request,
                                    pb::MissingReply* reply) override {
    const absl::Status checked = Check(request->caller());
    if (checked.ok()) {
      for (const int rank : job_->Missing(request->tag())) reply->add_ranks(rank);
    }
    return FinishNow(context, checked);
  }
  grpc::ServerUnaryReactor* Notify(grpc::CallbackServerContext* context,
                                   const pb::NotifyRequest* request, pb::Empty*) override {
    absl::Status status = Check(request->caller());
    if (status.ok()) {
      status = job_->Notify(request->caller().rank(), request->rank(), request->topic());
    }
    return FinishNow(context, status);
  }
  grpc::ServerUnaryReactor* ReportFailure(grpc::CallbackServerContext* context,
                                          const pb::ReportFailureRequest* request,
                                          pb::Empty*) override {
    absl::Status status = Check(request->caller());
    if (status.ok() && !job_->IsRank(request->rank())) {
      status = absl::InvalidArgumentError(absl::StrCat("no rank ", request->rank()));
    }
    if (status.ok()) {
      job_->DeclareFailed(request->rank(), absl::StrCat(request->reason(), " (reported by rank ",
                                                        request->caller().rank(), ")"));
    }
    return FinishNow(context, status);
  }

 private:
  absl::Status Check(const pb::Caller& caller) const {
    return job_->Check(caller.job(), caller.rank(), caller.session());
  }
  const std::shared_ptr<JobState> job_;
  const int serving_rank_;
};

class Server : public BootstrapServer {
 public:
  explicit Server(const BootstrapServerOptions& options)
      : options_(options),
        job_(std::make_shared<JobState>(options)),
        service_(job_, options.serving_rank) {}

  absl::Status Start() {
    constexpr int kProtocolBytes = 64 * 1024;  // beside the value itself
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort(options_.listen, grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service_);
    builder.SetMaxReceiveMessageSize(static_cast<int>(options_.value_bytes_max) + kProtocolBytes);
    // A second server on the port is an error, not a partner.
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    // A host that vanished without closing its connection is noticed in seconds.
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 2000);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 6000);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 1000);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || port == 0) {
      return absl::UnavailableError(
          absl::StrCat("the bootstrap server can't listen on ", options_.listen,
                       ": is the port in use, and is the address one of this host?"));
    }
    const size_t colon = options_.listen.rfind(':');
    address_ = absl::StrCat(options_.listen.substr(0, colon), ":", port);
    return absl::OkStatus();
  }

  ~Server() override {
    job_->Close();
    if (server_ == nullptr) return;
    // Gives the closing notices a moment, then cancels what is left.
    server_->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
    server_->Wait();
  }

  std::string address() const override { return address_; }
  void DeclareFailed(int rank, absl::string_view reason) override {
    job_->DeclareFailed(rank, std::string(reason));
  }
  void WaitUntilAlone(absl::Duration timeout) override {
    const absl::Time deadline = absl::Now() + timeout;
    while (!job_->EverybodyElseGone(options_.serving_rank) && absl::Now() < deadline) {
      absl::SleepFor(absl::Milliseconds(5));
    }
  }

 private:
  const BootstrapServerOptions options_;
  const std::shared_ptr<JobState> job_;
  Service service_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<BootstrapServer>> BootstrapServer::Start(
    const BootstrapServerOptions& options) {
  constexpr int kRanksMax = 1 << 20;
  if (options.size < 1 || options.size > kRanksMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("a job of ", options.size, " ranks: must be 1 to ", kRanksMax));
  }
  if (options.listen.rfind(':') == std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("bootstrap address '", options.listen, "': must be host:port"));
  }
  auto server = std::make_unique<Server>(options);
  if (auto started = server->Start(); !started.ok()) return started;
  return server;
}

}  // namespace sumac::transport
