// Fuzzes a queue pair with lists of operations: posts, packets of a hostile peer, time. One target
// for each transport service: SUMAC_FUZZ_QP_TYPE.
//
// The input is read as operations (below), so mutations are of behaviour rather than of bytes. The
// peer knows all: true keys, addresses and sequence numbers near the expected ones. Promises: no
// byte changes outside the memory that was granted for writing, and none leaves that was not
// granted for reading; every accepted work request completes at most once, in order, and all of
// them by the time that the queue pair is in the error state; every call ends, and sends only
// well-formed packets.
#include <algorithm>
#include <array>
#include <cstring>
#include <memory>

#include "tests/fuzz/fuzz_target.h"
#include "verbs/soft_nic/engine/address_handle.h"
#include "verbs/soft_nic/engine/engine_testing.h"

namespace sumac::fuzz {
namespace {

using namespace soft_nic;           // NOLINT: the engine's whole vocabulary
using namespace soft_nic::testing;  // NOLINT

constexpr size_t kRegionBytes = 8192;
constexpr uint32_t kMtu = 256;
constexpr std::byte kSecret{0xee};  // what the peer may not read is full of it

constexpr std::array kOpcodes = {Opcode::kRcSendFirst,
                                 Opcode::kRcSendMiddle,
                                 Opcode::kRcSendLast,
                                 Opcode::kRcSendLastWithImmediate,
                                 Opcode::kRcSendOnly,
                                 Opcode::kRcSendOnlyWithImmediate,
                                 Opcode::kRcWriteFirst,
                                 Opcode::kRcWriteMiddle,
                                 Opcode::kRcWriteLast,
                                 Opcode::kRcWriteLastWithImmediate,
                                 Opcode::kRcWriteOnly,
                                 Opcode::kRcWriteOnlyWithImmediate,
                                 Opcode::kRcReadRequest,
                                 Opcode::kRcReadResponseFirst,
                                 Opcode::kRcReadResponseMiddle,
                                 Opcode::kRcReadResponseLast,
                                 Opcode::kRcReadResponseOnly,
                                 Opcode::kRcAcknowledge,
                                 Opcode::kRcAtomicAcknowledge,
                                 Opcode::kRcCompareSwap,
                                 Opcode::kRcFetchAdd,
                                 Opcode::kRcSendLastWithInvalidate,
                                 Opcode::kRcSendOnlyWithInvalidate,
                                 Opcode::kUcSendFirst,
                                 Opcode::kUcSendMiddle,
                                 Opcode::kUcSendLast,
                                 Opcode::kUcSendLastWithImmediate,
                                 Opcode::kUcSendOnly,
                                 Opcode::kUcSendOnlyWithImmediate,
                                 Opcode::kUcWriteFirst,
                                 Opcode::kUcWriteMiddle,
                                 Opcode::kUcWriteLast,
                                 Opcode::kUcWriteLastWithImmediate,
                                 Opcode::kUcWriteOnly,
                                 Opcode::kUcWriteOnlyWithImmediate,
                                 Opcode::kUdSendOnly,
                                 Opcode::kUdSendOnlyWithImmediate,
                                 Opcode::kCnp};
constexpr uint8_t kFirstUcOpcode = 23;
constexpr uint8_t kFirstUdOpcode = 35;
static_assert(kOpcodes[kFirstUcOpcode] == Opcode::kUcSendFirst);
static_assert(kOpcodes[kFirstUdOpcode] == Opcode::kUdSendOnly);
constexpr ibv_qp_type kType = SUMAC_FUZZ_QP_TYPE;
constexpr uint32_t kQkey = 0x1234;
constexpr std::array kSends = {IBV_WR_SEND,
                               IBV_WR_SEND_WITH_IMM,
                               IBV_WR_RDMA_WRITE,
                               IBV_WR_RDMA_WRITE_WITH_IMM,
                               IBV_WR_RDMA_READ,
                               IBV_WR_ATOMIC_CMP_AND_SWP,
                               IBV_WR_ATOMIC_FETCH_AND_ADD};

class World {
 public:
  // What each region allows. Guards lie between: bytes that nobody registered.
  enum Region { kWritable, kReadOnly, kLocalOnly, kSource, kRegions };

