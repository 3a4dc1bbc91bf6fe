// One UDP socket that packets leave by, with a batch of packets for one sendmmsg.
//
// Bound to a source port of 0xc000-0xffff, unconnected, with path MTU discovery on: so Linux sends
// IPv4 identification 0 and DF, which the ICRC needs to know. With segmentation, consecutive
// packets of one length to one queue pair are a run, one datagram to the kernel (UDP_SEGMENT);
// whoever cuts it gives its packets the identifications 0, 1, 2, ..., so the ICRC of each is made
// with its place in the run. The IPv4 UDP checksum is 0 (Annex A17.3.2), but not with segmentation,
// nor on IPv6: there the kernel fills it in. Owned by UdpLink; one thread. Queue and Flush allocate
// nothing.
#pragma once

#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

#include "verbs/soft_nic/engine/ports.h"
#include "verbs/soft_nic/link/address.h"
#include "verbs/soft_nic/link/link.h"
#include "verbs/soft_nic/link/unique_fd.h"

namespace sumac::soft_nic {

class TransmitSocket {
 public:
  static constexpr size_t kBatch = 64;
  static constexpr size_t kPayloadPieces = 2;               // more are copied
  static constexpr size_t kPiecesMax = kPayloadPieces + 2;  // and headers, pad with ICRC

  struct Options {
    Gid source{};
    uint32_t scope_id = 0;
    uint32_t send_buffer_bytes = 0;
    bool segmentation = false;
  };

  // Binds to the source at a random free port of the range. `counters` must outlive the socket.
  static absl::StatusOr<std::unique_ptr<TransmitSocket>> Open(const Options& options,
                                                              LinkCounters* counters);
  ~TransmitSocket();
  TransmitSocket(const TransmitSocket&) = delete;
  TransmitSocket& operator=(const TransmitSocket&) = delete;

  // Takes the packet into the batch; a full batch is flushed first. Payload that stays is not
  // copied before the kernel does, unless it is small. False: no room, nothing was taken.
  [[nodiscard]] bool Queue(const OutgoingPacket& packet);
  // Gives the batch to the kernel. What it has no room for now stays, as a copy; what it refuses is
  // dropped and counted.
  void Flush();
  bool empty() const { return first_ == end_; }
  uint16_t port() const { return port_; }

 private:
  struct Slot;
  struct Run;
  TransmitSocket(UniqueFd fd, const Options& options, uint16_t port, LinkCounters* counters);

  bool Encode(const OutgoingPacket& packet, size_t index);
  bool SetIpFields(const Path& path);
  uint16_t PlaceInRun(size_t index) const;
  bool RunIsFull() const;
  void Seal(Slot& slot);
  static void CopyPayload(Slot& slot, std::span<const iovec> payload);
  size_t CountSegments(size_t first) const;
  unsigned BuildMessages();
  void Sent(size_t messages);
  void Refused(int error);

  UniqueFd fd_;
  const Gid source_;
  const bool ipv4_;
  const uint32_t scope_id_;
  const uint16_t port_;
  bool segmentation_;
  LinkCounters* const counters_;
  int traffic_class_ = 0;  // as set on the socket
  int hop_limit_ = 64;
  size_t first_ = 0;  // the batch is [first_, end_)
  size_t end_ = 0;
  std::vector<Slot> slots_;
  // Rebuilt by every flush:
  std::vector<iovec> pieces_;  // of the slots, side by side so that a run is one message
  std::vector<mmsghdr> messages_;
  std::vector<Run> runs_;  // of each message
};

}  // namespace sumac::soft_nic
