#include "tests/simulation/mailbox.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "verbs/soft_nic/wire/grh.h"

namespace sumac::soft_nic::simulation {
namespace {

constexpr std::byte kUntouched{0xee};

// Between two rounds of posting, at least.
constexpr Duration kPause = std::chrono::microseconds(1);
constexpr Duration kPauseWhenFull = std::chrono::microseconds(20);

bool IsWrite(ibv_wr_opcode opcode) {
  return opcode == IBV_WR_RDMA_WRITE || opcode == IBV_WR_RDMA_WRITE_WITH_IMM;
}
bool HasImmediate(ibv_wr_opcode opcode) {
  return opcode == IBV_WR_SEND_WITH_IMM || opcode == IBV_WR_RDMA_WRITE_WITH_IMM;
}

}  // namespace

void Mailbox::Start() {
  for (size_t i = 0; i < senders_.size(); ++i) Connect(i);
  for (size_t buffer = 0; buffer < posted_.size(); ++buffer) PostBuffer(buffer);
  for (size_t i = 0; i < senders_.size(); ++i) PostSome(i);
}

// Posts a few letters, and comes again later.
void Mailbox::PostSome(size_t index) {
  Sender& sender = senders_[index];
  uint64_t burst = random_.Between(1, 8);
  Duration pause = kPause;
  for (; burst > 0 && sender.posted < sender.letters.size(); --burst) {
    if (!PostLetter(sender, sender.letters[sender.posted])) {
      pause = kPauseWhenFull;
      break;
    }
    ++sender.posted;
  }
  sender.endpoint->Ring();
  if (sender.posted == sender.letters.size()) return;
  const auto gap = static_cast<uint64_t>(options_.post_gap_max.count());
  network_.After(pause + Duration(static_cast<int64_t>(random_.Below(gap + 1))),
                 [this, index] { PostSome(index); });
}

// False when the queue is full.
bool Mailbox::PostLetter(Sender& sender, const Letter& letter) {
  const uint64_t addr = reinterpret_cast<uint64_t>(&sender.memory[letter.offset]);
  const auto head = static_cast<uint32_t>(random_.Below(letter.length + 1));
  ibv_sge sges[2] = {{addr, head, sender.key}, {addr + head, letter.length - head, sender.key}};
  ibv_send_wr wr{};
  wr.wr_id = sender.posted;
  wr.sg_list = sges;
  wr.num_sge = 2;
  wr.opcode = letter.opcode;
  wr.send_flags = letter.flags;
  wr.imm_data = static_cast<uint32_t>(sender.posted);
  if (datagrams()) {
    wr.wr.ud = {&handle_, receivers_[0]->qp().qpn(), letter.bad_qkey ? qpn_ + 1 : qpn_};
  } else {
    wr.wr.rdma = {reinterpret_cast<uint64_t>(memory_.data() + letter.zone), key_};
  }
  const int error = sender.endpoint->qp().PostSend(wr);
  if (error != 0 && error != ENOMEM) {
    Complain(0, "post refused with errno " + std::to_string(error));
  }
  return error == 0;
}

void Mailbox::PostBuffer(size_t buffer) {
  const uint64_t addr = reinterpret_cast<uint64_t>(&memory_[buffer * stride_]);
  const auto head = static_cast<uint32_t>(random_.Below(buffer_bytes_));
  ibv_sge sges[2] = {{addr, head, key_},
                     {addr + head, static_cast<uint32_t>(buffer_bytes_) - head, key_}};
  ibv_recv_wr wr{};
  wr.wr_id = buffer;
  wr.sg_list = sges;
  wr.num_sge = 2;
  const int error = shared_ != nullptr
                        ? shared_->Post(wr)
                        : receivers_[buffer % receivers_.size()]->qp().PostReceive(wr);
  if (error != 0) Complain(0, "receive refused with errno " + std::to_string(error));
  posted_[buffer] = true;
}

void Mailbox::OnSend(size_t index, const ibv_wc& completion) {
  Sender& sender = senders_[index];
  network_.Trace(completion.wr_id << 8 | completion.status);
  const auto id = static_cast<size_t>(completion.wr_id);
  if (id < sender.completed || id >= sender.posted) {
    return Complain(index, "completion of letter " + std::to_string(id) + " out of order");
  }
  for (size_t skipped = sender.completed; skipped < id; ++skipped) {
    if (sender.failed || (sender.letters[skipped].flags & IBV_SEND_SIGNALED) != 0) {
      Complain(index, "no completion of letter " + std::to_string(skipped));
    }
  }
  sender.completed = id + 1;
  ibv_wc_status expected = IBV_WC_SUCCESS;
  if (sender.failed) {
    expected = IBV_WC_WR_FLUSH_ERR;
  } else if (completion.status != IBV_WC_SUCCESS && options_.may_break) {
    sender.failed = true;
    expected = IBV_WC_RETRY_EXC_ERR;
  }
  if (completion.status != expected) {
    Complain(index, "letter " + std::to_string(id) + " completed with " +
                        ibv_wc_status_str(completion.status));
  }
}

void Mailbox::OnReceive(size_t receiver, const ibv_wc& completion) {
  network_.Trace(completion.wr_id << 16 | completion.status);
  ++completions_[receiver];
  const size_t buffer = completion.wr_id;
  if (buffer >= posted_.size() || !posted_[buffer]) {
    return Complain(receiver, "a buffer completed that was not posted");
  }
  posted_[buffer] = false;
  if (completion.status != IBV_WC_SUCCESS) {
    return Complain(
        receiver, std::string("a receive completed with ") + ibv_wc_status_str(completion.status));
  }
  const size_t index = datagrams() ? (completion.src_qp - qpn_) / 2 : receiver;
  if (index >= senders_.size() || completion.src_qp != senders_[index].endpoint->qp().qpn()) {
    return Complain(receiver, "a letter from nobody");
  }
  const std::byte* at = &memory_[buffer * stride_ + (datagrams() ? kGrhBytes : 0)];
  uint32_t number = completion.imm_data;
  if ((completion.wc_flags & IBV_WC_WITH_IMM) == 0) std::memcpy(&number, at, sizeof(number));
  if (number >= options_.letters) return Complain(index, "a letter that nobody wrote");
  CheckLetter(index, number, completion, at);
  CheckOrder(index, number);
  const auto most = static_cast<uint64_t>(options_.return_delay_max.count());
  network_.After(Duration(static_cast<int64_t>(random_.Below(most + 1))),
                 [this, buffer] { PostBuffer(buffer); });
}

void Mailbox::CheckLetter(size_t index, uint32_t number, const ibv_wc& completion,
                          const std::byte* at) {
  const Sender& sender = senders_[index];
  const Letter& letter = sender.letters[number];
  const std::string name = "letter " + std::to_string(number);
  const bool write = IsWrite(letter.opcode);
  unsigned flags = 0;
  if (datagrams()) flags |= IBV_WC_GRH;
  if (HasImmediate(letter.opcode)) flags |= IBV_WC_WITH_IMM;
  if (completion.opcode != (write ? IBV_WC_RECV_RDMA_WITH_IMM : IBV_WC_RECV) ||
      completion.byte_len != letter.length + (datagrams() ? kGrhBytes : 0) ||
      completion.wc_flags != flags) {
    return Complain(index, name + " announced wrongly");
  }
  if (letter.bad_qkey || !letter.sent) Complain(index, name + " must not arrive");
  const std::byte* const bytes = write ? &memory_[letter.zone] : at;
  if (std::memcmp(bytes, &sender.memory[letter.offset], letter.length) != 0) {
    Complain(index, name + " has wrong bytes");
  }
  if (!datagrams()) return;
  const auto grh = ReadGrh(std::span<const std::byte, kGrhBytes>(at - kGrhBytes, kGrhBytes));
  if (!grh || grh->source != NodeAddress(sender.node) || grh->destination != NodeAddress(node_)) {
    Complain(index, name + " has a wrong GRH");
  }
}

void Mailbox::CheckOrder(size_t index, uint32_t number) {
  Sender& sender = senders_[index];
  Letter& letter = sender.letters[number];
  ++letter.received;
  if (letter.received > sender.arrivals[letter.last_psn]) {
    Complain(index, "letter " + std::to_string(number) + " more often than the wire brought it");
  }
  const bool once = options_.service == IBV_QPT_RC || options_.orderly;
  if (once && number < sender.next) {
    Complain(index, "letter " + std::to_string(number) + " again, or too late");
  }
  for (size_t i = sender.next; options_.service == IBV_QPT_RC && i < number; ++i) {
    if (sender.letters[i].opcode != IBV_WR_RDMA_WRITE) {
      Complain(index, "letter " + std::to_string(i) + " is missing");
    }
  }
  sender.next = number + 1;
}

bool Mailbox::finished() const {
  for (const Sender& sender : senders_) {
    if (sender.completed < sender.letters.size()) return false;
    if (options_.service != IBV_QPT_RC || sender.failed) continue;
    for (const Letter& letter : sender.letters) {
      if (letter.opcode != IBV_WR_RDMA_WRITE && letter.received == 0) return false;
    }
  }
  return true;
}

// A WRITE's place holds its bytes or none; RC's holds all of them.
void Mailbox::CheckZones(size_t index) {
  const Sender& sender = senders_[index];
  for (const Letter& letter : sender.letters) {
    if (!IsWrite(letter.opcode)) continue;
    bool all = true;
    bool foreign = false;
    for (uint32_t i = 0; i < letter.length; ++i) {
      const bool written = memory_[letter.zone + i] == sender.memory[letter.offset + i];
      all &= written;
      foreign |= !written && memory_[letter.zone + i] != kUntouched;
    }
    if (foreign) Complain(index, "a WRITE's place has bytes that nobody sent");
    if (memory_[letter.zone + letter.length] != kUntouched) Complain(index, "a WRITE ran over");
    if (!all && options_.service == IBV_QPT_RC && !sender.failed) {
      Complain(index, "a WRITE did not arrive");
    }
  }
}

void Mailbox::CheckReceiver(size_t index) {
  Endpoint& receiver = *receivers_[index];
  const QueuePairCounters& counters = receiver.qp().counters();
  if (receiver.delivered != counters.packets_received) {
    Complain(index, "packets_received is not what was delivered");
  }
  if (receiver.qp().state() != IBV_QPS_RTS) Complain(index, "the mailbox left RTS");
  if (datagrams() &&
      counters.packets_received != completions_[index] + counters.dropped_no_receive +
                                       counters.dropped_bad_qkey + counters.cnps_received) {
    Complain(index, "datagrams are neither received nor counted as dropped");
  }
  if (!options_.clean || counters.dropped_no_receive != 0) return;
  for (size_t i = 0; i < senders_.size(); ++i) {
    if (!datagrams() && i != index) continue;
    for (const Letter& letter : senders_[i].letters) {
      const bool due = letter.opcode != IBV_WR_RDMA_WRITE && letter.sent && !letter.bad_qkey;
      if (letter.received != (due ? 1 : 0)) Complain(i, "a clean wire, yet a letter is missing");
    }
  }
}

void Mailbox::CheckAtEnd() {
  for (size_t i = 0; i < senders_.size(); ++i) {
    QueuePair& qp = senders_[i].endpoint->qp();
    if (qp.NextTimeout() != kNever) Complain(i, "a timer still runs");
    if ((qp.state() == IBV_QPS_ERR) != senders_[i].failed) Complain(i, "wrong state at the end");
    CheckZones(i);
  }
  for (size_t i = 0; i < receivers_.size(); ++i) CheckReceiver(i);
  for (size_t buffer = 0; buffer < posted_.size(); ++buffer) {
    const auto guard = memory_.begin() + static_cast<ptrdiff_t>(buffer * stride_ + buffer_bytes_);
    if (std::any_of(guard, guard + static_cast<ptrdiff_t>(stride_ - buffer_bytes_),
                    [](std::byte byte) { return byte != kUntouched; })) {
      Complain(0, "bytes after a buffer changed");
    }
  }
}

std::string Mailbox::Progress() const {
  std::string text;
  for (const Sender& sender : senders_) {
    size_t received = 0;
    for (const Letter& letter : sender.letters) received += letter.received;
    text += ' ';
    text += std::to_string(sender.completed) + "/" + std::to_string(sender.letters.size()) +
            " letters, " + std::to_string(received) + " received;";
  }
  return text;
}

std::vector<QueuePairCounters> Mailbox::counters() const {
  std::vector<QueuePairCounters> all;
  for (const Sender& sender : senders_) all.push_back(sender.endpoint->qp().counters());
  for (const auto& receiver : receivers_) all.push_back(receiver->qp().counters());
  return all;
}

uint64_t Mailbox::completed() const {
  uint64_t sum = 0;
  for (const Sender& sender : senders_) sum += sender.completed;
  return sum;
}

uint32_t Mailbox::broken() const {
  return static_cast<uint32_t>(
      std::count_if(senders_.begin(), senders_.end(), [](const Sender& s) { return s.failed; }));
}

void Mailbox::Complain(size_t index, const std::string& what) {
  if (complaints_.size() > 2000) return;
  static constexpr const char* kNames[] = {"?", "?", "RC", "UC", "UD"};
  complaints_ += std::string("mailbox ") + kNames[std::min<size_t>(options_.service, 4)] + " " +
                 std::to_string(qpn_) + ", sender " + std::to_string(index) + ": " + what + "\n";
}

}  // namespace sumac::soft_nic::simulation
