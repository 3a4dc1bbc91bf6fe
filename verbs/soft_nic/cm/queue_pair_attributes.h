// What a queue pair has to be told to become an end of a connection: what the two sides agreed on
// in REQ and REP, as libibverbs' attributes (IBTA vol. 1, 12.9; RDMA_USER_CM_CMD_INIT_QP_ATTR).
//
// Pure functions.
#pragma once

#include <infiniband/verbs.h>
#include <rdma/ib_user_verbs.h>

#include <cstdint>

#include "verbs/soft_nic/cm/connection.h"

namespace sumac::soft_nic {

struct ConnectionPath {
  Gid peer{};
  uint8_t traffic_class = 0;
  uint8_t mtu = 0;          // as ibv_mtu, of our interface
  uint8_t ack_timeout = 0;  // 0: as agreed
  uint8_t read_atomics_max = 0;
};

// As ibv_mtu has it: the largest path MTU of at most so many bytes.
uint8_t MtuCode(uint32_t bytes);

// The way to a peer, as libibverbs' address vector.
ib_uverbs_ah_attr AddressVector(const Gid& peer, uint8_t traffic_class);

// For RESET to INIT before there is a connection; `qkey` for UD.
ib_uverbs_qp_attr InitAttributes(bool datagram, uint32_t qkey);

// For `state` (ibv_qp_state: INIT, RTR or RTS) once there is one. False: no such state, or the
// peer's values are not here yet.
[[nodiscard]] bool ConnectionAttributes(const Connection& connection, const ConnectionPath& path,
                                        uint32_t state, ib_uverbs_qp_attr* out);

}  // namespace sumac::soft_nic
