#include "tests/conformance/device.h"

#include <arpa/inet.h>

#include <array>

namespace sumac::conformance {

int RightsOf(Key key) {
  constexpr int kLocal = IBV_ACCESS_LOCAL_WRITE;
  constexpr std::array<int, 5> kRights = {
      kLocal | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC,
      kLocal | IBV_ACCESS_REMOTE_READ, kLocal | IBV_ACCESS_REMOTE_WRITE, kLocal, 0};
  return kRights[static_cast<size_t>(key)];
}

ibv_send_wr ToVerbs(const SendWork& work, std::span<ibv_sge> sges, ibv_ah* to) {
  ibv_send_wr wr{};
  wr.wr_id = work.id;
  wr.sg_list = sges.data();
  wr.num_sge = static_cast<int>(sges.size());
  wr.opcode = work.opcode;
  wr.send_flags = work.flags;
  if (work.opcode == IBV_WR_SEND_WITH_INV) {
    wr.invalidate_rkey = work.immediate;
  } else {
    wr.imm_data = htonl(work.immediate);
  }
  if (to != nullptr) {
    wr.wr.ud = {to, work.remote_qpn, work.remote_qkey};
  } else if (work.opcode == IBV_WR_ATOMIC_CMP_AND_SWP ||
             work.opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
    wr.wr.atomic = {work.remote_addr, work.compare_add, work.swap, work.rkey};
  } else {
    wr.wr.rdma = {work.remote_addr, work.rkey};
  }
  return wr;
}

ibv_recv_wr ToVerbs(const ReceiveWork& work, std::span<ibv_sge> sges) {
  ibv_recv_wr wr{};
  wr.wr_id = work.id;
  wr.sg_list = sges.data();
  wr.num_sge = static_cast<int>(sges.size());
  return wr;
}

}  // namespace sumac::conformance
