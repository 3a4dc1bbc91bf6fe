#include "tests/conformance/player.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <stdexcept>
#include <utility>

#include "tests/conformance/setup.h"
#include "tests/conformance/work_text.h"
#include "verbs/soft_nic/wire/grh.h"

namespace sumac::conformance {
namespace {

// The device did something else than the script expects.
class Mismatch : public std::runtime_error {
 public:
  Mismatch(const std::string& expected, const std::string& came)
      : std::runtime_error("expected " + expected + "; came " + came) {}
};

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

// In real time a device may be late by as much as the machine is busy; it is not early, but what
// it counts from may lie before what we saw. A silence is not waited out, and what takes longer
// than this is not played.
constexpr Duration kLateness = std::chrono::seconds(1);
constexpr Duration kAtOnce = std::chrono::milliseconds(400);
constexpr Duration kSilenceMax = std::chrono::milliseconds(15);
constexpr Duration kRealTimeMax = std::chrono::seconds(2);

class Player {
 public:
  Player(const Case& script, const MakeDevice& make) : script_(script), make_(make) {}

  Outcome Run() {
    int number = script_.line;
    try {
      size_t at = 0;
      Setup setup = DefaultSetup();
      for (; at < script_.lines.size() && script_.lines[at].words[0] == "with"; ++at) {
        number = script_.lines[at].number;
        ApplyWith(Rest(script_.lines[at]), &setup);
      }
      setup.keys_go = TakesKeysBack();
      device_ = make_(setup);
      known_.assign(device_->memory().begin(), device_->memory().end());
      for (; at < script_.lines.size(); ++at) {
        number = script_.lines[at].number;
        Step(script_.lines[at]);
      }
      number = 0;
      ExpectNothingLeft();
    } catch (const NotApplicable& reason) {
      return {Outcome::kNotApplicable, reason.what()};
    } catch (const ScriptError& error) {
      return {Outcome::kFailed, Where(number) + "script: " + error.what()};
    } catch (const std::exception& error) {
      return {Outcome::kFailed, Where(number) + error.what() + History()};
    }
    return {Outcome::kPassed, ""};
  }

 private:
  bool TakesKeysBack() const {
    return std::any_of(script_.lines.begin(), script_.lines.end(), [](const Line& line) {
      return line.words[0] == "peer" &&
             std::count(line.words.begin(), line.words.end(), "invalidate") != 0;
    });
  }

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

  Duration Patience(const Window& window) const {
    if (!device_->real_time()) return window.to;
    if (window.from > kRealTimeMax) throw NotApplicable("it waits for " + ToText(window.from));
    return window.to == Duration{} ? kAtOnce : window.to + kLateness;
  }

  // Since the line before.
  Duration Begin() const { return device_->real_time() ? since_ : device_->now(); }

  bool IsEarly(const Window& window, Duration waited) const {
    const Duration from =
        device_->real_time() ? window.from - window.from / 4 - device_->tick() : window.from;
    return waited < from;
  }

  void Log(const std::string& what) { history_.push_back(ToText(device_->now()) + "  " + what); }

  void Step(const Line& line) {
    const std::string& verb = line.words.front();
    Words words = Rest(line);
    if (verb != "expect") since_ = device_->now();
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
      const Duration duration = ParseDuration(words.Next("a time"));
      device_->Wait(device_->real_time() ? std::min(duration, kRealTimeMax) : duration);
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
    device_->SetLink(state == "free");
  }

