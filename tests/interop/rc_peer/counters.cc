#include "tests/interop/rc_peer/counters.h"

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"

#include "verbs/soft_nic/device/counters.h"

namespace sumac::interop {
namespace {

std::filesystem::path KernelCounters(const verbs::Device& device) {
  return absl::StrCat("/sys/class/infiniband/", device.name(), "/ports/1/hw_counters");
}

}  // namespace

std::vector<Counter> UnwelcomeEvents(verbs::Device& device) {
  std::vector<Counter> counters;
  if (device.provider().name == verbs::SoftProvider().name) {
    const auto now = soft_nic::ReadCounters(device.context());
    // Not dropped_unknown_qpn: the answer to a tail probe may come after the case that drew it,
    // when its queue pair is gone.
    return {{"dropped_bad_icrc", now.link.dropped_bad_icrc},
            {"dropped_malformed", now.link.dropped_malformed + now.queue_pairs.dropped_malformed},
            {"dropped_truncated", now.link.dropped_truncated},
            {"dropped_wrong_qpn", now.link.dropped_wrong_qpn},
            {"dropped_wrong_source", now.scheduler.dropped_wrong_source},
            {"dropped_wrong_state", now.queue_pairs.dropped_wrong_state},
            {"send_errors", now.link.send_errors},
            {"timeouts", now.queue_pairs.timeouts},
            {"sequence_naks_sent", now.queue_pairs.sequence_naks_sent},
            {"sequence_naks_received", now.queue_pairs.sequence_naks_received},
            {"rnr_naks_sent", now.queue_pairs.rnr_naks_sent},
            {"rnr_naks_received", now.queue_pairs.rnr_naks_received},
            {"dropped_out_of_order", now.queue_pairs.dropped_out_of_order},
            {"retransmitted_packets",
             now.queue_pairs.retransmitted_packets - now.queue_pairs.tail_probes}};
  }
  for (const char* name :
       {"duplicate_request", "out_of_seq_request", "rcvd_rnr_err", "send_rnr_err", "rcvd_seq_err",
        "retry_exceeded_err", "retry_rnr_exceeded_err", "completer_retry_err", "send_err"}) {
    std::ifstream file(KernelCounters(device) / name);
    Counter counter{name, 0};
    counter.by_probes = counter.name == "duplicate_request";
    if (file >> counter.value) counters.push_back(counter);
  }
  return counters;
}

uint64_t CounterOf(verbs::Device& device, const std::string& name) {
  for (const Counter& counter : UnwelcomeEvents(device)) {
    if (counter.name == name) return counter.value;
  }
  return 0;
}

uint64_t RnrNaksSent(verbs::Device& device) {
  return CounterOf(device, "rnr_naks_sent") + CounterOf(device, "send_rnr_err");
}

uint64_t AllKernelCounters(verbs::Device& device) {
  uint64_t sum = 0;
  for (const auto& entry : std::filesystem::directory_iterator(KernelCounters(device))) {
    uint64_t value = 0;
    if (entry.path().filename() != "lifespan" && std::ifstream(entry.path()) >> value) sum += value;
  }
  return sum;
}

uint64_t TailProbes(verbs::Device& device) {
  if (device.provider().name != verbs::SoftProvider().name) return 0;
  return soft_nic::ReadCounters(device.context()).queue_pairs.tail_probes;
}

std::string Growth(const std::vector<Counter>& before, const std::vector<Counter>& after,
                   bool probed) {
  std::string text;
  for (size_t i = 0; i < before.size() && i < after.size(); ++i) {
    if (after[i].value > before[i].value && !(probed && after[i].by_probes)) {
      absl::StrAppend(&text, " ", after[i].name, "=", after[i].value - before[i].value);
    }
  }
  return text;
}

}  // namespace sumac::interop
