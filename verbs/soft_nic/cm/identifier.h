// What the programs' side of the connection manager is made of: channels, and identifiers on them.
//
// As the kernel has them behind /dev/infiniband/rdma_cm: a channel is an open file with a queue of
// events, an identifier (rdma_cm_id) a local end that is bound, resolves, listens or is connected.
// Plain data, all behind UserCm's mutex.
#pragma once

#include <rdma/rdma_user_cm.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>

#include "verbs/soft_nic/cm/agent.h"
#include "verbs/soft_nic/link/address.h"

namespace sumac::soft_nic {

// As in rdma_cm_event_type of <rdma/rdma_cma.h>, which can't be included beside the kernel's
// header.
enum CmEventKind : uint32_t {
  kCmAddressResolved = 0,
  kCmAddressError = 1,
  kCmRouteResolved = 2,
  kCmConnectRequest = 4,
  kCmConnectResponse = 5,
  kCmUnreachable = 7,
  kCmRejected = 8,
  kCmEstablished = 9,
  kCmDisconnected = 10,
  kCmTimeWaitExit = 15,
};

struct CmChannel;

struct CmIdentifier {
  enum class State : uint8_t {
    kIdle,
    kBound,
    kAddressResolved,
    kRouteResolved,
    kListening,
    kConnected,  // or asked for, or refused: the connection knows
  };

  uint32_t handle = 0;
  uint64_t uid = 0;  // the program's name for it; 0: a request that nobody has accepted yet
  std::shared_ptr<CmChannel> channel;
  uint16_t port_space = 0;
  uint8_t qp_type = 0;
  State state = State::kIdle;
  uint32_t events_reported = 0;

  SocketAddress source{};  // sa_family 0: none yet
  SocketAddress destination{};
  Gid peer{};              // where the destination is
  bool on_device = false;  // bound to our address, not to all
  std::optional<CmPort> claimed;
  uint32_t backlog_left = 0;  // of a listener: requests that it still takes
  uint32_t connection = 0;    // 0: none; the agent may have forgotten it
  bool was_connected = false;

  uint8_t type_of_service = 0;
  uint8_t ack_timeout = 0;  // 0: the usual
  uint32_t qkey = 0;        // UD

  bool datagram() const { return qp_type == 4; }  // IBV_QPT_UD
};

struct CmQueuedEvent {
  uint32_t about = 0;      // the identifier that it is counted for
  uint32_t requested = 0;  // of a request: the new identifier
  rdma_ucm_event_resp response{};
};

struct CmChannel {
  int fd = -1;  // an eventfd that counts `events`; -1: closed
  std::deque<CmQueuedEvent> events;
};

}  // namespace sumac::soft_nic
