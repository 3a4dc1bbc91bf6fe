// What one worker publishes about itself so that one peer can connect to it.
//
// Used by Connector. A line of key=value text, so that `what is in the key-value store` can be read
// by people. Parse is strict: it comes from another process.
#pragma once

#include <infiniband/verbs.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sumac::transport {

struct AddressRecord {
  uint32_t qpn = 0;
  uint32_t psn = 0;  // the first that this side sends
  ibv_gid gid{};
  uint32_t mtu_bytes = 0;        // the largest that this side allows
  uint32_t read_depth = 0;       // READ and atomic requests in flight, each way
  uint32_t receive_depth = 0;    // credits that the peer gets
  uint32_t eager_bytes_max = 0;  // what this side's receives can hold
  // By rdma_cm only: where this side listens (at its GID's address), and what a request from the
  // peer that reads this has to bring.
  uint16_t cm_port = 0;  // 0: this side connects by the exchange
  uint64_t cm_key = 0;
  std::string host;  // for messages to people
  int64_t pid = 0;
};

std::string ToText(const AddressRecord& record);
// InvalidArgument names the field.
absl::StatusOr<AddressRecord> ParseAddressRecord(absl::string_view text);

}  // namespace sumac::transport