  World() {
    constexpr int kAccess[kRegions] = {kAllAccess, IBV_ACCESS_REMOTE_READ, IBV_ACCESS_LOCAL_WRITE,
                                       0};
    for (int r = 0; r < kRegions; ++r) {
      keys_[r] = memory_.Add(bytes_.data() + Start(r), kRegionBytes, kAccess[r]);
    }
    QueuePairLimits limits;
    limits.type = kType;
    limits.qpn = kLocalQpn;
    limits.max_send_wr = 8;
    limits.max_recv_wr = 8;
    ReceiveConfig receive;
    receive.remote_qpn = kRemoteQpn;
    receive.qkey = kQkey;
    receive.expected_psn = 0xfffffe;  // soon past the wrap
    receive.mtu_bytes = kMtu;
    receive.max_dest_rd_atomic = 4;
    receive.access_flags = kAllAccess;
    SendConfig send;
    send.first_psn = 0xfffffa;
    send.retry_count = 2;
    send.max_rd_atomic = 2;
    qp_ = std::make_unique<QueuePair>(limits, memory_, sends_, receives_);
    qp_->ToInit();
    qp_->ToReadyToReceive(receive);
    qp_->ToReadyToSend(send);
  }

  void Step(InputReader& in) {
    switch (in.Byte() % 16) {
      case 0:
      case 1:
      case 2:
        return PostSend(in);
      case 3:
      case 4:
        return PostReceive(in);
      case 5:
        return Transmit(in.Byte() % 32);
      case 6:
        now_ += std::chrono::microseconds(in.Byte() * 50);
        return qp_->OnTimeout(now_);
      case 7:
        if (const Time due = qp_->NextTimeout(); due != kNever) {
          now_ = std::max(now_, due);
          qp_->OnTimeout(now_);
        }
        return;
      default:
        return Packet(in);
    }
  }

  void Finish() {
    CheckCompletions();
    qp_->ToError(now_);
    qp_->OnDoorbell(now_);
    Transmit(64);
    CheckCompletions();
    SUMAC_FUZZ_CHECK(sends_.list.size() == accepted_sends_);
    SUMAC_FUZZ_CHECK(receives_.list.size() == accepted_receives_);
    size_t at = 0;
    for (const int may_change : {int{kWritable}, int{kLocalOnly}}) {
      CheckUnchanged(at, Start(may_change));
      at = Start(may_change) + kRegionBytes;
    }
    CheckUnchanged(at, bytes_.size());
    SUMAC_FUZZ_CHECK(!::testing::Test::HasFailure());
  }

 private:
  using AllBytes = std::array<std::byte, kRegions * 2 * kRegionBytes>;

  // Made once: filling it takes longer than most inputs run.
  static const AllBytes& BytesBefore() {
    static const auto all = [] {
      auto bytes = std::make_unique<AllBytes>();
      for (size_t i = 0; i < bytes->size(); ++i) {
        const bool granted = Inside(kWritable, i) || Inside(kReadOnly, i) || Inside(kSource, i);
        (*bytes)[i] = granted ? static_cast<std::byte>((i * 31 + 7) & 0x7f) : kSecret;
      }
      return bytes;
    }();
    return *all;
  }
  void CheckUnchanged(size_t begin, size_t end) const {
    SUMAC_FUZZ_CHECK(std::memcmp(&bytes_[begin], BytesBefore().data() + begin, end - begin) == 0);
  }
  static size_t Start(int region) {
    return kRegionBytes / 2 + static_cast<size_t>(region) * 2 * kRegionBytes;
  }
  static bool Inside(int region, size_t i) {
    return i >= Start(region) && i < Start(region) + kRegionBytes;
  }
  uint64_t Address(int region, uint32_t offset) const {
    return reinterpret_cast<uint64_t>(bytes_.data() + Start(region)) + offset;
  }

