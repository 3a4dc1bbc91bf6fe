#include "tests/conformance/player.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "tests/conformance/setup.h"

namespace sumac::conformance {
namespace {

// The device did something else than the script expects.
class Mismatch : public std::runtime_error {
 public:
  Mismatch(const std::string& expected, const std::string& came)
      : std::runtime_error("expected " + expected + "; came " + came) {}
};

constexpr std::array<std::pair<const char*, ibv_wc_status>, 12> kStatuses = {
    {{"ok", IBV_WC_SUCCESS},
     {"flushed", IBV_WC_WR_FLUSH_ERR},
     {"retry_exceeded", IBV_WC_RETRY_EXC_ERR},
     {"rnr_retry_exceeded", IBV_WC_RNR_RETRY_EXC_ERR},
     {"remote_access_error", IBV_WC_REM_ACCESS_ERR},
     {"remote_invalid_request", IBV_WC_REM_INV_REQ_ERR},
     {"remote_operation_error", IBV_WC_REM_OP_ERR},
     {"local_length_error", IBV_WC_LOC_LEN_ERR},
     {"local_protection_error", IBV_WC_LOC_PROT_ERR},
     {"local_operation_error", IBV_WC_LOC_QP_OP_ERR},
     {"bad_response", IBV_WC_BAD_RESP_ERR},
     {"invalid_rd_request", IBV_WC_REM_INV_RD_REQ_ERR}}};

std::string NameOfStatus(ibv_wc_status status) {
  for (const auto& [name, each] : kStatuses) {
    if (status == each) return name;
  }
  return "status " + std::to_string(status);
}

struct Work {
  ibv_wr_opcode posted;
  ibv_wc_opcode completed;
};
const std::map<std::string, Work>& Works() {
  static const std::map<std::string, Work> works = {
      {"SEND", {IBV_WR_SEND, IBV_WC_SEND}},
      {"SEND_IMM", {IBV_WR_SEND_WITH_IMM, IBV_WC_SEND}},
      {"SEND_INV", {IBV_WR_SEND_WITH_INV, IBV_WC_SEND}},
      {"WRITE", {IBV_WR_RDMA_WRITE, IBV_WC_RDMA_WRITE}},
      {"WRITE_IMM", {IBV_WR_RDMA_WRITE_WITH_IMM, IBV_WC_RDMA_WRITE}},
      {"READ", {IBV_WR_RDMA_READ, IBV_WC_RDMA_READ}},
      {"CMP_SWAP", {IBV_WR_ATOMIC_CMP_AND_SWP, IBV_WC_COMP_SWAP}},
      {"FETCH_ADD", {IBV_WR_ATOMIC_FETCH_AND_ADD, IBV_WC_FETCH_ADD}},
  };
  return works;
}

int ParseErrno(const std::string& word) {
  if (word == "EINVAL") return EINVAL;
  if (word == "ENOMEM") return ENOMEM;
  throw ScriptError("'" + word + "' is no error of a post (EINVAL, ENOMEM)");
}

std::string Describe(const Completion& completion) {
  const ibv_wc& wc = completion.wc;
  std::ostringstream text;
  text << wc.wr_id << " " << NameOfStatus(wc.status);
  if (wc.status != IBV_WC_SUCCESS) return text.str();
  text << " bytes " << wc.byte_len;
  if ((wc.wc_flags & IBV_WC_WITH_IMM) != 0) text << " imm 0x" << std::hex << ntohl(wc.imm_data);
  if ((wc.wc_flags & IBV_WC_WITH_INV) != 0) {
    text << " invalidated 0x" << std::hex << wc.invalidated_rkey;
  }
  if (wc.opcode == IBV_WC_RECV_RDMA_WITH_IMM) text << " written";
  if (completion.solicited) text << " solicited";
  return text.str();
}

// How long an `expect` may wait, and how long it must have waited.
struct Window {
  Duration from{};
  Duration to{};
};

Window TakeWindow(Words* words) {
  if (const auto after = words->Time("after")) return {*after, *after};
  if (const auto within = words->Time("within")) return {Duration::zero(), *within};
  if (const auto from = words->Time("between")) {
    const auto to = words->Time("and");
    if (!to) throw ScriptError("between TIME and TIME");
    return {*from, *to};
  }
  return {};
}

class Player {
 public:
  Player(const Case& script, const MakeDevice& make) : script_(script), make_(make) {}

