#include "tests/conformance/verbs_host.h"

#include <cerrno>
#include <cstring>

#include "verbs/device_choice.h"
#include "verbs/soft_nic/link/address.h"

namespace sumac::conformance {
namespace {

constexpr uint32_t kFencePeerQpn = 0x33;
constexpr uint32_t kFencePsn = 0x1000;

template <typename T>
T Must(absl::StatusOr<T> result) {
  if (!result.ok()) throw std::runtime_error(result.status().ToString());
  return *std::move(result);
}
void Check(bool held, const std::string& what) {
  if (!held) throw std::runtime_error(what + ": " + std::strerror(errno));
}

}  // namespace

VerbsHost::VerbsHost(const Options& options)
    : device_(Must(verbs::Device::Open(options.device))),
      soft_(device_->provider().name == verbs::SoftProvider().name),
      pd_(Must(verbs::ProtectionDomain::Create(device_))) {
  const auto gid = Must(verbs::ChooseGid(Must(device_->QueryGids(1)), -1)).entry;
  gid_index_ = gid.index;
  std::memcpy(gid_.data(), gid.gid.raw, gid_.size());
  const soft_nic::Gid peer = options.peer.empty() ? PeerSocket::FreeLoopbackAddress()
                                                  : Must(soft_nic::ParseGid(options.peer));
  peer_ = std::make_unique<PeerSocket>(peer, gid_, options.peer_netns);
  fence_cq_ = Must(verbs::CompletionQueue::Create(device_, 16, nullptr));
  ibv_qp_init_attr init{};
  init.send_cq = init.recv_cq = fence_cq_->cq();
  init.qp_type = IBV_QPT_RC;
  init.cap = {1, 1, 1, 1, 0};
  fence_ = CreateQp(&init);
  Setup setup;
  setup.receive.remote_qpn = kFencePeerQpn;
  setup.receive.expected_psn = fence_psn_ = fence_answered_ = kFencePsn;
  setup.receive.access_flags = IBV_ACCESS_REMOTE_WRITE;
  Connect(fence_, setup, IBV_QPS_RTS);
}

VerbsHost::~VerbsHost() {
  if (fence_ != nullptr) Destroy(fence_);
}

ibv_qp* VerbsHost::CreateQp(ibv_qp_init_attr* init) {
  ibv_qp* qp = device_->provider().create_qp(pd_->pd(), init);
  Check(qp != nullptr, "ibv_create_qp");
  return qp;
}

int VerbsHost::TryModify(ibv_qp* qp, ibv_qp_attr attr, int mask) {
  return device_->provider().modify_qp(qp, &attr, mask);
}

ibv_ah_attr VerbsHost::ToPeer() const {
  ibv_ah_attr to{};
  to.is_global = 1;
  to.port_num = 1;
  std::memcpy(to.grh.dgid.raw, peer_->address().data(), peer_->address().size());
  to.grh.sgid_index = static_cast<uint8_t>(gid_index_);
  to.grh.hop_limit = 64;
  return to;
}

void VerbsHost::Connect(ibv_qp* qp, const Setup& setup, ibv_qp_state state) {
  const bool reliable = qp->qp_type == IBV_QPT_RC;
  const bool connected = qp->qp_type != IBV_QPT_UD;
  ibv_qp_attr attr{};
  attr.port_num = 1;
  attr.qkey = setup.receive.qkey;
  attr.qp_access_flags = static_cast<unsigned>(setup.receive.access_flags);
  attr.path_mtu = Must(verbs::MtuOf(setup.receive.mtu_bytes));
  attr.dest_qp_num = setup.receive.remote_qpn;
  attr.rq_psn = setup.receive.expected_psn;
  attr.max_dest_rd_atomic = setup.receive.max_dest_rd_atomic;
  attr.min_rnr_timer = setup.receive.min_rnr_timer;
  attr.ah_attr = ToPeer();
  attr.sq_psn = setup.send.first_psn;
  attr.timeout = setup.send.timeout;
  attr.retry_cnt = setup.send.retry_count;
  attr.rnr_retry = setup.send.rnr_retry;
  attr.max_rd_atomic = setup.send.max_rd_atomic;
  const auto modify = [&](ibv_qp_state to, int mask) {
    attr.qp_state = to;
    const int error = TryModify(qp, attr, IBV_QP_STATE | mask);
    if (error != 0) throw std::runtime_error(std::string("ibv_modify_qp: ") + std::strerror(error));
  };
  if (state == IBV_QPS_RESET) return;
  modify(IBV_QPS_INIT,
         IBV_QP_PKEY_INDEX | IBV_QP_PORT | (connected ? IBV_QP_ACCESS_FLAGS : IBV_QP_QKEY));
  if (state == IBV_QPS_INIT) return;
  modify(IBV_QPS_RTR,
         (connected ? IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN : 0) |
             (reliable ? IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER : 0));
  if (state == IBV_QPS_RTR) return;
  modify(IBV_QPS_RTS, IBV_QP_SQ_PSN | (reliable ? IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT |
                                                      IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC
                                                : 0));
}

// A WRITE of nothing, which needs no key.
uint32_t VerbsHost::SendFence() {
  fence_psn_ = (fence_psn_ + 1) & 0xffffff;
  RepeatFence();
  return fence_psn_;
}

void VerbsHost::RepeatFence() {
  soft_nic::PacketHeader header;
  header.opcode = soft_nic::Opcode::kRcWriteOnly;
  header.ack_request = true;
  header.dest_qpn = fence_->qp_num;
  header.psn = (fence_psn_ - 1) & 0xffffff;
  peer_->Send(header, {});
}

bool VerbsHost::TakeFence(const soft_nic::PacketHeader& header) {
  if (header.dest_qpn != kFencePeerQpn) return false;
  fence_answered_ = (header.psn + 1) & 0xffffff;
  return true;
}

}  // namespace sumac::conformance
