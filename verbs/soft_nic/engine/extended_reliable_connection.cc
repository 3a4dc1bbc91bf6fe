#include "verbs/soft_nic/engine/extended_reliable_connection.h"

#include "verbs/soft_nic/engine/xrc_selection.h"

namespace sumac::soft_nic {
namespace {

constexpr uint8_t kOperationBits = 0x1f;
constexpr uint8_t kTransport = 0xa0;

class ExtendedSink : public TransmitSink {
 public:
  explicit ExtendedSink(TransmitSink& sink) : sink_(sink) {}
  bool Transmit(const OutgoingPacket& packet) override {
    OutgoingPacket extended = packet;
    extended.header.opcode =
        static_cast<Opcode>(static_cast<uint8_t>(packet.header.opcode) | kTransport);
    return sink_.Transmit(extended);
  }

 private:
  TransmitSink& sink_;
};

}  // namespace

void ExtendedReliableConnection::OnPacket(const PacketView& packet, const Gid& source,
                                          ibv_qp_state state, Time now) {
  const bool is_request = (packet.flags & kIsRequest) != 0;
  if (is_request != is_target_) {
    ++counters_.dropped_wrong_state;
    return;
  }
  PacketView reliable = packet;
  reliable.header.opcode =
      static_cast<Opcode>(static_cast<uint8_t>(packet.header.opcode) & kOperationBits);
  ReliableConnection::OnPacket(reliable, source, state, now);
}

bool ExtendedReliableConnection::PollTransmit(TransmitSink& sink, ibv_qp_state state, Time now,
                                              uint32_t budget) {
  ExtendedSink extended(sink);
  return ReliableConnection::PollTransmit(extended, state, now, budget);
}

void ExtendedReliableConnection::ForgetReceives(const SharedReceiveQueue& queue) {
  if (selection_ != nullptr && selection_->Forget(queue)) responder_.ForgetMessage();
}

}  // namespace sumac::soft_nic
