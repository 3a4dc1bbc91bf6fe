#include "transport/rdma_cm/event_hub.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "verbs/log.h"

namespace sumac::transport::rdma_cm {
namespace {

// Between two of these nobody looks whether the wait is interrupted.
constexpr absl::Duration kSlice = absl::Milliseconds(50);

}  // namespace

Identifier::~Identifier() {
  if (id_ != nullptr) hub_->Destroy(id_);
}

absl::StatusOr<std::unique_ptr<EventHub>> EventHub::Create(const Calls& calls,
                                                           RequestHandler handler) {
  errno = 0;
  rdma_event_channel* channel = calls.create_event_channel();
  if (channel == nullptr) {
    return CallStatus(errno != 0 ? errno : ENODEV, "rdma_create_event_channel",
                      "this host (is the module rdma_ucm loaded, and may we open "
                      "/dev/infiniband/rdma_cm?)");
  }
  const int flags = fcntl(channel->fd, F_GETFL);
  const int stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (flags < 0 || stop_fd < 0 || fcntl(channel->fd, F_SETFL, flags | O_NONBLOCK) != 0) {
    const int error = errno;
    if (stop_fd >= 0) close(stop_fd);
    calls.destroy_event_channel(channel);
    return CallStatus(error, "a non-blocking rdma_cm event channel", "this host");
  }
  return std::unique_ptr<EventHub>(new EventHub(calls, std::move(handler), channel, stop_fd));
}

EventHub::EventHub(const Calls& calls, RequestHandler handler, rdma_event_channel* channel,
                   int stop_fd)
    : calls_(calls),
      on_request_(std::move(handler)),
      channel_(channel),
      stop_fd_(stop_fd),
      thread_([this] { Run(); }) {}

EventHub::~EventHub() {
  Stop();
  calls_.destroy_event_channel(channel_);
  close(stop_fd_);
}

void EventHub::Stop() {
  if (!thread_.joinable()) return;
  eventfd_write(stop_fd_, 1);
  thread_.join();
}

absl::StatusOr<Identifier> EventHub::CreateIdentifier() {
  rdma_cm_id* id = nullptr;
  if (calls_.create_id(channel_, &id, nullptr, RDMA_PS_TCP) != 0) {
    return CallStatus(errno, "rdma_create_id", "this host");
  }
  Locked([&] { mailboxes_[id]; });
  return Identifier(this, id);
}

// The mailbox goes first: once the identifier is gone another may have its address.
void EventHub::Destroy(rdma_cm_id* id) {
  Locked([&] { mailboxes_.erase(id); });
  if (calls_.destroy_id(id) != 0) Log().debug("rdma_destroy_id: {}", std::strerror(errno));
}

void EventHub::Locked(absl::FunctionRef<void()> act) {
  const std::lock_guard lock(mutex_);
  act();
}

void EventHub::Run() {
  for (;;) {
    pollfd events[2] = {{channel_->fd, POLLIN, 0}, {stop_fd_, POLLIN, 0}};
    if (poll(events, 2, -1) < 0 && errno != EINTR) {
      Log().error("rdma_cm: waiting for events: {}", std::strerror(errno));
      return;
    }
    if (events[1].revents != 0) return;
    if (events[0].revents != 0 && !TakeOne()) return;
  }
}

// False when the channel is of no use any more.
bool EventHub::TakeOne() {
  rdma_cm_event* raw = nullptr;
  if (calls_.get_cm_event(channel_, &raw) != 0) {
    if (errno == EAGAIN || errno == EINTR) return true;
    Log().error("rdma_get_cm_event: {}", std::strerror(errno));
    return false;
  }
  Event event;
  event.type = raw->event;
  event.status = raw->status;
  const bool greets =
      event.type == RDMA_CM_EVENT_CONNECT_REQUEST || event.type == RDMA_CM_EVENT_CONNECT_RESPONSE;
  if (const void* data = raw->param.conn.private_data; greets && data != nullptr) {
    const auto* bytes = static_cast<const uint8_t*>(data);
    event.private_data.assign(bytes, bytes + raw->param.conn.private_data_len);
  }
  Log().debug("rdma_cm: {}, status {}", rdma_event_str(event.type), event.status);
  Identifier left;  // of a request that nobody takes; ends after the acknowledgement
  {
    const std::lock_guard lock(mutex_);
    if (event.type == RDMA_CM_EVENT_CONNECT_REQUEST) {
      mailboxes_[raw->id];
      left = Identifier(this, raw->id);
      on_request_(event, left);
    } else if (const auto mailbox = mailboxes_.find(raw->id); mailbox != mailboxes_.end()) {
      mailbox->second.push_back(std::move(event));
    }
  }
  changed_.notify_all();
  calls_.ack_cm_event(raw);
  if (left.get() != nullptr) calls_.reject(left.get(), nullptr, 0);
  return true;
}

absl::Status EventHub::Await(const Patience& patience, absl::string_view where,
                             absl::string_view doing, absl::FunctionRef<bool()> done) {
  std::unique_lock lock(mutex_);
  while (!done()) {
    const absl::Time now = absl::Now();
    if (now >= patience.deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat(where, ": the deadline passed while waiting for ", doing));
    }
    lock.unlock();
    const absl::Status interrupted = patience.interrupted();
    lock.lock();
    if (!interrupted.ok()) return interrupted;
    if (done()) break;
    changed_.wait_until(lock, absl::ToChronoTime(std::min(patience.deadline, now + kSlice)));
  }
  return absl::OkStatus();
}