  void PostSend(InputReader& in) {
    const ibv_wr_opcode opcode = kSends[in.Byte() % kSends.size()];
    const bool reads = opcode == IBV_WR_RDMA_READ || opcode == IBV_WR_ATOMIC_CMP_AND_SWP ||
                       opcode == IBV_WR_ATOMIC_FETCH_AND_ADD;
    const int region = reads ? kLocalOnly : kSource;
    const bool atomic = reads && opcode != IBV_WR_RDMA_READ;
    const uint32_t size = in.Byte() * 5;
    const uint32_t length = atomic ? 8 : size;
    ibv_sge sge{Address(region, in.Byte() * 16), length, keys_[region]};
    ibv_send_wr wr{};
    wr.wr_id = accepted_sends_;
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.opcode = opcode;
    wr.send_flags = IBV_SEND_SIGNALED;
    if (atomic) {
      wr.wr.atomic = {0x10000, 1, 2, 0x77};
    } else if (kType == IBV_QPT_UD) {
      wr.wr.ud = {&handle_, kRemoteQpn, kQkey};
    } else {
      wr.wr.rdma = {0x10000, 0x77};
    }
    if (qp_->PostSend(wr) == 0) ++accepted_sends_;
    qp_->OnDoorbell(now_);
  }

  void PostReceive(InputReader& in) {
    ibv_sge sge{Address(kLocalOnly, in.Byte() * 16), in.Byte() * 5u, keys_[kLocalOnly]};
    ibv_recv_wr wr{};
    wr.wr_id = accepted_receives_;
    wr.sg_list = &sge;
    wr.num_sge = 1;
    if (qp_->PostReceive(wr) == 0) ++accepted_receives_;
    qp_->OnDoorbell(now_);
  }

  void Transmit(uint32_t budget) {
    PacketList sink;
    const bool more = qp_->PollTransmit(sink, now_, budget);
    static_cast<void>(more);
    SUMAC_FUZZ_CHECK(sink.list.size() <= budget);
    for (const soft_nic::testing::Packet& packet : sink.list) {
      SUMAC_FUZZ_CHECK(packet.payload.size() <= kMtu);
      SUMAC_FUZZ_CHECK(packet.header.dest_qpn == kRemoteQpn);
      std::byte header[kHeaderBytesMax];
      SUMAC_FUZZ_CHECK(EncodeHeader(packet.header, header) == HeaderBytes(packet.header.opcode));
      // Neither guards nor private memory leave. A run of sixteen, because atomics can make single
      // such bytes.
      SUMAC_FUZZ_CHECK(std::search_n(packet.payload.begin(), packet.payload.end(), 16, kSecret) ==
                       packet.payload.end());
    }
  }

  void Packet(InputReader& in) {
    soft_nic::testing::Packet packet;
    PacketHeader& header = packet.header;
    header.opcode = kOpcodes[in.Byte() % kOpcodes.size()];
    const uint32_t flags = FlagsOf(header.opcode);
    // Requests count from what is expected, responses from what was sent; a little off either way.
    const uint32_t base = (flags & kIsRequest) != 0 ? qp_->expected_psn() : qp_->next_send_psn();
    const uint8_t off = in.Byte();
    header.psn =
        (base + (off < 128 ? 0 : off % 16) - ((flags & kIsRequest) != 0 && off < 192 ? 0 : 8)) &
        0xffffff;
    const uint8_t bits = in.Byte();
    header.ack_request = (bits & 1) != 0;
    header.solicited = (bits & 2) != 0;
    header.dest_qpn = kLocalQpn;
    header.qkey = (bits & 0x80) != 0 ? in.Word() : kQkey;
    const int region = bits >> 2 & 3;
    header.rkey = (bits & 0x10) != 0 ? in.Word() : keys_[region];
    header.remote_addr =
        Address(region, 0) + static_cast<uint64_t>(static_cast<int8_t>(in.Byte())) * 64;
    header.dma_length = (bits & 0x20) != 0 ? in.Word() : in.Byte() * 8u;
    if ((bits & 0x40) != 0) header.remote_addr = uint64_t{in.Word()} << 32 | in.Word();
    header.swap_or_add = in.Byte();
    header.compare = in.Byte();
    static constexpr uint8_t kSyndromes[] = {0x1f, 0x00, 0x20, 0x2c, 0x60, 0x61,
                                             0x62, 0x63, 0x64, 0x40, 0xff};
    header.syndrome = kSyndromes[in.Byte() % std::size(kSyndromes)];
    header.msn = in.Byte();
    if ((flags & kMayCarryPayload) != 0) {
      const uint8_t size = in.Byte();
      const size_t length = size < 128   ? kMtu
                            : size < 224 ? size
                                         : size * 16u;  // whole, short, too long
      packet.payload.assign(length, std::byte(in.Byte() & 0x7f));
      header.pad_bytes = static_cast<uint8_t>(-static_cast<int>(length) & 3);
    }
    qp_->OnPacket(packet.view(), now_);
  }

