// `with` lines: how the queue pair of a case is made.
#pragma once

#include "tests/conformance/device.h"
#include "tests/conformance/script.h"

namespace sumac::conformance {

// What holds where a script says nothing else.
Setup DefaultSetup();
// Applies "mtu 256 timeout 10 …".
void ApplyWith(Words words, Setup* setup);
// "read,write,atomic" or "nothing", as IBV_ACCESS_REMOTE_* bits.
int ParseRights(const std::string& word);
ibv_qp_state ParseState(const std::string& word);
std::string NameOf(ibv_qp_state state);

}  // namespace sumac::conformance