absl::StatusOr<Event> EventHub::Next(const Identifier& id, const Patience& patience,
                                     absl::string_view where, absl::string_view doing) {
  std::optional<Event> next;
  const auto status = Await(patience, where, doing, [&] {
    auto& mailbox = mailboxes_[id.get()];
    if (mailbox.empty()) return false;
    next = std::move(mailbox.front());
    mailbox.pop_front();
    return true;
  });
  if (!status.ok()) return status;
  return *std::move(next);
}

absl::Status CallStatus(int error, absl::string_view call, absl::string_view where) {
  const std::string text = absl::StrCat(call, " for ", where, ": ", std::strerror(error));
  switch (error) {
    case ENODEV:
    case ENOENT:
    case ENOSYS:
      return absl::UnavailableError(
          absl::StrCat(text,
                       ": no RDMA connection manager for it here; load rdma_ucm (modprobe "
                       "rdma_ucm), or connect by the exchange (SUMAC_CONNECT=exchange)"));
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(
          absl::StrCat(text, ": give this user access to /dev/infiniband/rdma_cm"));
    case EADDRNOTAVAIL:
      return absl::UnavailableError(
          absl::StrCat(text, ": no network interface has this address any more"));
    case ENOMEM:
    case EMFILE:
    case ENFILE:
      return absl::ResourceExhaustedError(
          absl::StrCat(text, ": raise the limits of this process (ulimit -n, ulimit -l)"));
    default:
      return absl::InternalError(text);
  }
}

absl::Status EventStatus(const Event& event, absl::string_view where, absl::string_view doing) {
  const char* advice = "";
  switch (event.type) {
    case RDMA_CM_EVENT_ADDR_ERROR:
      advice = ": is there a route to this address from ours, and does it answer ARP?";
      break;
    case RDMA_CM_EVENT_ROUTE_ERROR:
      advice = ": is there a route to this address by this device's interface?";
      break;
    case RDMA_CM_EVENT_UNREACHABLE:
    case RDMA_CM_EVENT_CONNECT_ERROR:
      advice = ": does UDP port 4791 pass between the two, both ways?";
      break;
    case RDMA_CM_EVENT_REJECTED:
      advice = event.status == kRejectedNoListener
                   ? ": nobody listens there any more; has that rank ended?"
                   : ": is it of the same job, and does it run the same version?";
      break;
    case RDMA_CM_EVENT_DEVICE_REMOVAL:
      advice = ": the device was taken away";
      break;
    default:
      break;
  }
  // Statuses below zero are errnos; above, reasons of the transport (IBTA vol. 1, 12.6.7.2).
  const std::string meaning =
      event.status < 0 ? absl::StrCat(" (", std::strerror(-event.status), ")") : "";
  const std::string text =
      absl::StrCat(where, ": ", rdma_event_str(event.type), ", status ", event.status, meaning,
                   ", while waiting for ", doing, advice);
  if (event.type == RDMA_CM_EVENT_REJECTED && event.status == kRejectedStale) {
    return absl::AbortedError(text);  // it passes: the kernel forgets after a while
  }
  if (event.type == RDMA_CM_EVENT_REJECTED) return absl::FailedPreconditionError(text);
  return absl::UnavailableError(text);
}

}  // namespace sumac::transport::rdma_cm