  std::optional<std::string> Run() {
    int number = script_.line;
    try {
      size_t at = 0;
      Setup setup = DefaultSetup();
      for (; at < script_.lines.size() && script_.lines[at].words[0] == "with"; ++at) {
        number = script_.lines[at].number;
        ApplyWith(Rest(script_.lines[at]), &setup);
      }
      device_ = make_(setup);
      known_.assign(device_->memory().begin(), device_->memory().end());
      for (; at < script_.lines.size(); ++at) {
        number = script_.lines[at].number;
        Step(script_.lines[at]);
      }
      number = 0;
      ExpectNothingLeft();
    } catch (const Mismatch& mismatch) {
      return Where(number) + mismatch.what() + History();
    } catch (const ScriptError& error) {
      return Where(number) + "script: " + error.what();
    } catch (const std::exception& error) {
      return Where(number) + error.what() + History();
    }
    return std::nullopt;
  }

 private:
  static Words Rest(const Line& line) { return Words({line.words.begin() + 1, line.words.end()}); }

  std::string Where(int number) const {
    const std::string line = number == 0 ? "end" : std::to_string(number);
    return script_.file + ":" + line + ": " + script_.name + ": ";
  }

  // What went to and fro, for who reads the message.
  std::string History() const {
    std::string text;
    const size_t shown = 12;
    const size_t from = history_.size() > shown ? history_.size() - shown : 0;
    for (size_t i = from; i < history_.size(); ++i) text += "\n    " + history_[i];
    return text;
  }

  void Log(const std::string& what) { history_.push_back(ToText(device_->now()) + "  " + what); }

  void Step(const Line& line) {
    const std::string& verb = line.words.front();
    Words words = Rest(line);
    if (verb == "post") {
      Post(&words);
    } else if (verb == "peer") {
      PacketText text = TakePacket(&words, *device_, true);
      Log("peer   " + conformance::Describe(text.packet));
      words.Finish();
      device_->Inject(text.packet);
    } else if (verb == "expect") {
      Expect(&words);
    } else if (verb == "wait") {
      device_->Wait(ParseDuration(words.Next("a time")));
    } else if (verb == "link") {
      Link(&words);
    } else if (verb == "enter") {
      device_->Enter(ParseState(words.Next("a state")));
    } else if (verb == "rights") {
      device_->SetRights(ParseRights(words.Next("rights")));
    } else if (verb == "deregister") {
      device_->Deregister(NamedKey(words.Next("a key")));
    } else if (verb == "set") {
      SetWord(&words);
    } else if (verb == "with") {
      throw ScriptError("'with' stands before everything else");
    } else {
      throw ScriptError("no line begins with '" + verb + "'");
    }
    words.Finish();
  }

  static Key NamedKey(const std::string& word) {
    const std::optional<Key> key = KeyNamed(word);
    if (!key) throw ScriptError("'" + word + "' is no key");
    return *key;
  }

  void Link(Words* words) {
    const std::string state = words->Next("full or free");
    if (state != "full" && state != "free") throw ScriptError("a link is full or free");
    if (!device_->SetLink(state == "free")) throw ScriptError("this device's link can't be held");
  }

  void Post(Words* words) {
    const std::string kind = words->Next("what to post");
    const int expected = ParseErrno(words->Value("fails"));
    const std::optional<uint64_t> id = words->Number("id");
    if (!id) throw ScriptError("posted work has an id");
    const Key key = NamedKey(words->Value("local_key").value_or("ours"));
    int error = 0;
    if (kind == "RECEIVE") {
      ReceiveWork work{*id, ParseRanges(words->Value("into").value_or("")), key};
      words->Finish();
      error = device_->PostReceive(work);
    } else {
      const auto known = Works().find(kind);
      if (known == Works().end()) throw ScriptError("nothing called '" + kind + "' can be posted");
      SendWork work = TakeSendWork(*id, known->second.posted, key, words);
      completed_as_[*id] = known->second.completed;
      error = device_->Post(work);
    }
    if (error != expected) {
      throw Mismatch("the post to return " + std::to_string(expected), std::to_string(error));
    }
  }

  static int ParseErrno(const std::optional<std::string>& word) {
    return word ? conformance::ParseErrno(*word) : 0;
  }

  static SendWork TakeSendWork(uint64_t id, ibv_wr_opcode opcode, Key key, Words* words) {
    SendWork work;
    work.id = id;
    work.opcode = opcode;
    work.local_key = key;
    // Where a READ's or atomic's answer goes reads better as "into".
    for (const char* word : {"from", "into"}) {
      if (const auto ranges = words->Value(word)) work.from = ParseRanges(*ranges);
    }
    work.remote_addr = words->Number("at").value_or(0);
    work.rkey = static_cast<uint32_t>(words->Number("key").value_or(0x77));
    work.immediate = static_cast<uint32_t>(words->Number("imm").value_or(0));
    if (const auto inv = words->Number("invalidate")) work.immediate = static_cast<uint32_t>(*inv);
    work.swap = words->Number("swap").value_or(0);
    work.compare_add = words->Number("compare").value_or(words->Number("add").value_or(0));
    if (!words->Flag("unsignaled")) work.flags |= IBV_SEND_SIGNALED;
    if (words->Flag("fenced")) work.flags |= IBV_SEND_FENCE;
    if (words->Flag("solicited")) work.flags |= IBV_SEND_SOLICITED;
    if (words->Flag("inline")) work.flags |= IBV_SEND_INLINE;
    words->Finish();
    return work;
  }