  void Post(Words* words) {
    const std::string kind = words->Next("what to post");
    const auto fails = words->Value("fails");
    const int expected = fails ? ParseErrno(*fails) : 0;
    const std::optional<uint64_t> id = words->Number("id");
    if (!id) throw ScriptError("posted work has an id");
    const Key key = NamedKey(words->Value("local_key").value_or("ours"));
    int error = 0;
    if (kind == "RECEIVE") {
      ReceiveWork work{*id, ParseRanges(words->Value("into").value_or("")), key};
      words->Finish();
      error = device_->PostReceive(work);
    } else {
      const PostedWork posted = TakeSendWork(kind, *id, key, words);
      completed_as_[*id] = posted.completed_as;
      error = device_->Post(posted.work);
    }
    if (error != expected) {
      throw Mismatch("the post to return " + std::to_string(expected), std::to_string(error));
    }
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
    if (words->NextIs("grh")) return ExpectGrh(ParseNumber(words->Next("an offset")));
    if (words->NextIs("word")) return ExpectWord(words);
    if (words->NextIs("state")) {
      const ibv_qp_state state = ParseState(words->Next("a state"));
      // A device of the kernel's changes it in its own time.
      for (int i = 0; device_->real_time() && device_->state() != state && i < 20; ++i) {
        device_->Wait(std::chrono::milliseconds(5));
      }
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
    const Duration begin = Begin();
    const std::optional<Packet> packet =
        NextPacket(Patience(window), [&](const Packet& each, bool first) {
          if (!Difference(text, each).empty()) return first;
          return !IsEarly(window, each.at - begin);
        });
    if (!packet) throw Mismatch(expected, "nothing by " + ToText(device_->now()));
    Log("device " + conformance::Describe(*packet));
    const std::string difference = Difference(text, *packet);
    if (!difference.empty()) {
      throw Mismatch(expected, conformance::Describe(*packet) + " (" + difference + ")");
    }
    CheckWindow(window, std::max(packet->at - begin, Duration::zero()), expected);
    since_ = packet->at;
  }

  // The next packet. Of a device that probes, a request counts only when `counts` says so, of the
  // packet and whether it came for the first time.
  template <typename Counts>
  std::optional<Packet> NextPacket(Duration patience, Counts counts) {
    const Duration end = device_->now() + patience;
    for (;;) {
      const Duration left = std::max(end - device_->now(), Duration::zero());
      std::optional<Packet> packet = device_->NextPacket(left);
      if (!packet || !device_->probes()) return packet;
      const soft_nic::PacketHeader& header = packet->header;
      if ((soft_nic::FlagsOf(header.opcode) & soft_nic::kIsRequest) == 0) return packet;
      const bool first = requests_.emplace(header.opcode, header.psn).second;
      if (counts(*packet, first)) return packet;
      Log("probe  " + conformance::Describe(*packet));
    }
  }

  void CheckWindow(const Window& window, Duration waited, const std::string& expected) const {
    if (IsEarly(window, waited)) {
      throw Mismatch(expected + " no earlier than after " + ToText(window.from),
                     "it after " + ToText(waited));
    }
  }

  void ExpectNothing(Duration patience) {
    if (device_->real_time()) patience = std::min(patience, kSilenceMax);
    const std::optional<Packet> packet =
        NextPacket(patience, [](const Packet&, bool first) { return first; });
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
    want.wc.status = ParseStatus(status);
    const std::optional<uint64_t> bytes = words->Number("bytes");
    const std::optional<uint64_t> imm = words->Number("imm");
    const std::optional<std::string> invalidated = words->Value("invalidated");
    const auto source = static_cast<uint32_t>(words->Number("source").value_or(kPeerQpn));
    const bool written = words->Flag("written");
    const bool solicited = words->Flag("solicited");
    words->Finish();
    const std::string expected = std::string(receive ? "received " : "completed ") +
                                 std::to_string(want.wc.wr_id) + " " + status;

    const Duration begin = Begin();
    const std::optional<Completion> have = device_->NextCompletion(receive, Patience(window));
    if (!have) throw Mismatch(expected, "none by " + ToText(device_->now()));
    Log(std::string(receive ? "received  " : "completed ") + Describe(*have));
    CheckWindow(window, device_->now() - begin, expected);
    since_ = device_->now();
    const ibv_wc& wc = have->wc;
    const auto differs = [&](const std::string& what) {
      throw Mismatch(expected + " " + what, Describe(*have));
    };
    if (wc.wr_id != want.wc.wr_id || wc.status != want.wc.status) differs("");
    if (wc.qp_num != device_->qpn()) differs("of this queue pair");
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
    if (device_->type() == IBV_QPT_UD && wc.src_qp != source) differs("of that queue pair");
    if (device_->type() == IBV_QPT_UD && (wc.wc_flags & IBV_WC_GRH) == 0) differs("with a GRH");
    if (have->solicited.value_or(solicited) != solicited)
      differs(solicited ? "solicited" : "not solicited");
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

  // A datagram's first 40 bytes: who sent it, to whom.
  void ExpectGrh(uint64_t offset) {
    if (offset + soft_nic::kGrhBytes > kMemoryBytes) throw ScriptError("beyond the memory");
    const std::span<const std::byte> memory = device_->memory();
    const auto grh = soft_nic::ReadGrh(
        std::span<const std::byte, soft_nic::kGrhBytes>(&memory[offset], soft_nic::kGrhBytes));
    if (!grh) throw Mismatch("a GRH", "other bytes");
    if (grh->source != device_->peer_gid()) throw Mismatch("the peer's address", "another one");
    if (grh->destination != device_->gid()) throw Mismatch("the device's address", "another one");
    std::copy_n(&memory[offset], soft_nic::kGrhBytes, &known_[offset]);
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
  Duration since_{};  // of real time: when what an `expect` counts from happened
  std::set<std::pair<soft_nic::Opcode, uint32_t>> requests_;  // that were seen
};

}  // namespace

Outcome Play(const Case& script, const MakeDevice& make) { return Player(script, make).Run(); }

}  // namespace sumac::conformance
