#include "verbs/soft_nic/device/port_counters.h"

#include <algorithm>
#include <tuple>

namespace sumac::soft_nic {

std::vector<verbs::PortCounter> PortCountersOf(const DeviceCounters& counters) {
  const auto& [link, scheduler, qp, progress] = counters;
  std::vector<verbs::PortCounter> found;
  const auto standard = [&](const char* name, uint64_t value) {
    found.push_back({"counters", name, value});
  };
  const auto own = [&](const char* name, uint64_t value) {
    found.push_back({"hw_counters", name, value});
  };
  constexpr uint64_t kBytesPerUnit = 4;  // of the "data" counters
  standard("port_xmit_data", link.bytes_sent / kBytesPerUnit);
  standard("port_rcv_data", link.bytes_received / kBytesPerUnit);
  for (const char* name : {"port_xmit_packets", "unicast_xmit_packets"}) {
    standard(name, link.packets_sent);
  }
  for (const char* name : {"port_rcv_packets", "unicast_rcv_packets"}) {
    standard(name, link.packets_received);
  }
  standard("port_rcv_errors",
           link.dropped_bad_icrc + link.dropped_malformed + link.dropped_truncated);
  standard("port_xmit_discards", link.send_errors);
  standard("port_xmit_wait", scheduler.waits_for_quota);
  // What can't happen here, for programs that expect the files.
  for (const char* name :
       {"VL15_dropped", "excessive_buffer_overrun_errors", "link_downed", "link_error_recovery",
        "local_link_integrity_errors", "multicast_rcv_packets", "multicast_xmit_packets",
        "port_rcv_constraint_errors", "port_rcv_remote_physical_errors",
        "port_rcv_switch_relay_errors", "port_xmit_constraint_errors", "symbol_error"}) {
    standard(name, 0);
  }

  // mlx5's names.
  own("duplicate_request", qp.duplicates_received);
  own("implied_nak_seq_err", qp.implied_naks);
  own("local_ack_timeout_err", qp.timeouts);
  own("np_cnp_sent", qp.cnps_sent);
  own("np_ecn_marked_roce_packets", link.congestion_experienced);
  own("out_of_buffer", qp.rnr_naks_sent + qp.dropped_no_receive);
  own("out_of_sequence", qp.dropped_out_of_order);
  own("packet_seq_err", qp.sequence_naks_received);
  own("resp_remote_access_errors", qp.access_naks_sent + qp.dropped_bad_key);
  own("rnr_nak_retry_err", qp.rnr_naks_received);
  own("rp_cnp_handled", qp.cnps_received);
  own("rx_icrc_encapsulated", link.dropped_bad_icrc);
  // Our own.
  own("direct_bytes", qp.direct_bytes);
  own("direct_requests", qp.direct_requests);
  own("dropped_bad_qkey", qp.dropped_bad_qkey);
  own("dropped_flood", link.dropped_flood);
  own("dropped_malformed", link.dropped_malformed + qp.dropped_malformed);
  own("dropped_truncated", link.dropped_truncated);
  own("dropped_unknown_qpn", link.dropped_wrong_qpn + scheduler.dropped_unknown_qpn);
  own("dropped_with_message", qp.dropped_with_message);
  own("dropped_wrong_source", scheduler.dropped_wrong_source);
  own("dropped_wrong_state", qp.dropped_wrong_state);
  own("helper_takeovers", progress.takeovers);
  own("icrc_by_identification", link.icrc_by_identification);
  own("invalid_request_naks_sent", qp.invalid_request_naks_sent);
  own("messages_cut_short", qp.messages_cut_short);
  own("operation_naks_sent", qp.operation_naks_sent);
  own("retransmitted_packets", qp.retransmitted_packets);
  own("rnr_naks_sent", qp.rnr_naks_sent);
  own("sequence_naks_sent", qp.sequence_naks_sent);
  own("tail_probes", qp.tail_probes);
  own("unsent_too_long", qp.unsent_too_long);
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) {
    return std::tie(a.group, a.name) < std::tie(b.group, b.name);
  });
  return found;
}

}  // namespace sumac::soft_nic
