#include "verbs/soft_nic/wire/cm_message.h"

#include <algorithm>
#include <cstring>

namespace sumac::soft_nic {
namespace {

constexpr size_t kHeaderBytes = 24;  // of a management datagram (13.4.3)
constexpr uint8_t kBaseVersion = 1;
constexpr uint8_t kClassCommunication = 0x07;
constexpr uint8_t kClassVersion = 2;
constexpr uint8_t kMethodSend = 3;

// Both put and get visit the same list of fields (VisitFields), so that it stands here once.
class Writer {
 public:
  explicit Writer(std::span<std::byte> out) : out_(out) {}

  template <typename Value>
  void Whole(size_t at, size_t bytes, const Value& value) {
    for (size_t i = 0; i < bytes; ++i) {
      out_[at + i] = static_cast<std::byte>(static_cast<uint64_t>(value) >> (8 * (bytes - 1 - i)));
    }
  }
  // `bits` bits whose lowest is bit `low` of the byte.
  template <typename Value>
  void Bits(size_t at, int low, int bits, const Value& value) {
    const auto mask = static_cast<unsigned>((1 << bits) - 1);
    out_[at] |= static_cast<std::byte>((static_cast<unsigned>(value) & mask) << low);
  }
  // A 20-bit field that starts at a byte's top bit.
  void Top20(size_t at, const uint32_t& value) {
    Whole(at, 2, value >> 4);
    Bits(at + 2, 4, 4, value);
  }
  template <typename Bytes>
  void Raw(size_t at, size_t bytes, const Bytes& value) {
    std::memcpy(&out_[at], value.data(), bytes);
  }

 private:
  std::span<std::byte> out_;
};

class Reader {
 public:
  explicit Reader(std::span<const std::byte> in) : in_(in) {}

  template <typename Value>
  void Whole(size_t at, size_t bytes, Value& value) const {
    uint64_t read = 0;
    for (size_t i = 0; i < bytes; ++i) read = read << 8 | std::to_integer<uint64_t>(in_[at + i]);
    value = static_cast<Value>(read);
  }
  template <typename Value>
  void Bits(size_t at, int low, int bits, Value& value) const {
    const unsigned mask = (1u << bits) - 1;
    value = static_cast<Value>(std::to_integer<unsigned>(in_[at]) >> low & mask);
  }
  void Top20(size_t at, uint32_t& value) const {
    Whole(at, 3, value);
    value >>= 4;
  }
  template <typename Bytes>
  void Raw(size_t at, size_t bytes, Bytes& value) const {
    std::memcpy(value.data(), &in_[at], bytes);
  }

