// Messages of the connection manager: 256-byte management datagrams to queue pair 1 (IBTA vol. 1,
// chapter 12; the datagram's own header: 13.4).
//
// CmMessage is the validated representation: every field in host order, of which a kind of message
// uses those in the table of its clause. Pure functions, no allocation. As with packets, what comes
// off the wire is checked, never asserted on. Alternate paths (LAP, APR) and the extended
// transports are not spoken.
//
// Programs of rdma_cm put their IP addresses before their private data: CmAddresses (IBTA Annex
// A11).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "verbs/soft_nic/wire/icrc.h"

namespace sumac::soft_nic {

inline constexpr uint32_t kManagementQpn = 1;            // of the general services (3.9.1)
inline constexpr uint32_t kManagementQkey = 0x80010000;  // 10.2.5
inline constexpr uint32_t kManagementQpns = 2;           // 0 and 1 are not for applications
inline constexpr size_t kMadBytes = 256;                 // 13.4.2
inline constexpr size_t kCmPrivateBytesMax = 224;        // of RTU and DREP; others have less
inline constexpr size_t kCmRejectInfoBytes = 72;         // 12.6.7
using Mad = std::array<std::byte, kMadBytes>;

// The attribute of the datagram (16.7.2).
enum class CmKind : uint16_t {
  kRequest = 0x10,            // REQ
  kProcessing = 0x11,         // MRA: "message receipt acknowledged", the answer will take a while
  kReject = 0x12,             // REJ
  kReply = 0x13,              // REP
  kReady = 0x14,              // RTU: "ready to use"
  kDisconnectRequest = 0x15,  // DREQ
  kDisconnectReply = 0x16,    // DREP
  kServiceRequest = 0x17,     // SIDR_REQ: which queue pair serves this service ID?
  kServiceReply = 0x18,       // SIDR_REP
};
const char* NameOf(CmKind kind);

// What an MRA or REJ is about (12.6.6, 12.6.7).
enum class CmAbout : uint8_t { kRequest = 0, kReply = 1, kOther = 2 };

// Reasons of a REJ (12.6.7.2), those that are used here.
enum CmRejectReason : uint16_t {
  kCmNoResources = 3,
  kCmTimeout = 4,
  kCmUnsupported = 5,
  kCmInvalidCommunicationId = 6,
  kCmInvalidServiceId = 8,
  kCmInvalidTransportType = 9,
  kCmStaleConnection = 10,
  kCmInvalidGid = 12,
  kCmConsumerDefined = 28,
};

// SIDR_REP (12.11.2.1).
enum CmServiceStatus : uint8_t {
  kCmServiceValid = 0,
  kCmServiceUnknown = 1,
  kCmServiceRejected = 2,
};

inline constexpr uint8_t kCmReliableConnection = 0;  // REQ, transport service type
inline constexpr uint8_t kCmUnreliableConnection = 1;

struct CmMessage {
  CmKind kind = CmKind::kRequest;
  uint64_t transaction_id = 0;
  uint32_t local_id = 0;   // the sender's communication ID, or request ID of SIDR
  uint32_t remote_id = 0;  // the receiver's

  // REQ; some of REP and SIDR.
  uint64_t service_id = 0;
  uint64_t ca_guid = 0;
  uint32_t qkey = 0;
  uint32_t qpn = 0;           // also of DREQ: the receiver's
  uint32_t starting_psn = 0;  // of the packets that the message's sender gets
  uint8_t responder_resources = 0;
  uint8_t initiator_depth = 0;
  uint8_t remote_response_timeout = 0;  // 4.096 us * 2^n, as all timeouts here
  uint8_t local_response_timeout = 0;
  uint8_t transport = kCmReliableConnection;
  bool flow_control = false;
  uint8_t retry_count = 0;
  uint8_t rnr_retry_count = 0;
  uint16_t pkey = 0xffff;
  uint8_t path_mtu = 0;     // as ibv_mtu
  uint8_t retries_max = 0;  // of CM messages
  bool shared_receive_queue = false;
  uint16_t local_lid = 0xffff;  // none is known on Ethernet
  uint16_t remote_lid = 0xffff;
  Gid local_gid{};
  Gid remote_gid{};
  uint32_t flow_label = 0;
  uint8_t packet_rate = 0;  // as ibv_rate
  uint8_t traffic_class = 0;
  uint8_t hop_limit = 0;
  uint8_t service_level = 0;
  bool subnet_local = false;
  uint8_t ack_timeout = 0;

  uint8_t target_ack_delay = 0;     // REP
  uint8_t failover = 0;             // REP
  CmAbout about = CmAbout::kOther;  // MRA, REJ
  uint8_t service_timeout = 0;      // MRA
  uint16_t reason = 0;              // REJ
  uint8_t info_bytes = 0;           // REJ, SIDR_REP: of `info`
  std::array<std::byte, kCmRejectInfoBytes> info{};
  uint8_t status = 0;  // SIDR_REP

  // As long as PrivateBytesMax(kind) says: there is no length on the wire.
  std::array<std::byte, kCmPrivateBytesMax> private_data{};
};

size_t PrivateBytesMax(CmKind kind);

// Fields that are too large for their place lose their upper bits.
void EncodeCmMessage(const CmMessage& message, std::span<std::byte, kMadBytes> out);

enum class CmDecodeError : uint8_t {
  kNone,
  kBadHeader,    // not a datagram of the connection manager, version 2, method Send
  kUnknownKind,  // an attribute that is not spoken here
};
const char* NameOf(CmDecodeError error);
[[nodiscard]] CmDecodeError DecodeCmMessage(std::span<const std::byte, kMadBytes> mad,
                                            CmMessage* out);

// What rdma_cm puts at the start of the private data of REQ and SIDR_REQ: who talks to whom, in
// terms of IP. The destination port is in the service ID.
struct CmAddresses {
  uint16_t source_port = 0;
  Gid source{};
  Gid destination{};
};
inline constexpr size_t kCmAddressesBytes = 36;
void WriteCmAddresses(const CmAddresses& addresses, std::span<std::byte, kCmAddressesBytes> out);
// False: another version, or neither IPv4 nor IPv6.
[[nodiscard]] bool ReadCmAddresses(std::span<const std::byte, kCmAddressesBytes> in,
                                   CmAddresses* out);

// The service ID of a port in one of rdma_cm's port spaces (RDMA_PS_TCP: 0x0106, RDMA_PS_UDP:
// 0x0111).
constexpr uint64_t CmServiceId(uint16_t port_space, uint16_t port) {
  return uint64_t{port_space} << 16 | port;
}

}  // namespace sumac::soft_nic
