// Channels, identifiers, events and the thread that serves them.

#include "verbs/soft_nic/cm/user_cm.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <vector>

#include "verbs/log.h"
#include "verbs/soft_nic/cm/user_cm_call.h"

namespace sumac::soft_nic {
namespace {

using Clock = std::chrono::steady_clock;

int Fail(int error) {
  errno = error;
  return -1;
}

}  // namespace

UserCm::UserCm(UserCmOptions options) : options_(std::move(options)), process_(::getpid()) {}

UserCm::~UserCm() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    Wake();
  }
  if (thread_.joinable()) thread_.join();
}

int UserCm::Open(int flags) {
  if (::getpid() != process_) return Fail(ENODEV);
  const int fd = ::eventfd(0, EFD_SEMAPHORE | ((flags & O_NONBLOCK) != 0 ? EFD_NONBLOCK : 0) |
                                  ((flags & O_CLOEXEC) != 0 ? EFD_CLOEXEC : 0));
  if (fd < 0) return -1;
  const std::lock_guard lock(mutex_);
  auto channel = std::make_shared<CmChannel>();
  channel->fd = fd;
  channels_[fd] = channel;
  return fd;
}

void UserCm::Close(int fd) {
  if (::getpid() != process_) return;  // a child's copy: the file lives on here
  const std::lock_guard lock(mutex_);
  const auto found = channels_.find(fd);
  if (found == channels_.end()) return;
  const Channel channel = found->second;
  channels_.erase(found);
  channel->fd = -1;
  std::vector<uint32_t> handles;
  for (const auto& [handle, id] : identifiers_) {
    if (id->channel == channel) handles.push_back(handle);
  }
  for (const uint32_t handle : handles) Destroy(handle);
  channel->events.clear();
  Wake();
}

void UserCm::Leave() {
  if (::getpid() != process_) return;
  // A thread that ended with the lock must not keep the process from ending.
  constexpr int kAttempts = 1000;
  std::unique_lock lock(mutex_, std::try_to_lock);
  for (int i = 0; i < kAttempts && !lock.owns_lock(); ++i) {
    std::this_thread::yield();
    static_cast<void>(lock.try_lock());
  }
  if (lock.owns_lock() && agent_ != nullptr) agent_->AbandonAll(Clock::now());
}

ssize_t UserCm::Write(int fd, const void* command, size_t bytes) {
  if (::getpid() != process_) return Fail(ENODEV);
  rdma_ucm_cmd_hdr header;
  if (bytes < sizeof(header)) return Fail(EINVAL);
  std::memcpy(&header, command, sizeof(header));
  if (header.in + sizeof(header) > bytes) return Fail(EINVAL);
  Call call;
  call.command = header.cmd;
  call.in = Bytes(static_cast<const std::byte*>(command) + sizeof(header), header.in);
  call.out_max = header.out;
  std::unique_lock lock(mutex_);
  const auto found = channels_.find(fd);
  if (found == channels_.end()) return Fail(EBADF);
  call.channel = found->second;
  try {
    const int error =
        header.cmd == RDMA_USER_CM_CMD_GET_EVENT ? GetEvent(call, lock) : Dispatch(call);
    if (error != 0) return Fail(error);
  } catch (const std::bad_alloc&) {
    return Fail(ENOMEM);
  }
  return static_cast<ssize_t>(bytes);
}

int UserCm::Dispatch(Call& call) {
  using Handler = int (UserCm::*)(Call&);
  static constexpr std::pair<uint32_t, Handler> kHandlers[] = {
      {RDMA_USER_CM_CMD_CREATE_ID, &UserCm::CreateId},
      {RDMA_USER_CM_CMD_DESTROY_ID, &UserCm::DestroyId},
      {RDMA_USER_CM_CMD_BIND_IP, &UserCm::BindIp},
      {RDMA_USER_CM_CMD_RESOLVE_IP, &UserCm::ResolveIp},
      {RDMA_USER_CM_CMD_RESOLVE_ROUTE, &UserCm::ResolveRoute},
      {RDMA_USER_CM_CMD_QUERY_ROUTE, &UserCm::QueryRoute},
      {RDMA_USER_CM_CMD_CONNECT, &UserCm::Connect},
      {RDMA_USER_CM_CMD_LISTEN, &UserCm::Listen},
      {RDMA_USER_CM_CMD_ACCEPT, &UserCm::Accept},
      {RDMA_USER_CM_CMD_REJECT, &UserCm::Reject},
      {RDMA_USER_CM_CMD_DISCONNECT, &UserCm::Disconnect},
      {RDMA_USER_CM_CMD_INIT_QP_ATTR, &UserCm::InitQpAttr},
      {RDMA_USER_CM_CMD_SET_OPTION, &UserCm::SetOption},
      {RDMA_USER_CM_CMD_NOTIFY, &UserCm::Notify},
      {RDMA_USER_CM_CMD_MIGRATE_ID, &UserCm::Migrate},
      {RDMA_USER_CM_CMD_QUERY, &UserCm::Query},
      {RDMA_USER_CM_CMD_BIND, &UserCm::Bind},
      {RDMA_USER_CM_CMD_RESOLVE_ADDR, &UserCm::ResolveAddress},
  };
  for (const auto& [command, handler] : kHandlers) {
    if (command != call.command) continue;
    const int error = (this->*handler)(call);
    if (error != 0) Log().debug("rdma_cm: command {}: {}", command, std::strerror(error));
    return error;
  }
  switch (call.command) {
    case RDMA_USER_CM_CMD_JOIN_IP_MCAST:
    case RDMA_USER_CM_CMD_JOIN_MCAST:
    case RDMA_USER_CM_CMD_LEAVE_MCAST:
      Log().warn("rdma_cm: the soft NIC has no multicast");
      return EOPNOTSUPP;
    case RDMA_USER_CM_CMD_GET_OPTION:
      return ENOSYS;  // as the kernel
    default:
      return EINVAL;
  }
}