  void SetWord(Words* words) {
    if (!words->NextIs("word")) throw ScriptError("set word OFFSET to NUMBER");
    const uint64_t offset = ParseNumber(words->Next("an offset"));
    const std::optional<uint64_t> value = words->Number("to");
    if (!value || offset + sizeof(*value) > kMemoryBytes) {
      throw ScriptError("set word OFFSET to NUMBER");
    }
    std::memcpy(device_->memory().data() + offset, &*value, sizeof(*value));
    std::memcpy(known_.data() + offset, &*value, sizeof(*value));
  }

  void Expect(Words* words) {
    if (words->empty()) throw ScriptError("expect what?");
    if (words->NextIs("nothing")) return ExpectNothing(words->Time("for").value_or(Duration{}));
    if (words->NextIs("completed")) return ExpectCompletion(words, false);
    if (words->NextIs("received")) return ExpectCompletion(words, true);
    if (words->NextIs("no")) {
      if (!words->NextIs("completion")) throw ScriptError("expect no completion");
      return ExpectNoCompletion();
    }
    if (words->NextIs("memory")) return ExpectMemory(words);
    if (words->NextIs("word")) return ExpectWord(words);
    if (words->NextIs("state")) {
      const ibv_qp_state state = ParseState(words->Next("a state"));
      if (device_->state() != state) {
        throw Mismatch("state " + NameOf(state), NameOf(device_->state()));
      }
      return;
    }
    if (words->NextIs("counter")) {
      const std::string name = words->Next("a counter");
      const uint64_t value = ParseNumber(words->Next("a number"));
      const std::optional<uint64_t> counted = device_->Counter(name);
      if (counted && *counted != value) {
        throw Mismatch(name + " " + std::to_string(value), std::to_string(*counted));
      }
      return;
    }
    ExpectPacket(words);
  }

  void ExpectPacket(Words* words) {
    const Window window = TakeWindow(words);
    const PacketText text = TakePacket(words, *device_, false);
    words->Finish();
    const std::string expected = conformance::Describe(text.packet);
    const Duration begin = device_->now();
    const std::optional<Packet> packet = device_->NextPacket(window.to);
    if (!packet) throw Mismatch(expected, "nothing by " + ToText(device_->now()));
    Log("device " + conformance::Describe(*packet));
    const std::string difference = Difference(text, *packet);
    if (!difference.empty()) {
      throw Mismatch(expected, conformance::Describe(*packet) + " (" + difference + ")");
    }
    const Duration waited = std::max(packet->at - begin, Duration::zero());
    CheckWindow(window, waited, expected);
  }

  static void CheckWindow(const Window& window, Duration waited, const std::string& expected) {
    if (waited < window.from) {
      throw Mismatch(expected + " no earlier than after " + ToText(window.from),
                     "it after " + ToText(waited));
    }
  }

  void ExpectNothing(Duration patience) {
    const std::optional<Packet> packet = device_->NextPacket(patience);
    if (packet) {
      throw Mismatch("no packet", conformance::Describe(*packet) + " at " + ToText(packet->at));
    }
  }

  void ExpectNoCompletion() {
    for (const bool receive : {false, true}) {
      const std::optional<Completion> completion = device_->NextCompletion(receive, Duration{});
      if (completion) {
        throw Mismatch("no completion",
                       std::string(receive ? "received " : "completed ") + Describe(*completion));
      }
    }
  }