  void CheckCompletions() const {
    for (const auto* log : {&sends_, &receives_}) {
      for (size_t i = 0; i < log->list.size(); ++i) SUMAC_FUZZ_CHECK(log->list[i].wr_id == i);
    }
    SUMAC_FUZZ_CHECK(sends_.list.size() <= accepted_sends_);
    SUMAC_FUZZ_CHECK(receives_.list.size() <= accepted_receives_);
  }

  AllBytes bytes_ = BytesBefore();
  uint32_t keys_[kRegions]{};
  TestMemory memory_;
  CompletionLog sends_;
  CompletionLog receives_;
  AddressHandle handle_{};
  std::unique_ptr<QueuePair> qp_;
  Time now_ = Time(std::chrono::seconds(1));
  uint64_t accepted_sends_ = 0;
  uint64_t accepted_receives_ = 0;
};

}  // namespace

std::vector<Bytes> Seeds() {
  std::vector<Bytes> seeds;
  // Each kind of packet as a well-behaved peer sends it, alone and over and over; with posts and
  // time in between.
  for (uint8_t opcode = 0; opcode < uint8_t{kOpcodes.size()}; ++opcode) {
    for (const uint8_t length_in_8 : {32, 64}) {
      const Bytes packet = {8, opcode, 0, 1, 0, length_in_8, 1, 1, 0, 1, 0, 0x55};
      seeds.push_back(packet);
      Bytes list;
      for (uint8_t i = 0; i < 6; ++i) {
        const Bytes receive_and_send = {3, 8, 200, 0, i, 60, 4};
        const Bytes transmit_and_time = {5, 31, 7};
        const Bytes& before = i % 2 == 0 ? receive_and_send : transmit_and_time;
        list.insert(list.end(), before.begin(), before.end());
        list.insert(list.end(), packet.begin(), packet.end());
      }
      seeds.push_back(list);
    }
  }
  // A message of two packets; reads and atomics of every region.
  for (const uint8_t first :
       {uint8_t{0}, uint8_t{6}, kFirstUcOpcode, uint8_t{kFirstUcOpcode + 6}}) {
    Bytes list = {3, 8, 200};
    for (const uint8_t opcode : {first, uint8_t(first + 1), uint8_t(first + 2)}) {
      const Bytes packet = {8, opcode, 0, 1, 0, 96, 1, 1, 0, 1, 0, 0x33};
      list.insert(list.end(), packet.begin(), packet.end());
    }
    seeds.push_back(list);
  }
  for (uint8_t region = 0; region < World::kRegions; ++region) {
    for (const uint8_t opcode : {uint8_t{10}, uint8_t{12}, uint8_t{19}, uint8_t{20}}) {
      seeds.push_back(
          {8, opcode, 0, static_cast<uint8_t>(1 | region << 2), 0, 32, 1, 1, 0, 1, 0, 0x33, 5, 31});
    }
  }
  return seeds;
}

}  // namespace sumac::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto world = std::make_unique<sumac::fuzz::World>();
  sumac::fuzz::InputReader in(data, std::min<size_t>(size, 2048));
  while (!in.empty()) world->Step(in);
  world->Finish();
  return 0;
}
