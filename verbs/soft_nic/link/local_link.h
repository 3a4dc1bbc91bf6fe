// A link that reaches neighbours, other processes of this host, through shared memory, and
// everybody else through the network link that it is built on.
//
// Packets are the same; only the cable is another: a ring each way (packet_ring.h) and a flag that
// wakes who sleeps (sleep_flag.h). A neighbour comes and goes while traffic flows: packets that its
// ring has no room for are lost as on any network, and those on either way arrive in their own
// order, so the transport above needs to know nothing.
//
// Called as link.h says; AddNeighbour and RemoveNeighbour by one other thread at a time, beside all
// other calls.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"

#include "verbs/soft_nic/link/link.h"
#include "verbs/soft_nic/link/packet_ring.h"
#include "verbs/soft_nic/link/shared_pages.h"
#include "verbs/soft_nic/link/sleep_flag.h"
#include "verbs/soft_nic/link/unique_fd.h"

namespace sumac::soft_nic {

// What connects two devices of one host, as one of them sees it.
struct Neighbour {
  Gid gid{};
  uint32_t first_qpn = 0;
  uint32_t qpn_count = 0;
  SharedPages outgoing;  // rings: ours to write,
  SharedPages incoming;  // and the neighbour's
  SharedPages sleep;     // the neighbour's flag,
  UniqueFd event;        // and what wakes it
};

class LocalLink : public Link {
 public:
  static constexpr size_t kNeighboursMax = 64;
  static constexpr size_t kRingBytes = kPacketRingLine + (size_t{512} << 10);

  // Throws std::runtime_error when the machine gives no descriptor or memory.
  explicit LocalLink(std::unique_ptr<Link> network);
  ~LocalLink() override;

  // What neighbours need to wake us.
  int sleep_memory() const { return sleep_pages_.fd(); }
  int sleep_event() const { return event_.get(); }
  // Takes the place of one that is there already (a process that went, and another at its address).
  // InvalidArgument: memory of another shape. ResourceExhausted: too many.
  absl::Status AddNeighbour(Neighbour neighbour);
  void RemoveNeighbour(const Gid& gid, uint32_t first_qpn);

  [[nodiscard]] bool Transmit(const OutgoingPacket& packet) override;
  void Flush() override;
  size_t Receive(PacketHandler& handler, size_t budget) override;
  int poll_fd() const override { return poll_.get(); }
  bool AnnounceSleep() override;
  void WithdrawSleep() override { sleep_.Withdraw(); }
  int control_fd() const override { return network_->control_fd(); }
  void OnControlReadable() override { network_->OnControlReadable(); }
  const std::string& interface() const override { return network_->interface(); }
  const Gid& local_gid() const override { return network_->local_gid(); }
  uint32_t mtu_bytes() const override { return network_->mtu_bytes(); }
  uint32_t first_qpn() const override { return network_->first_qpn(); }
  uint32_t qpn_count() const override { return network_->qpn_count(); }
  LinkCounters counters() const override;

 private:
  struct Lane;

  Lane* LaneTo(const Gid& gid, uint32_t qpn);
  size_t ReceiveFrom(Lane& lane, PacketHandler& handler, size_t budget);
  bool NetworkIsDue();
  void Retire(size_t index);

  std::unique_ptr<Link> network_;
  SharedPages sleep_pages_;
  UniqueFd event_;
  UniqueFd poll_;  // an epoll set: the network's descriptor, and event_
  SleepFlag sleep_;
  // Filled by the control thread, emptied by the engine's owner.
  std::array<std::atomic<Lane*>, kNeighboursMax> lanes_{};
  std::atomic<size_t> lane_count_{0};  // slots that were ever in use
  Lane* last_ = nullptr;               // where the last packet went
  size_t next_ = 0;                    // who is first served in the next turn
  int64_t network_polled_ = 0;
  std::atomic<bool> slept_{false};
  LinkCounters counters_;  // of the lanes
};

}  // namespace sumac::soft_nic
