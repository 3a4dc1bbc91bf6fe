// Many nodes write letters to one mailbox, over RC, UC or UD, often through a shared receive queue.
//
// A letter says who wrote it and which one it is, so whatever order the network makes of them, the
// mailbox can hold each service to its promise:
//   RC  every letter once, in its sender's order
//   UC  whole letters, each at most as often as the wire brought its last packet; in order, and
//       once, where the wire neither reorders nor repeats; of a WRITE no byte but its own
//   UD  a datagram is as it was sent or it does not come; never with a wrong Q_Key; no more often
//       than the wire brought it; every packet that came is in a completion or in a drop counter
// and each sender: one completion per request, in order. On a clean network everything arrives for
// which there was a buffer.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/simulation/endpoint.h"
#include "verbs/soft_nic/engine/address_handle.h"
#include "verbs/soft_nic/engine/shared_receive_queue.h"

namespace sumac::soft_nic::simulation {

struct MailboxOptions {
  ibv_qp_type service = IBV_QPT_RC;
  uint32_t mtu = 1024;
  uint32_t letters = 20;  // of each sender
  uint32_t letter_bytes_max = 4000;
  uint32_t buffers = 8;
  bool shared = true;  // one shared receive queue; otherwise each queue pair has its own buffers
  uint32_t max_wr = 16;
  uint8_t ack_timeout = 14;
  uint8_t rnr_timer = 6;
  uint32_t first_psn = 0;
  Duration post_gap_max{};
  Duration return_delay_max{};  // before a buffer that was read is posted again
  uint32_t refuse_rate = 0;
  CongestionOptions congestion;
  bool may_break = false;  // RC: faults can last longer than the retries
  bool orderly = false;    // the wire neither reorders nor repeats
  bool clean = false;      // the wire does nothing wrong at all
};

struct MailboxSender {
  uint32_t node;
  Way way;  // to the mailbox and back
};

class Mailbox {
 public:
  // Takes 2 * senders numbers from `qpn` on.
  Mailbox(VirtualNetwork& network, uint32_t node, const std::vector<MailboxSender>& senders,
          uint32_t qpn, const MailboxOptions& options);

  void Start();
  bool finished() const;
  void CheckAtEnd();
  // Everything that went wrong, in words; empty when nothing did.
  const std::string& complaints() const { return complaints_; }
  std::string Progress() const;
  std::vector<QueuePairCounters> counters() const;
  uint64_t completed() const;
  uint32_t broken() const;  // connections that said "retries exceeded"

 private:
  struct Letter {
    ibv_wr_opcode opcode;
    uint64_t offset;  // in its sender's memory
    uint32_t length;
    uint64_t zone = 0;  // WRITE: where, in the mailbox's memory
    uint32_t last_psn = 0;
    unsigned flags = 0;
    bool sent = true;  // UD: not too long
    bool bad_qkey = false;
    uint32_t received = 0;
  };
  struct Sender {
    std::unique_ptr<Endpoint> endpoint;
    uint32_t node = 0;
    std::vector<std::byte> memory;
    uint32_t key = 0;
    std::vector<Letter> letters;
    size_t posted = 0;
    size_t completed = 0;
    size_t next = 0;  // after the last letter that was received
    bool failed = false;
    std::map<uint32_t, uint32_t> arrivals;  // PSN of a message's last packet -> how often it came
  };

  uint32_t PacketsOfLetter(const Letter& letter) const;
  void DrawLetters(Sender& sender);
  void MakeReceivers(const std::vector<MailboxSender>& senders, uint32_t qpn);
  void MakeSender(const MailboxSender& place, uint32_t qpn);
  bool datagrams() const { return options_.service == IBV_QPT_UD; }

  void Connect(size_t index);
  void PostSome(size_t index);
  bool PostLetter(Sender& sender, const Letter& letter);
  void PostBuffer(size_t buffer);
  void OnSend(size_t index, const ibv_wc& completion);
  void OnReceive(size_t receiver, const ibv_wc& completion);
  void CheckLetter(size_t index, uint32_t number, const ibv_wc& completion, const std::byte* at);
  void CheckOrder(size_t index, uint32_t number);
  void CheckZones(size_t index);
  void CheckReceiver(size_t index);
  void Complain(size_t index, const std::string& what);

  VirtualNetwork& network_;
  const MailboxOptions options_;
  const uint32_t node_;
  const uint32_t qpn_;
  Random random_;
  AddressHandle handle_{};  // the mailbox's
  testing::TestMemory keys_;
  std::unique_ptr<SharedReceiveQueue> shared_;
  std::vector<Sender> senders_;
  std::vector<std::unique_ptr<Endpoint>> receivers_;  // one per sender; UD: one for all
  std::vector<std::byte> memory_;
  uint32_t key_ = 0;
  uint64_t buffer_bytes_ = 0;
  uint64_t stride_ = 0;  // from buffer to buffer
  std::vector<bool> posted_;
  std::vector<uint64_t> completions_;  // of each receiver
  std::string complaints_;
};

}  // namespace sumac::soft_nic::simulation
