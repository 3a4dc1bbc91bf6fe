// The kernel's connection manager for tests: rdma_cm::Calls that connect identifiers of this
// process with each other, and misbehave on demand.
//
// One network a process (the calls have no context), made new by Reset. Requests find listeners by
// port alone. Queue pair attributes name the peer's number and address; sequence numbers are 0 and
// 0. Threads: any.
#pragma once

#include <netinet/in.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <vector>

#include "transport/rdma_cm/calls.h"

namespace sumac::transport {

class FakeRdmaCm {
 public:
  static FakeRdmaCm& Instance() {
    static FakeRdmaCm fake;
    return fake;
  }
  static const rdma_cm::Calls& Calls();

  // What a test may ask for; read under no lock, so before the setups are made or between steps.
  bool absent = false;     // no connection manager
  int refuse_bind = 0;     // errno
  int stale_requests = 0;  // so many are rejected as stale
  bool swallow_requests = false;
  bool corrupt_answers = false;
  rdma_cm_event_type address_result = RDMA_CM_EVENT_ADDR_RESOLVED;
  rdma_cm_event_type route_result = RDMA_CM_EVENT_ROUTE_RESOLVED;
  // What happened.
  int disconnects = 0;
  size_t identifiers = 0;

  void Reset() {
    absent = swallow_requests = corrupt_answers = false;
    refuse_bind = stale_requests = disconnects = 0;
    address_result = RDMA_CM_EVENT_ADDR_RESOLVED;
    route_result = RDMA_CM_EVENT_ROUTE_RESOLVED;
  }

 private:
  struct Id;
  struct Event : rdma_cm_event {
    std::vector<uint8_t> data;
  };
  struct Channel : rdma_event_channel {
    std::deque<Event*> events;
  };
  struct Id : rdma_cm_id {
    Channel* on = nullptr;
    Id* remote = nullptr;
    uint16_t port = 0;  // while it listens
    uint32_t qpn = 0;   // of this side
    ibv_gid gid{};      // of the other side
    sockaddr_storage source{};
    sockaddr_storage destination{};
  };

  static Id* Of(rdma_cm_id* id) { return static_cast<Id*>(id); }
  static ibv_gid GidOf(const sockaddr_storage& address) {
    ibv_gid gid{};
    if (address.ss_family == AF_INET) {
      gid.raw[10] = gid.raw[11] = 0xff;
      std::memcpy(gid.raw + 12, &reinterpret_cast<const sockaddr_in&>(address).sin_addr, 4);
    } else {
      std::memcpy(gid.raw, &reinterpret_cast<const sockaddr_in6&>(address).sin6_addr, 16);
    }
    return gid;
  }
  static sockaddr_storage Copy(const sockaddr* address) {
    sockaddr_storage copy{};
    std::memcpy(&copy, address,
                address->sa_family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6));
    return copy;
  }
  static int Fail(int error) {
    errno = error;
    return -1;
  }
  // `mutex_` is held.
  void Push(Id* id, rdma_cm_event_type type, int status,
            const rdma_conn_param* parameters = nullptr) {
    auto* event = new Event();
    event->id = id;
    event->event = type;
    event->status = status;
    if (parameters != nullptr && parameters->private_data != nullptr) {
      const auto* bytes = static_cast<const uint8_t*>(parameters->private_data);
      event->data.assign(bytes, bytes + parameters->private_data_len);
      event->data.resize(event->data.size() + 12);  // transports pad
      event->param.conn.private_data = event->data.data();
      event->param.conn.private_data_len = static_cast<uint8_t>(event->data.size());
    }
    id->on->events.push_back(event);
    eventfd_write(id->on->fd, 1);
  }
  Id* Make(Channel* channel) {
    auto* id = new Id();
    id->on = channel;
    id->port_num = 1;
    ++identifiers;
    return id;
  }
  int Connect(Id* id, rdma_conn_param* parameters) {
    const std::lock_guard lock(mutex_);
    id->qpn = parameters->qp_num;
    const uint16_t port = ntohs(reinterpret_cast<sockaddr_in&>(id->destination).sin_port);
    const auto listener = listeners_.find(port);
    if (listener == listeners_.end() || stale_requests > 0) {
      Push(id, RDMA_CM_EVENT_REJECTED, listener == listeners_.end() ? 8 : 10);
      stale_requests -= stale_requests > 0 ? 1 : 0;
      return 0;
    }
    if (swallow_requests) return 0;
    Id* there = Make(listener->second->on);
    there->remote = id;
    there->gid = GidOf(id->source);
    id->remote = there;
    Push(there, RDMA_CM_EVENT_CONNECT_REQUEST, 0, parameters);
    return 0;
  }
  int Accept(Id* id, rdma_conn_param* parameters) {
    const std::lock_guard lock(mutex_);
    id->qpn = parameters->qp_num;
    if (id->remote == nullptr) return 0;  // it went; nobody hears us
    Push(id->remote, RDMA_CM_EVENT_CONNECT_RESPONSE, 0, parameters);
    if (corrupt_answers) id->remote->on->events.back()->data[19] ^= 1;
    return 0;
  }
  int Tell(Id* id, rdma_cm_event_type type, int status) {
    const std::lock_guard lock(mutex_);
    if (id->remote != nullptr) Push(id->remote, type, status);
    return 0;
  }
  int Destroy(Id* id) {
    const std::lock_guard lock(mutex_);
    if (id->remote != nullptr) {
      // A request that ends unanswered is rejected by the kernel.
      if (id->qpn == 0) Push(id->remote, RDMA_CM_EVENT_REJECTED, 28);
      id->remote->remote = nullptr;
    }
    listeners_.erase(id->port);
    std::erase_if(id->on->events, [id](Event* event) {
      if (event->id != id) return false;
      delete event;
      return true;
    });
    --identifiers;
    delete id;
    return 0;
  }
  int InitAttr(Id* id, ibv_qp_attr* attr, int* mask) {
    const std::lock_guard lock(mutex_);
    if (attr->qp_state == IBV_QPS_RTS) {
      *mask = IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
              IBV_QP_MAX_QP_RD_ATOMIC;
      return 0;
    }
    if (id->remote == nullptr) return Fail(EINVAL);
    *mask = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
            IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
    attr->dest_qp_num = id->remote->qpn;
    attr->ah_attr.is_global = 1;
    attr->ah_attr.port_num = 1;
    attr->ah_attr.grh.dgid = id->gid;
    attr->ah_attr.grh.hop_limit = 64;
    return 0;
  }

