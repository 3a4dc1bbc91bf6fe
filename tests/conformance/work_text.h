// Work and completions in scripts: what can be posted, and how a completion reads. Pure functions.
#pragma once

#include <infiniband/verbs.h>

#include <cstdint>
#include <string>

#include "tests/conformance/device.h"
#include "tests/conformance/script.h"

namespace sumac::conformance {

struct PostedWork {
  SendWork work;
  ibv_wc_opcode completed_as = IBV_WC_SEND;
};

// "SEND … from 0+64", without the id and the key.
PostedWork TakeSendWork(const std::string& kind, uint64_t id, Key key, Words* words);
// "EINVAL".
int ParseErrno(const std::string& word);
// "retry_exceeded".
ibv_wc_status ParseStatus(const std::string& word);

// "1 ok bytes 8".
std::string Describe(const Completion& completion);

}  // namespace sumac::conformance
