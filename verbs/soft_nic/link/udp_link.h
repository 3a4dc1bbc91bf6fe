// The soft NIC's link over UDP sockets: RoCE v2 packets to and from port 4791.
//
// Built by the device; called as link.h says. Several processes on one host share the address and
// port (udp_port_share.h). Where that can't be, on loopback the link takes an address of its own
// out of 127.0.0.0/8 and says so in the log; elsewhere Open fails and says who has the port and
// what to try.
//
// Anyone who can reach a soft NIC can try to write to memory, so only an address or interface that
// the user named is anything but loopback.
//
// Transmit copies, or points to payload that stays until Flush; Receive verifies the ICRC
// (icrc_checker.h) before anything else sees a packet. Neither allocates, nor blocks. Every refused
// packet has its counter.
#pragma once

#include <sys/socket.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "verbs/soft_nic/link/address.h"
#include "verbs/soft_nic/link/flood_guard.h"
#include "verbs/soft_nic/link/icrc_checker.h"
#include "verbs/soft_nic/link/link.h"
#include "verbs/soft_nic/link/segmentation.h"
#include "verbs/soft_nic/link/transmit_socket.h"
#include "verbs/soft_nic/link/udp_port_share.h"

namespace sumac::soft_nic {

struct UdpLinkOptions {
  // Where to listen. A named interface wins over the address (IPv4 first, then IPv6).
  Gid address = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1};
  std::string interface;
  // Asked of the kernel; without CAP_NET_ADMIN it gives at most net.core.rmem_max / wmem_max.
  uint32_t receive_buffer_bytes = 8u << 20;
  uint32_t send_buffer_bytes = 4u << 20;
  // How many processes can share the address: a power of two up to 64. The first process decides.
  uint32_t slots = UdpPortShareOptions::kSlotsMax;
  // Source ports in use at once; a queue pair always keeps to one.
  uint32_t transmit_sockets = 8;
  std::chrono::milliseconds join_timeout{10000};
  std::chrono::milliseconds answer_timeout{3000};
  // Let packets cross the kernel in batches (UDP_SEGMENT, UDP_GRO).
  Segmentation segmentation = Segmentation::kAuto;
  // On loopback, take an own address when the port can't be shared.
  bool own_address_fallback = true;
};

class UdpLink : public Link {
 public:
  static absl::StatusOr<std::unique_ptr<UdpLink>> Open(const UdpLinkOptions& options);
  ~UdpLink() override;

  [[nodiscard]] bool Transmit(const OutgoingPacket& packet) override;
  void Flush() override;
  size_t Receive(PacketHandler& handler, size_t budget) override;
  int poll_fd() const override { return receive_fd_; }
  int control_fd() const override { return share_ ? share_->share_fd() : -1; }
  void OnControlReadable() override {
    if (share_) share_->OnShareReadable();
  }
  const Gid& local_gid() const override { return gid_; }
  uint32_t mtu_bytes() const override { return mtu_bytes_; }
  uint32_t first_qpn() const override { return first_qpn_; }
  uint32_t qpn_count() const override { return qpn_count_; }
  LinkCounters counters() const override { return counters_; }

  // What the kernel gave; it charges more than the bytes of a packet.
  uint32_t receive_buffer_bytes() const override { return receive_buffer_bytes_; }
  // False: the fallback, an address of our own.
  bool shares_port() const { return share_ != nullptr; }
  // Then: into how many slots, and by what names (NamesOfPort).
  uint32_t slots() const { return share_->slots(); }
  std::string names() const { return NamesOfPort(gid_, scope_id_, kRoceUdpPort); }
  const std::string& interface() const override { return interface_; }

 private:
  struct ReceiveSlot;
  UdpLink();

  absl::Status Listen(const UdpLinkOptions& options, const InterfaceAddress& where);
  absl::Status TakeOwnAddress(std::chrono::milliseconds timeout);
  void SetReceiveBuffer(uint32_t bytes);
  void PrepareReceive(bool batching);
  size_t Split(size_t index, PacketHandler& handler);
  void Accept(ReceiveSlot& slot, std::span<const std::byte> bytes, PacketHandler& handler);
  void DropBad(const Gid& source, uint64_t& counter);
  void NoteBad(const Gid& source);

  std::unique_ptr<UdpPortShare> share_;
  UniqueFd own_socket_;  // with the fallback
  int receive_fd_ = -1;  // of either
  Gid gid_{};
  std::string interface_;
  uint32_t scope_id_ = 0;
  uint32_t mtu_bytes_ = 0;
  uint32_t first_qpn_ = 0;
  uint32_t qpn_count_ = 0;
  uint32_t receive_buffer_bytes_ = 0;
  LinkCounters counters_;
  IcrcChecker checker_;
  FloodGuard guard_;
  bool flooded_ = false;  // ever: until then nobody is looked up in it
  bool flood_warned_ = false;
  std::vector<std::unique_ptr<TransmitSocket>> transmit_sockets_;
  std::vector<ReceiveSlot> receive_slots_;
  std::vector<std::byte> receive_bytes_;
  std::vector<mmsghdr> receive_messages_;
};

}  // namespace sumac::soft_nic