int UserCm::StartAgent() {
  if (agent_ != nullptr) return 0;
  absl::Status failure;
  if (auto link = options_.link(); !link.ok()) {
    failure = link.status();
  } else if (auto agent = Agent::Open(*link, options_.node_guid(), *this); !agent.ok()) {
    failure = agent.status();
  } else {
    agent_ = *std::move(agent);
  }
  if (!failure.ok()) {
    Log().error("{}", std::string(failure.message()));
    return ENODEV;
  }
  wake_ = UniqueFd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  // Signals are for the program's own threads.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { Run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return 0;
}

void UserCm::Wake() {
  if (!wake_.valid()) return;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof(one));
}

void UserCm::Run() {
  pthread_setname_np(pthread_self(), "sumac-rdma-cm");
  std::unique_lock lock(mutex_);
  while (!stop_) {
    const Time next = agent_->NextTimeout();
    lock.unlock();
    std::array<pollfd, 2> polled = {{{agent_->fd(), POLLIN, 0}, {wake_.get(), POLLIN, 0}}};
    int wait_ms = -1;
    if (next != kNever) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(next - Clock::now()).count();
      wait_ms = static_cast<int>(std::clamp<int64_t>(left, 0, 60'000));
    }
    ::poll(polled.data(), polled.size(), wait_ms);
    uint64_t count;
    [[maybe_unused]] const ssize_t got = ::read(wake_.get(), &count, sizeof(count));
    lock.lock();
    agent_->Serve(Clock::now());
  }
}

CmIdentifier* UserCm::NewIdentifier(const Channel& channel) {
  if (identifiers_.size() >= kIdentifiersMax) return nullptr;
  while (next_handle_ == 0 || identifiers_.contains(next_handle_)) ++next_handle_;
  auto id = std::make_unique<CmIdentifier>();
  id->handle = next_handle_++;
  id->channel = channel;
  CmIdentifier* const made = id.get();
  identifiers_[made->handle] = std::move(id);
  return made;
}

CmIdentifier* UserCm::Find(const Call& call, uint32_t handle, int* error) {
  const auto found = identifiers_.find(handle);
  if (found == identifiers_.end()) {
    *error = ENOENT;
    return nullptr;
  }
  if (found->second->channel != call.channel) {
    *error = EINVAL;
    return nullptr;
  }
  return found->second.get();
}

int UserCm::CreateId(Call& call) {
  rdma_ucm_create_id command;
  if (!call.Read(&command)) return EINVAL;
  uint8_t qp_type = 0;
  switch (command.ps) {
    case RDMA_PS_TCP:
      qp_type = 2;  // IBV_QPT_RC
      break;
    case RDMA_PS_UDP:
    case RDMA_PS_IPOIB:
      qp_type = 4;  // IBV_QPT_UD
      break;
    case RDMA_PS_IB:
      qp_type = command.qp_type;
      break;
    default:
      return EINVAL;
  }
  CmIdentifier* const id = NewIdentifier(call.channel);
  if (id == nullptr) return ENOMEM;
  id->uid = command.uid;
  id->port_space = command.ps;
  id->qp_type = qp_type;
  const int error = call.Respond(command.response, rdma_ucm_create_id_resp{id->handle});
  if (error != 0) Destroy(id->handle);
  return error;
}

int UserCm::DestroyId(Call& call) {
  rdma_ucm_destroy_id command;
  int error = EINVAL;
  if (!call.Read(&command)) return EINVAL;
  const CmIdentifier* const id = Find(call, command.id, &error);
  if (id == nullptr) return error;
  const rdma_ucm_destroy_id_resp response{id->events_reported};
  Destroy(command.id);
  Wake();
  return call.Respond(command.response, response);
}

void UserCm::Destroy(uint32_t handle) {
  const auto found = identifiers_.find(handle);
  if (found == identifiers_.end()) return;
  // Out of the table first: what follows must not find it.
  const std::unique_ptr<CmIdentifier> id = std::move(found->second);
  identifiers_.erase(found);
  DropEvents(*id);
  if (id->claimed) agent_->Unclaim(*id->claimed);
  if (id->connection != 0) {
    if (by_connection_[id->connection] == handle) by_connection_.erase(id->connection);
    agent_->Abandon(id->connection, Clock::now());
  }
}

}  // namespace sumac::soft_nic
