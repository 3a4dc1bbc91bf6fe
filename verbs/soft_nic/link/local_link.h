// A link that reaches neighbours, the processes behind the other slots of our UDP address, through
// shared memory, and everybody else through the network link that it is built on.
//
// Packets are the same; only the cable is another: a ring each way (packet_ring.h) and a flag that
// wakes who sleeps (sleep_flag.h). A neighbour comes and goes while traffic flows: packets that its
// ring has no room for are lost as on any network, and what went by the network before it came is
// received first, so the transport above needs to know nothing. The first packet to a slot asks for
// its neighbour (neighbours.h), and travels by the network.
//
// Called as link.h says; SetNeighbour by the thread that serves control_fd().
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

#include "verbs/soft_nic/link/link.h"
#include "verbs/soft_nic/link/neighbours.h"
#include "verbs/soft_nic/link/packet_ring.h"
#include "verbs/soft_nic/link/shared_pages.h"
#include "verbs/soft_nic/link/sleep_flag.h"
#include "verbs/soft_nic/link/udp_port_share.h"
#include "verbs/soft_nic/link/unique_fd.h"

namespace sumac::soft_nic {

class LocalLink : public Link, private NeighbourSink {
 public:
  // `network` has a slot of `slots` in a UdpPortShare; `names`: NamesOfPort. ResourceExhausted when
  // the machine gives no descriptor or memory.
  static absl::StatusOr<std::unique_ptr<LocalLink>> Create(std::unique_ptr<Link> network,
                                                           uint32_t slots, std::string names);
  ~LocalLink() override;

  [[nodiscard]] bool Transmit(const OutgoingPacket& packet) override;
  void Flush() override;
  size_t Receive(PacketHandler& handler, size_t budget) override;
  int poll_fd() const override { return poll_.get(); }
  bool AnnounceSleep() override;
  void WithdrawSleep() override { sleep_.Withdraw(); }
  int control_fd() const override { return control_.get(); }
  void OnControlReadable() override;
  const std::string& interface() const override { return network_->interface(); }
  const Gid& local_gid() const override { return network_->local_gid(); }
  uint32_t mtu_bytes() const override { return network_->mtu_bytes(); }
  uint32_t first_qpn() const override { return network_->first_qpn(); }
  uint32_t qpn_count() const override { return network_->qpn_count(); }
  LinkCounters counters() const override;

  // How many neighbours there are now. Any thread.
  size_t neighbour_count() const;

 private:
  struct Lane;

  LocalLink(std::unique_ptr<Link> network, uint32_t slots, SharedPages sleep_pages);
  absl::Status Open(std::string names);
  void SetNeighbour(uint32_t slot, std::optional<Neighbour> neighbour) override;
  uint32_t SlotOf(uint32_t qpn) const { return qpn / qpns_per_slot_; }
  Lane* LaneTo(const Gid& gid, uint32_t qpn);
  size_t ReceiveWhatCameBefore(PacketHandler& handler);
  size_t ReceiveFrom(Lane& lane, PacketHandler& handler, size_t budget);
  void FreeRetired(PacketHandler& handler);
  bool NetworkIsDue();

  std::unique_ptr<Link> network_;
  const uint32_t qpns_per_slot_;
  const uint32_t slot_;
  SharedPages sleep_pages_;
  UniqueFd event_;
  UniqueFd poll_;     // an epoll set: the network's descriptor, and event_
  UniqueFd control_;  // another: the network's, and neighbours_'
  SleepFlag sleep_;
  std::unique_ptr<Neighbours> neighbours_;
  // Replaced by the control thread, used and freed by the engine's owner.
  std::array<std::atomic<Lane*>, UdpPortShareOptions::kSlotsMax> lanes_{};
  std::atomic<uint64_t> present_{0};  // bits of lanes_ that are worth a look
  std::atomic<Lane*> retired_{nullptr};
  uint64_t asked_ = 0;    // slots that were sent to without a lane
  uint64_t written_ = 0;  // since the last Flush
  unsigned turn_ = 0;
  int64_t network_polled_ = 0;
  std::atomic<bool> slept_{false};
  LinkCounters counters_;  // of the lanes
};

}  // namespace sumac::soft_nic
