#include "tests/interop/rc_peer/end.h"

#include <endian.h>

#include <chrono>
#include <stdexcept>

#include "verbs/device_choice.h"
#include "verbs/status.h"

namespace sumac::interop {
namespace {

constexpr auto kPatience = std::chrono::seconds(30);

template <typename T>
T Must(absl::StatusOr<T> result) {
  if (!result.ok()) throw std::runtime_error(result.status().ToString());
  return *std::move(result);
}
void Must(const absl::Status& status) {
  if (!status.ok()) throw std::runtime_error(status.ToString());
}

Kind KindOf(const verbs::Device& device) {
  if (device.provider().name == verbs::SoftProvider().name) return Kind::kSoft;
  return device.name().rfind("rxe", 0) == 0 ? Kind::kRxe : Kind::kHardware;
}

}  // namespace

void Check(bool held, const std::string& what) {
  if (!held) throw std::runtime_error(what);
}

End::End(const std::string& device, Channel& channel)
    : channel_(channel), device_(Must(verbs::Device::Open(device))) {
  pd_ = Must(verbs::ProtectionDomain::Create(device_));
  region_ = Must(verbs::MemoryRegion::Register(pd_, memory_.data(), memory_.size(), kAllAccess));
  read_only_ =
      Must(verbs::MemoryRegion::Register(pd_, target().data(), kZoneBytes, IBV_ACCESS_REMOTE_READ));
  const auto gid = Must(verbs::ChooseGid(Must(device_->QueryGids(1)), -1)).entry;
  connection_.gid_index = gid.index;
  self_.gid = gid.gid;
  self_.zone = reinterpret_cast<uint64_t>(target().data());
  self_.rkey = region_->rkey();
  self_.read_only_rkey = read_only_->rkey();
  self_.mtu_bytes = verbs::BytesOf(Must(device_->QueryPort(1)).active_mtu);
  self_.kind = KindOf(*device_);
  peer_ = channel_.Swap(self_);
}

void End::Reconnect(const Path& path) {
  channel_.Sync();  // neither has anything on the way any more
  qp_.reset();
  send_cq_ = Must(verbs::CompletionQueue::Create(device_, 2 * kSendsMax, nullptr));
  receive_cq_ = Must(verbs::CompletionQueue::Create(device_, 2 * kReceivesMax, nullptr));
  qp_ = Must(verbs::QueuePair::Create(pd_, send_cq_, receive_cq_,
                                      {.max_send_wr = kSendsMax,
                                       .max_recv_wr = kReceivesMax,
                                       .max_send_sge = 4,
                                       .max_recv_sge = 4}));
  connection_.path_mtu = Must(verbs::MtuOf(std::min(path.mtu_bytes, mtu_bytes_max())));
  connection_.local_psn = path.local_psn;
  connection_.remote_psn = path.remote_psn;
  connection_.timeout = path.timeout != 0 ? path.timeout : timeout_;
  connection_.retry_count = path.retry_count;
  connection_.rnr_retry = path.rnr_retry;
  connection_.access = path.access;
  connection_.hop_limit = kHopLimit;
  Must(qp_->ToInit(connection_));
  self_.qpn = qp_->qpn();
  peer_ = channel_.Swap(self_);
  connection_.remote_qpn = peer_.qpn;
  connection_.remote_gid = peer_.gid;
  Must(qp_->ToReadyToReceive(connection_));
  Must(qp_->ToReadyToSend(connection_));
  channel_.Sync();
}

ibv_send_wr End::Request(ibv_wr_opcode opcode, std::span<ibv_sge> local, size_t offset) const {
  ibv_send_wr request{};
  request.sg_list = local.data();
  request.num_sge = static_cast<int>(local.size());
  request.opcode = opcode;
  request.send_flags = IBV_SEND_SIGNALED;
  if (opcode == IBV_WR_ATOMIC_CMP_AND_SWP || opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
    request.wr.atomic.remote_addr = peer_.zone + offset;
    request.wr.atomic.rkey = peer_.rkey;
  } else {
    request.wr.rdma.remote_addr = peer_.zone + offset;
    request.wr.rdma.rkey = peer_.rkey;
  }
  return request;
}

void End::Post(ibv_send_wr& request) {
  const int error = qp_->PostSend(request);
  Check(error == 0, "ibv_post_send: errno " + std::to_string(error));
}

void End::PostReceive(const uint8_t* at, size_t length, uint64_t id) {
  ibv_sge sge = Sge(at, length);
  ibv_recv_wr request{};
  request.wr_id = id;
  request.sg_list = &sge;
  request.num_sge = 1;
  PostReceive(request);
}

void End::PostReceive(ibv_recv_wr& request) {
  const int error = qp_->PostReceive(request);
  Check(error == 0, "ibv_post_recv: errno " + std::to_string(error));
}

bool End::Poll(verbs::CompletionQueue& queue, ibv_wc& wc) {
  const int taken = queue.Poll({&wc, 1});
  Check(taken >= 0, "ibv_poll_cq failed");
  return taken == 1;
}

ibv_wc End::Next(verbs::CompletionQueue& queue, const char* name) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  ibv_wc wc{};
  while (!Poll(queue, wc)) {
    Check(std::chrono::steady_clock::now() < deadline,
          std::string("no ") + name + " completion on " + qp_->name() + " in 30 s");
  }
  return wc;
}

}  // namespace sumac::interop