  void ExpectCompletion(Words* words, bool receive) {
    const Window window = TakeWindow(words);
    Completion want;
    want.wc.wr_id = ParseNumber(words->Next("an id"));
    const std::string status = words->Next("a status");
    const auto* known = std::find_if(kStatuses.begin(), kStatuses.end(),
                                     [&status](const auto& each) { return status == each.first; });
    if (known == kStatuses.end()) throw ScriptError("'" + status + "' is no status");
    want.wc.status = known->second;
    const std::optional<uint64_t> bytes = words->Number("bytes");
    const std::optional<uint64_t> imm = words->Number("imm");
    const std::optional<std::string> invalidated = words->Value("invalidated");
    const bool written = words->Flag("written");
    const bool solicited = words->Flag("solicited");
    words->Finish();
    const std::string expected = std::string(receive ? "received " : "completed ") +
                                 std::to_string(want.wc.wr_id) + " " + status;

    const Duration begin = device_->now();
    const std::optional<Completion> have = device_->NextCompletion(receive, window.to);
    if (!have) throw Mismatch(expected, "none by " + ToText(device_->now()));
    Log(std::string(receive ? "received  " : "completed ") + Describe(*have));
    CheckWindow(window, device_->now() - begin, expected);
    const ibv_wc& wc = have->wc;
    const auto differs = [&](const std::string& what) {
      throw Mismatch(expected + " " + what, Describe(*have));
    };
    if (wc.wr_id != want.wc.wr_id || wc.status != want.wc.status) differs("");
    if (wc.qp_num != kDeviceQpn) differs("of this queue pair");
    if (wc.status != IBV_WC_SUCCESS) return;  // only id, status and queue pair are defined then
    if (bytes && wc.byte_len != *bytes) differs("bytes " + std::to_string(*bytes));
    if (!receive) {
      if (completed_as_.count(wc.wr_id) != 0 && wc.opcode != completed_as_[wc.wr_id]) {
        differs("with the opcode of what was posted");
      }
      return;
    }
    if (imm.has_value() != ((wc.wc_flags & IBV_WC_WITH_IMM) != 0) ||
        (imm && ntohl(wc.imm_data) != *imm)) {
      differs(imm ? "with that immediate" : "without immediate");
    }
    if (invalidated.has_value() != ((wc.wc_flags & IBV_WC_WITH_INV) != 0) ||
        (invalidated && wc.invalidated_rkey != device_->KeyOf(NamedKey(*invalidated)))) {
      differs(invalidated ? "with that key invalidated" : "without an invalidated key");
    }
    if (wc.opcode != (written ? IBV_WC_RECV_RDMA_WITH_IMM : IBV_WC_RECV)) {
      differs(written ? "written" : "sent");
    }
    if (have->solicited != solicited) differs(solicited ? "solicited" : "not solicited");
  }

  void ExpectMemory(Words* words) {
    const std::vector<Range> ranges = ParseRanges(words->Next("a range"));
    const bool unchanged = words->Flag("unchanged");
    const std::optional<uint64_t> fill = words->Number("fill");
    const std::optional<uint64_t> data = words->Number("data");
    if (static_cast<int>(unchanged) + (fill ? 1 : 0) + (data ? 1 : 0) != 1) {
      throw ScriptError("expect memory RANGE fill NUMBER, data OFFSET, or unchanged");
    }
    size_t done = 0;
    for (const Range& range : ranges) {
      if (range.offset + range.length > kMemoryBytes) throw ScriptError("beyond the memory");
      for (size_t i = 0; i < range.length; ++i, ++done) {
        const size_t at = range.offset + i;
        std::byte want = known_[at];
        if (fill) want = static_cast<std::byte>(*fill);
        if (data) want = PatternAt(*data + done);
        ExpectByte(at, want);
        known_[at] = want;
      }
    }
  }

  void ExpectWord(Words* words) {
    const uint64_t offset = ParseNumber(words->Next("an offset"));
    const std::optional<uint64_t> value = words->Number("is");
    if (!value || offset + sizeof(*value) > kMemoryBytes) {
      throw ScriptError("expect word OFFSET is NUMBER");
    }
    for (size_t i = 0; i < sizeof(*value); ++i) {
      const auto want = static_cast<std::byte>(*value >> (8 * i));
      ExpectByte(offset + i, want);
      known_[offset + i] = want;
    }
  }

  void ExpectByte(size_t at, std::byte want) const {
    const std::byte have = device_->memory()[at];
    if (have == want) return;
    throw Mismatch(
        "byte " + std::to_string(at) + " to be " + std::to_string(std::to_integer<int>(want)),
        std::to_string(std::to_integer<int>(have)));
  }

  void ExpectNothingLeft() {
    ExpectNothing(Duration{});
    ExpectNoCompletion();
    for (size_t i = 0; i < known_.size(); ++i) ExpectByte(i, known_[i]);
  }

  const Case& script_;
  const MakeDevice& make_;
  std::unique_ptr<Device> device_;
  std::vector<std::byte> known_;  // memory as the script knows it
  std::map<uint64_t, ibv_wc_opcode> completed_as_;
  std::vector<std::string> history_;
};

}  // namespace

std::optional<std::string> Play(const Case& script, const MakeDevice& make) {
  return Player(script, make).Run();
}

}  // namespace sumac::conformance