 private:
  std::span<const std::byte> in_;
};

// Offsets and bits as in the tables of 12.6; the numbers after the path are the clause.
template <typename Io, typename Message>
void VisitRequest(Io io, Message& m) {  // 12.6.5
  io.Whole(0, 4, m.local_id);
  io.Whole(8, 8, m.service_id);
  io.Whole(16, 8, m.ca_guid);
  io.Whole(28, 4, m.qkey);
  io.Whole(32, 3, m.qpn);
  io.Whole(35, 1, m.responder_resources);
  io.Whole(39, 1, m.initiator_depth);
  io.Bits(43, 3, 5, m.remote_response_timeout);
  io.Bits(43, 1, 2, m.transport);
  io.Bits(43, 0, 1, m.flow_control);
  io.Whole(44, 3, m.starting_psn);
  io.Bits(47, 3, 5, m.local_response_timeout);
  io.Bits(47, 0, 3, m.retry_count);
  io.Whole(48, 2, m.pkey);
  io.Bits(50, 4, 4, m.path_mtu);
  io.Bits(50, 0, 3, m.rnr_retry_count);
  io.Bits(51, 4, 4, m.retries_max);
  io.Bits(51, 3, 1, m.shared_receive_queue);
  io.Whole(52, 2, m.local_lid);
  io.Whole(54, 2, m.remote_lid);
  io.Raw(56, 16, m.local_gid);
  io.Raw(72, 16, m.remote_gid);
  io.Top20(88, m.flow_label);
  io.Bits(91, 0, 6, m.packet_rate);
  io.Whole(92, 1, m.traffic_class);
  io.Whole(93, 1, m.hop_limit);
  io.Bits(94, 4, 4, m.service_level);
  io.Bits(94, 3, 1, m.subnet_local);
  io.Bits(95, 3, 5, m.ack_timeout);
}

template <typename Io, typename Message>
void VisitReply(Io io, Message& m) {  // 12.6.8
  io.Whole(8, 4, m.qkey);
  io.Whole(12, 3, m.qpn);
  io.Whole(20, 3, m.starting_psn);
  io.Whole(24, 1, m.responder_resources);
  io.Whole(25, 1, m.initiator_depth);
  io.Bits(26, 3, 5, m.target_ack_delay);
  io.Bits(26, 1, 2, m.failover);
  io.Bits(26, 0, 1, m.flow_control);
  io.Bits(27, 5, 3, m.rnr_retry_count);
  io.Bits(27, 4, 1, m.shared_receive_queue);
  io.Whole(28, 8, m.ca_guid);
}

template <typename Io, typename Message>
void VisitServiceReply(Io io, Message& m) {  // 12.11.2
  io.Whole(0, 4, m.remote_id);
  io.Whole(4, 1, m.status);
  io.Whole(5, 1, m.info_bytes);
  io.Whole(8, 3, m.qpn);
  io.Whole(12, 8, m.service_id);
  io.Whole(20, 4, m.qkey);
  io.Raw(24, kCmRejectInfoBytes, m.info);
}

// Where the private data starts in each kind, behind the header; 0: no such kind.
constexpr size_t PrivateAt(CmKind kind) {
  switch (kind) {
    case CmKind::kRequest:
      return 140;
    case CmKind::kProcessing:
      return 10;
    case CmKind::kReject:
      return 84;
    case CmKind::kReply:
      return 36;
    case CmKind::kReady:
    case CmKind::kDisconnectReply:
      return 8;
    case CmKind::kDisconnectRequest:
      return 12;
    case CmKind::kServiceRequest:
      return 16;
    case CmKind::kServiceReply:
      return 96;
  }
  return 0;
}

template <typename Io, typename Message>
void VisitFields(Io io, Message& m) {
  switch (m.kind) {
    case CmKind::kRequest:
      VisitRequest(io, m);
      break;
    case CmKind::kServiceRequest:  // 12.11.1
      io.Whole(0, 4, m.local_id);
      io.Whole(4, 2, m.pkey);
      io.Whole(8, 8, m.service_id);
      break;
    case CmKind::kServiceReply:
      VisitServiceReply(io, m);
      break;
    default:
      io.Whole(0, 4, m.local_id);
      io.Whole(4, 4, m.remote_id);
      break;
  }
  switch (m.kind) {
    case CmKind::kProcessing:  // 12.6.6
      io.Bits(8, 6, 2, m.about);
      io.Bits(9, 3, 5, m.service_timeout);
      break;
    case CmKind::kReject:  // 12.6.7
      io.Bits(8, 6, 2, m.about);
      io.Bits(9, 1, 7, m.info_bytes);
      io.Whole(10, 2, m.reason);
      io.Raw(12, kCmRejectInfoBytes, m.info);
      break;
    case CmKind::kReply:
      VisitReply(io, m);
      break;
    case CmKind::kDisconnectRequest:  // 12.6.10
      io.Whole(8, 3, m.qpn);
      break;
    default:
      break;
  }
  io.Raw(PrivateAt(m.kind), PrivateBytesMax(m.kind), m.private_data);
}

}  // namespace

const char* NameOf(CmKind kind) {
  switch (kind) {
    case CmKind::kRequest:
      return "REQ";
    case CmKind::kProcessing:
      return "MRA";
    case CmKind::kReject:
      return "REJ";
    case CmKind::kReply:
      return "REP";
    case CmKind::kReady:
      return "RTU";
    case CmKind::kDisconnectRequest:
      return "DREQ";
    case CmKind::kDisconnectReply:
      return "DREP";
    case CmKind::kServiceRequest:
      return "SIDR_REQ";
    case CmKind::kServiceReply:
      return "SIDR_REP";
  }
  return "UNKNOWN";
}

const char* NameOf(CmDecodeError error) {
  switch (error) {
    case CmDecodeError::kNone:
      return "none";
    case CmDecodeError::kBadHeader:
      return "bad header";
    case CmDecodeError::kUnknownKind:
      return "unknown kind";
  }
  return "?";
}

size_t PrivateBytesMax(CmKind kind) {
  const size_t at = PrivateAt(kind);
  return at == 0 ? 0 : kMadBytes - kHeaderBytes - at;
}

void EncodeCmMessage(const CmMessage& message, std::span<std::byte, kMadBytes> out) {
  std::ranges::fill(out, std::byte{0});
  Writer header(out);
  header.Whole(0, 1, kBaseVersion);
  header.Whole(1, 1, kClassCommunication);
  header.Whole(2, 1, kClassVersion);
  header.Whole(3, 1, kMethodSend);
  header.Whole(8, 8, message.transaction_id);
  header.Whole(16, 2, static_cast<uint16_t>(message.kind));
  VisitFields(Writer(out.subspan(kHeaderBytes)), message);
}

CmDecodeError DecodeCmMessage(std::span<const std::byte, kMadBytes> mad, CmMessage* out) {
  *out = {};
  const Reader header(mad);
  uint8_t base = 0, management_class = 0, version = 0, method = 0;
  header.Whole(0, 1, base);
  header.Whole(1, 1, management_class);
  header.Whole(2, 1, version);
  header.Whole(3, 1, method);
  if (base != kBaseVersion || management_class != kClassCommunication || version != kClassVersion ||
      method != kMethodSend) {
    return CmDecodeError::kBadHeader;
  }
  header.Whole(8, 8, out->transaction_id);
  header.Whole(16, 2, out->kind);
  if (PrivateAt(out->kind) == 0) return CmDecodeError::kUnknownKind;
  VisitFields(Reader(mad.subspan(kHeaderBytes)), *out);
  return CmDecodeError::kNone;
}

void WriteCmAddresses(const CmAddresses& addresses, std::span<std::byte, kCmAddressesBytes> out) {
  std::ranges::fill(out, std::byte{0});
  const bool ipv4 = IsIpv4Mapped(addresses.source);
  Writer writer(out);
  writer.Bits(1, 4, 4, ipv4 ? 4 : 6);
  writer.Whole(2, 2, addresses.source_port);
  for (const auto& [at, gid] :
       {std::pair(size_t{4}, &addresses.source), {20, &addresses.destination}}) {
    if (ipv4) {
      std::memcpy(&out[at + 12], gid->data() + 12, 4);
    } else {
      std::memcpy(&out[at], gid->data(), 16);
    }
  }
}

bool ReadCmAddresses(std::span<const std::byte, kCmAddressesBytes> in, CmAddresses* out) {
  const Reader reader(in);
  uint8_t version = 0, ip_version = 0;
  reader.Whole(0, 1, version);
  reader.Bits(1, 4, 4, ip_version);
  if (version != 0 || (ip_version != 4 && ip_version != 6)) return false;
  reader.Whole(2, 2, out->source_port);
  reader.Raw(4, 16, out->source);
  reader.Raw(20, 16, out->destination);
  if (ip_version == 4) {
    for (Gid* gid : {&out->source, &out->destination}) {
      std::fill_n(gid->begin(), 10, uint8_t{0});
      (*gid)[10] = (*gid)[11] = 0xff;
    }
  }
  return true;
}

}  // namespace sumac::soft_nic
