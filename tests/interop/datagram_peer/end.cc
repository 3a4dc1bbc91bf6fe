#include "tests/interop/datagram_peer/end.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <stdexcept>

#include "verbs/device_choice.h"
#include "verbs/protection_domain.h"
#include "verbs/soft_nic/device/control_path.h"

namespace sumac::interop {
namespace {

constexpr auto kPatience = std::chrono::seconds(30);

template <typename T>
T Must(absl::StatusOr<T> result) {
  if (!result.ok()) throw std::runtime_error(result.status().ToString());
  return *std::move(result);
}

ibv_wc Next(verbs::CompletionQueue& queue, const char* name) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  ibv_wc wc{};
  for (;;) {
    const int taken = queue.Poll({&wc, 1});
    Check(taken >= 0, "ibv_poll_cq failed");
    if (taken == 1) return wc;
    Check(std::chrono::steady_clock::now() < deadline,
          std::string("no ") + name + " completion in 30 s: a packet was lost or dropped");
  }
}

}  // namespace

void Check(bool held, const std::string& what) {
  if (!held) throw std::runtime_error(what);
}

UnreliableEnd::UnreliableEnd(const std::string& device, Channel& channel, ibv_qp_type type)
    : channel_(channel),
      device_(Must(verbs::Device::Open(device))),
      soft_(device_->provider().name == verbs::SoftProvider().name) {
  pd_ = Must(verbs::ProtectionDomain::Create(device_));
  region_ = Must(verbs::MemoryRegion::Register(pd_, memory_.data(), memory_.size(),
                                               IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE));
  send_cq_ = Must(verbs::CompletionQueue::Create(device_, 64, nullptr));
  receive_cq_ = Must(verbs::CompletionQueue::Create(device_, 64, nullptr));
  ibv_qp_init_attr init{};
  init.send_cq = send_cq_->cq();
  init.recv_cq = receive_cq_->cq();
  init.qp_type = type;
  init.cap = {64, 64, 1, 1, 0};
  qp_ = device_->provider().create_qp(pd_->pd(), &init);
  Check(qp_ != nullptr, device + ": ibv_create_qp: " + std::strerror(errno));

  const auto gid = Must(verbs::ChooseGid(Must(device_->QueryGids(1)), -1)).entry;
  PeerRecord self;
  self.qpn = qp_->qp_num;
  self.gid = gid.gid;
  self.target = reinterpret_cast<uint64_t>(target());
  self.rkey = region_->rkey();
  self.mtu_bytes = verbs::BytesOf(Must(device_->QueryPort(1)).active_mtu);
  peer_ = channel_.Swap(self);
  mtu_bytes_ = std::min(self.mtu_bytes, peer_.mtu_bytes);

  attr_.port_num = 1;
  attr_.qkey = kQkey;
  attr_.qp_access_flags = IBV_ACCESS_REMOTE_WRITE;
  attr_.path_mtu = Must(verbs::MtuOf(mtu_bytes_));
  attr_.dest_qp_num = peer_.qpn;
  attr_.rq_psn = attr_.sq_psn = kFirstPsn;
  attr_.ah_attr.is_global = 1;
  attr_.ah_attr.port_num = 1;
  attr_.ah_attr.grh.dgid = peer_.gid;
  attr_.ah_attr.grh.sgid_index = static_cast<uint8_t>(gid.index);
  attr_.ah_attr.grh.hop_limit = 64;
  const bool connected = type == IBV_QPT_UC;
  Modify(IBV_QPS_INIT,
         IBV_QP_PKEY_INDEX | IBV_QP_PORT | (connected ? IBV_QP_ACCESS_FLAGS : IBV_QP_QKEY));
  Modify(IBV_QPS_RTR,
         connected ? IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN : 0);
  Modify(IBV_QPS_RTS, IBV_QP_SQ_PSN);
  channel_.Sync();
}

UnreliableEnd::~UnreliableEnd() {
  for (ibv_ah* handle : handles_) soft_ ? soft_nic::DestroyAh(handle) : ibv_destroy_ah(handle);
  if (qp_ != nullptr) device_->provider().destroy_qp(qp_);
}

void UnreliableEnd::Modify(ibv_qp_state state, int mask) {
  attr_.qp_state = state;
  const int error = device_->provider().modify_qp(qp_, &attr_, IBV_QP_STATE | mask);
  Check(error == 0, std::string("ibv_modify_qp: ") + std::strerror(error));
}

void UnreliableEnd::Send(ibv_send_wr wr, size_t length) {
  ibv_sge sge{reinterpret_cast<uint64_t>(source()), static_cast<uint32_t>(length), region_->lkey()};
  wr.sg_list = &sge;
  wr.num_sge = 1;
  wr.send_flags = IBV_SEND_SIGNALED;
  ibv_send_wr* bad = nullptr;
  const int error = ibv_post_send(qp_, &wr, &bad);
  Check(error == 0, std::string("ibv_post_send: ") + std::strerror(error));
  const ibv_wc wc = Next(*send_cq_, "send");
  Check(wc.status == IBV_WC_SUCCESS, "send: " + std::to_string(wc.status));
}

void UnreliableEnd::PostReceive(size_t length) {
  ibv_sge sge{reinterpret_cast<uint64_t>(target()), static_cast<uint32_t>(length), region_->lkey()};
  ibv_recv_wr wr{};
  wr.sg_list = &sge;
  wr.num_sge = 1;
  ibv_recv_wr* bad = nullptr;
  const int error = ibv_post_recv(qp_, &wr, &bad);
  Check(error == 0, std::string("ibv_post_recv: ") + std::strerror(error));
}

ibv_wc UnreliableEnd::NextReceive() { return Next(*receive_cq_, "receive"); }

void UnreliableEnd::Keep(ibv_ah* handle) {
  Check(handle != nullptr, std::string("no address handle: ") + std::strerror(errno));
  handles_.push_back(handle);
}

ibv_ah* UnreliableEnd::ToPeer() {
  Keep(soft_ ? soft_nic::CreateAh(pd_->pd(), &attr_.ah_attr)
             : ibv_create_ah(pd_->pd(), &attr_.ah_attr));
  return handles_.back();
}

ibv_ah* UnreliableEnd::ToSenderOf(ibv_wc& wc) {
  auto* grh = reinterpret_cast<ibv_grh*>(target());
  Keep(soft_ ? soft_nic::CreateAhFromWc(pd_->pd(), &wc, grh, 1)
             : ibv_create_ah_from_wc(pd_->pd(), &wc, grh, 1));
  return handles_.back();
}

}  // namespace sumac::interop