  std::mutex mutex_;
  uint16_t next_port_ = 20000;
  std::map<uint16_t, Id*> listeners_;
};

inline const rdma_cm::Calls& FakeRdmaCm::Calls() {
  static const rdma_cm::Calls calls = {
      .create_event_channel = []() -> rdma_event_channel* {
        if (Instance().absent) {
          errno = ENODEV;
          return nullptr;
        }
        auto* channel = new Channel();
        channel->fd = eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK | EFD_CLOEXEC);
        return channel;
      },
      .destroy_event_channel =
          [](rdma_event_channel* channel) {
            // Requests that nobody has read end with it, as in the kernel.
            std::vector<rdma_cm_id*> unread;
            for (const Event* event : static_cast<Channel*>(channel)->events) {
              if (event->event == RDMA_CM_EVENT_CONNECT_REQUEST) unread.push_back(event->id);
            }
            for (rdma_cm_id* id : unread) Instance().Destroy(Of(id));
            close(channel->fd);
            for (Event* event : static_cast<Channel*>(channel)->events) delete event;
            delete static_cast<Channel*>(channel);
          },
      .get_cm_event = [](rdma_event_channel* channel, rdma_cm_event** event) -> int {
        const std::lock_guard lock(Instance().mutex_);
        eventfd_t one = 0;
        auto& events = static_cast<Channel*>(channel)->events;
        if (eventfd_read(channel->fd, &one) != 0 || events.empty()) return Fail(EAGAIN);
        *event = events.front();
        events.pop_front();
        return 0;
      },
      .ack_cm_event = [](rdma_cm_event* event) -> int {
        delete static_cast<Event*>(event);
        return 0;
      },
      .create_id = [](rdma_event_channel* channel, rdma_cm_id** id, void*, rdma_port_space) -> int {
        const std::lock_guard lock(Instance().mutex_);
        *id = Instance().Make(static_cast<Channel*>(channel));
        return 0;
      },
      .destroy_id = [](rdma_cm_id* id) -> int { return Instance().Destroy(Of(id)); },
      .set_option = [](rdma_cm_id*, int, int, void*, size_t) -> int { return Fail(ENOSYS); },
      .bind_addr = [](rdma_cm_id* id, sockaddr* address) -> int {
        Of(id)->source = Copy(address);
        const int error = Instance().refuse_bind;
        return error == 0 ? 0 : Fail(error);
      },
      .listen = [](rdma_cm_id* id, int) -> int {
        const std::lock_guard lock(Instance().mutex_);
        Of(id)->port = Instance().next_port_++;
        Instance().listeners_[Of(id)->port] = Of(id);
        return 0;
      },
      .get_src_port = [](rdma_cm_id* id) -> __be16 { return htons(Of(id)->port); },
      .resolve_addr = [](rdma_cm_id* id, sockaddr* source, sockaddr* destination, int) -> int {
        const std::lock_guard lock(Instance().mutex_);
        Of(id)->source = Copy(source);
        Of(id)->destination = Copy(destination);
        Of(id)->gid = GidOf(Of(id)->destination);
        const auto result = Instance().address_result;
        Instance().Push(Of(id), result, result == RDMA_CM_EVENT_ADDR_RESOLVED ? 0 : -ETIMEDOUT);
        return 0;
      },
      .resolve_route = [](rdma_cm_id* id, int) -> int {
        const std::lock_guard lock(Instance().mutex_);
        const auto result = Instance().route_result;
        Instance().Push(Of(id), result, result == RDMA_CM_EVENT_ROUTE_RESOLVED ? 0 : -ENETUNREACH);
        return 0;
      },
      .connect = [](rdma_cm_id* id, rdma_conn_param* parameters) -> int {
        return Instance().Connect(Of(id), parameters);
      },
      .accept = [](rdma_cm_id* id, rdma_conn_param* parameters) -> int {
        return Instance().Accept(Of(id), parameters);
      },
      .reject = [](rdma_cm_id* id, const void*, uint8_t) -> int {
        Of(id)->qpn = 1;  // answered
        return Instance().Tell(Of(id), RDMA_CM_EVENT_REJECTED, 28);
      },
      .establish = [](rdma_cm_id* id) -> int {
        return Instance().Tell(Of(id), RDMA_CM_EVENT_ESTABLISHED, 0);
      },
      .disconnect = [](rdma_cm_id* id) -> int {
        ++Instance().disconnects;
        return Instance().Tell(Of(id), RDMA_CM_EVENT_DISCONNECTED, 0);
      },
      .init_qp_attr = [](rdma_cm_id* id, ibv_qp_attr* attr, int* mask) -> int {
        return Instance().InitAttr(Of(id), attr, mask);
      },
  };
  return calls;
}

}  // namespace sumac::transport
