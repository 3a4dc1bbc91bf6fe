// The kernel's side of librdmacm, in user space: what a program's writes to /dev/infiniband/rdma_cm
// mean (<rdma/rdma_user_cm.h>, ABI 4), so that librdmacm and what stands on it run unchanged.
//
// One of these is made for each process (device/connection_manager.cc). Open, Write and Close stand
// for the system calls, and fail as those do: -1 with errno. Any thread. A thread of ours serves
// messages and timers from the first identifier on that is bound or resolves. A child after fork
// has no such thread: its calls fail with ENODEV.
//
// Multicast is refused (EOPNOTSUPP), and so are native InfiniBand addresses (AF_IB).
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <thread>

#include "verbs/soft_nic/cm/agent.h"
#include "verbs/soft_nic/cm/identifier.h"

namespace sumac::soft_nic {

struct UserCmOptions {
  // Asked once, when somebody binds or resolves.
  std::function<absl::StatusOr<UdpLinkOptions>()> link;
  std::function<uint64_t()> node_guid;  // as ibv_get_device_guid has it
  uint8_t read_atomics_max = 16;        // what a queue pair of the device takes
};

class UserCm : private Agent::Events {
 public:
  static constexpr size_t kIdentifiersMax = 65536;
  static constexpr uint32_t kBacklogMax = 1024;  // also what a backlog of 0 means, as in the kernel

  explicit UserCm(UserCmOptions options);
  ~UserCm() override;
  UserCm(const UserCm&) = delete;
  UserCm& operator=(const UserCm&) = delete;

  // A descriptor that is readable while events are pending. `flags`: O_NONBLOCK, O_CLOEXEC.
  int Open(int flags);
  ssize_t Write(int fd, const void* command, size_t bytes);
  // The descriptor is being closed, by the caller: its identifiers go. Not ours: nothing happens.
  void Close(int fd);
  // The process ends: tells all peers, waits for nothing.
  void Leave();

 private:
  using Bytes = std::span<const std::byte>;
  using Channel = std::shared_ptr<CmChannel>;
  struct Call;  // one command, as it came

  // Each returns 0 or an errno.
  int Dispatch(Call& call);
  int CreateId(Call& call);
  int DestroyId(Call& call);
  int BindIp(Call& call);
  int Bind(Call& call);
  int ResolveIp(Call& call);
  int ResolveAddress(Call& call);
  int ResolveRoute(Call& call);
  int QueryRoute(Call& call);
  int Query(Call& call);
  int Connect(Call& call);
  int Listen(Call& call);
  int Accept(Call& call);
  int Reject(Call& call);
  int Disconnect(Call& call);
  int InitQpAttr(Call& call);
  int GetEvent(Call& call, std::unique_lock<std::mutex>& lock);
  int SetOption(Call& call);
  int Notify(Call& call);
  int Migrate(Call& call);

  int BindTo(CmIdentifier& id, const SocketAddress& address);
  int ResolveTo(CmIdentifier& id, const SocketAddress& source, const SocketAddress& destination);
  int RouteTo(const SocketAddress& destination, Gid* peer) const;
  int QueryAddress(Call& call, const CmIdentifier& id, const rdma_ucm_query& command);
  int QueryPath(Call& call, const CmIdentifier& id, const rdma_ucm_query& command);
  int QueryGids(Call& call, const CmIdentifier& id, const rdma_ucm_query& command);
  CmMessage RequestOf(const CmIdentifier& id) const;

  int StartAgent();
  void Run();
  void Wake();

  CmIdentifier* NewIdentifier(const Channel& channel);
  CmIdentifier* Find(const Call& call, uint32_t handle, int* error);
  void Destroy(uint32_t handle);
  void Queue(CmIdentifier& id, CmQueuedEvent event);
  void QueueSimple(CmIdentifier& id, uint32_t kind, int status);
  void DropEvents(const CmIdentifier& id);
  CmIdentifier* Connected(Call& call, uint32_t handle, Agent::Endpoint** endpoint, int* error);

  // From the agent, with the mutex held.
  bool OnRequest(CmPort port, Agent::Endpoint& endpoint, const CmAddresses& addresses) override;
  void OnEvent(uint32_t connection, ConnectionEvent event, int status,
               const CmMessage* message) override;

  const UserCmOptions options_;
  const pid_t process_;
  std::mutex mutex_;
  std::map<int, Channel> channels_;  // by descriptor
  std::map<uint32_t, std::unique_ptr<CmIdentifier>> identifiers_;
  std::map<uint32_t, uint32_t> by_connection_;  // identifiers by connection
  uint32_t next_handle_ = 1;                    // 0 stands for none
  std::unique_ptr<Agent> agent_;
  UniqueFd wake_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace sumac::soft_nic
