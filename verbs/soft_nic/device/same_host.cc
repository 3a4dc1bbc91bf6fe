#include "verbs/soft_nic/device/same_host.h"

#include <sched.h>

#include <chrono>
#include <cstring>
#include <string>
#include <utility>

#include "verbs/log.h"
#include "verbs/soft_nic/device/soft_queue_pair.h"

namespace sumac::soft_nic {
namespace {

// A peer uses a key for some ten microseconds, but may lose its processor in between.
constexpr std::chrono::seconds kPatience{5};

uint64_t DomainOf(const ibv_pd* pd) { return reinterpret_cast<uint64_t>(pd); }

}  // namespace

SameHost::SameHost(const Link& link, bool enabled) : local_(link.local_gid()) {
  if (!enabled) return;
  auto peers = HostPeers::Create(
      {.address = local_, .first_qpn = link.first_qpn(), .qpn_count = link.qpn_count()});
  if (peers.ok()) {
    peers_ = *std::move(peers);
  } else {
    Log().info("soft NIC: packets also between processes of this host: {}",
               std::string(peers.status().message()));
  }
}

void SameHost::Listen() {
  if (!on()) return;
  if (const absl::Status listens = peers_->Listen(); !listens.ok()) {
    Log().info("soft NIC: packets from processes of this host: {}", std::string(listens.message()));
  }
}

void SameHost::Close() {
  if (on()) peers_->Close();
}

// Pages that come when they are asked for stay with the engine.
SharedPlace SameHost::Locate(const void* start, size_t bytes, int access) {
  if (!on() || (access & IBV_ACCESS_ON_DEMAND) != 0) return {};
  return peers_->files().Find(start, bytes);
}

void SameHost::Release(const SharedPlace& place) {
  if (on()) peers_->files().Release(place);
}

void SameHost::Publish(uint32_t key, const Region& region, const SharedPlace& place) {
  if (!on() || (region.access & IBV_ACCESS_ON_DEMAND) != 0) return;
  peers_->board().PublishKey({.key = key,
                              .access = region.access,
                              .domain = DomainOf(region.pd),
                              .addr = region.addr,
                              .length = region.length,
                              .place = region.addr + region.offset,
                              .file = place.file,
                              .file_fd = place.fd,
                              .file_page = place.page});
}

void SameHost::Withdraw(uint32_t key, const SharedPlace& place) {
  if (!on()) return;
  peers_->board().WithdrawKey(key);
  if (place.file != 0) peers_->AskGuestsToSweep();
}

bool SameHost::Await(absl::FunctionRef<bool()> in_use, Progress& progress) {
  constexpr int kLooksBetweenDeaths = 64;
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  for (int looks = 1; in_use(); ++looks) {
    if (looks % kLooksBetweenDeaths == 0) {
      progress.Exclusive([this] { peers_->ForgetTheDead(); });
      if (std::chrono::steady_clock::now() >= deadline) return !in_use();
    }
    sched_yield();
  }
  return true;
}

bool SameHost::AwaitUnused(uint32_t key, Progress& progress) {
  if (!on() || Await([&] { return peers_->KeyInUse(key); }, progress)) return true;
  Log().error(
      "soft NIC: a process of this host has been in the middle of using key 0x{:08x} for {} s; is "
      "it stopped? Continue it or end it: until then the memory can't be deregistered",
      key, kPatience.count());
  return false;
}

void SameHost::AwaitQueuePairUnused(uint32_t qpn, Progress& progress) {
  if (!on() || Await([&] { return peers_->QueuePairInUse(qpn); }, progress)) return;
  Log().error(
      "soft NIC: a process of this host has been in the middle of using QP 0x{:06x} for {} s; is "
      "it "
      "stopped? What it has begun it may still do, in memory that stays registered",
      qpn, kPatience.count());
}

void SameHost::Publish(const SoftQueuePair& qp) {
  if (!on() || qp.qp_type != IBV_QPT_RC) return;
  const ibv_qp_state state = qp.engine.state();
  // Before RTS the first request is a packet: it makes the event that connection managers wait for.
  const bool open = state == IBV_QPS_RTS || (state == IBV_QPS_RTR && qp.heard_before_send);
  if (!open) return Withdraw(qp.qp_num);
  const ReceiveConfig& config = qp.engine.receive_config();
  int access = config.access_flags;
  if (config.max_dest_rd_atomic == 0) {
    access &= ~(IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC);
  }
  peers_->board().PublishQueuePair(peers_->IndexOf(qp.qp_num),
                                   {.qpn = qp.qp_num,
                                    .remote_qpn = config.remote_qpn,
                                    .domain = DomainOf(qp.memory.pd()),
                                    .remote_gid = config.path.destination,
                                    .access = access});
}

void SameHost::Withdraw(uint32_t qpn) {
  if (on()) peers_->board().WithdrawQueuePair(peers_->IndexOf(qpn));
}

void SameHost::Connect(SoftQueuePair& qp) {
  if (!on() || qp.qp_type != IBV_QPT_RC) return;
  const ReceiveConfig& config = qp.engine.receive_config();
  qp.direct.Connect(peers_->Find(config.path.destination, config.remote_qpn), local_, qp.qp_num,
                    config.remote_qpn);
}

void SameHost::Disconnect(SoftQueuePair& qp) { qp.direct.Disconnect(); }

}  // namespace sumac::soft_nic
