#include "tests/conformance/setup.h"

#include <algorithm>
#include <array>
#include <sstream>
#include <utility>

namespace sumac::conformance {
namespace {

struct Option {
  const char* name;
  void (*set)(Setup&, uint64_t);
};

constexpr Option kOptions[] = {
    {"mtu", [](Setup& s, uint64_t v) { s.receive.mtu_bytes = static_cast<uint32_t>(v); }},
    {"first_psn", [](Setup& s, uint64_t v) { s.send.first_psn = static_cast<uint32_t>(v); }},
    {"expected_psn",
     [](Setup& s, uint64_t v) { s.receive.expected_psn = static_cast<uint32_t>(v); }},
    {"timeout", [](Setup& s, uint64_t v) { s.send.timeout = static_cast<uint8_t>(v); }},
    {"retry_count", [](Setup& s, uint64_t v) { s.send.retry_count = static_cast<uint8_t>(v); }},
    {"rnr_retry", [](Setup& s, uint64_t v) { s.send.rnr_retry = static_cast<uint8_t>(v); }},
    {"min_rnr_timer",
     [](Setup& s, uint64_t v) { s.receive.min_rnr_timer = static_cast<uint8_t>(v); }},
    {"max_rd_atomic", [](Setup& s, uint64_t v) { s.send.max_rd_atomic = static_cast<uint8_t>(v); }},
    {"max_dest_rd_atomic",
     [](Setup& s, uint64_t v) { s.receive.max_dest_rd_atomic = static_cast<uint8_t>(v); }},
    {"send_queue", [](Setup& s, uint64_t v) { s.limits.max_send_wr = static_cast<uint32_t>(v); }},
    {"receive_queue",
     [](Setup& s, uint64_t v) { s.limits.max_recv_wr = static_cast<uint32_t>(v); }},
    {"qkey", [](Setup& s, uint64_t v) { s.receive.qkey = static_cast<uint32_t>(v); }},
    {"signal_all", [](Setup& s, uint64_t v) { s.limits.signal_all = v != 0; }},
};

// What the engine can be told and a device behind verbs can't.
constexpr Option kEngineOptions[] = {
    {"tail_probe_us",
     [](Setup& s, uint64_t v) { s.send.congestion.tail_probe_us = static_cast<uint32_t>(v); }},
    {"window",
     [](Setup& s, uint64_t v) {
       s.send.congestion.window_bytes_initial = static_cast<uint32_t>(v);
       s.send.congestion.window_bytes_max = static_cast<uint32_t>(v);
     }},
    {"read_chunk",
     [](Setup& s, uint64_t v) { s.send.congestion.read_chunk_bytes = static_cast<uint32_t>(v); }},
    {"ack_interval",
     [](Setup& s, uint64_t v) {
       s.send.congestion.ack_interval_packets = static_cast<uint32_t>(v);
     }},
};

constexpr std::array<std::pair<const char*, ibv_qp_type>, 3> kTransports = {
    {{"RC", IBV_QPT_RC}, {"UC", IBV_QPT_UC}, {"UD", IBV_QPT_UD}}};

constexpr std::array<std::pair<const char*, ibv_qp_state>, 5> kStates = {{{"RESET", IBV_QPS_RESET},
                                                                          {"INIT", IBV_QPS_INIT},
                                                                          {"RTR", IBV_QPS_RTR},
                                                                          {"RTS", IBV_QPS_RTS},
                                                                          {"ERR", IBV_QPS_ERR}}};

}  // namespace

Setup DefaultSetup() {
  Setup setup;
  setup.receive.remote_qpn = kPeerQpn;
  setup.receive.qkey = kQkey;
  setup.receive.expected_psn = 0x500;
  setup.receive.mtu_bytes = 1024;
  setup.receive.access_flags =
      IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC;
  setup.send.first_psn = 0x100;
  // Probes are tested where a script asks for them.
  setup.send.congestion.tail_probe_us = 0;
  return setup;
}

void ApplyWith(Words words, Setup* setup) {
  if (const auto rights = words.Value("rights")) setup->receive.access_flags = ParseRights(*rights);
  if (const auto state = words.Value("state")) setup->state = ParseState(*state);
  if (const auto name = words.Value("transport")) {
    const auto* known = std::find_if(kTransports.begin(), kTransports.end(),
                                     [&name](const auto& each) { return *name == each.first; });
    if (known == kTransports.end())
      throw ScriptError("'" + *name + "' is no transport (RC, UC, UD)");
    setup->limits.type = known->second;
  }
  for (const Option& option : kOptions) {
    if (const auto value = words.Number(option.name)) option.set(*setup, *value);
  }
  for (const Option& option : kEngineOptions) {
    const auto value = words.Number(option.name);
    if (!value) continue;
    option.set(*setup, *value);
    setup->beyond_verbs = option.name;
  }
  words.Finish();
}

int ParseRights(const std::string& word) {
  if (word == "nothing") return 0;
  int rights = 0;
  std::istringstream in(word);
  for (std::string each; std::getline(in, each, ',');) {
    if (each == "read") {
      rights |= IBV_ACCESS_REMOTE_READ;
    } else if (each == "write") {
      rights |= IBV_ACCESS_REMOTE_WRITE;
    } else if (each == "atomic") {
      rights |= IBV_ACCESS_REMOTE_ATOMIC;
    } else {
      throw ScriptError("'" + each + "' is no right (read, write, atomic, nothing)");
    }
  }
  return rights;
}

ibv_qp_state ParseState(const std::string& word) {
  for (const auto& [name, state] : kStates) {
    if (word == name) return state;
  }
  throw ScriptError("'" + word + "' is no state (RESET, INIT, RTR, RTS, ERR)");
}

std::string NameOf(ibv_qp_state state) {
  for (const auto& [name, each] : kStates) {
    if (state == each) return name;
  }
  return "state " + std::to_string(state);
}

}  // namespace sumac::conformance
