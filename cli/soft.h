// `sumac soft -- PROGRAM`: a stock verbs program with the soft NIC among its devices.
#pragma once

#include <string>
#include <vector>

namespace sumac::cli {

struct SoftOptions {
  std::string interface;             // listen there; empty: SUMAC_SOFT_* or loopback
  bool print_preload = false;        // the value for LD_PRELOAD, instead of running something
  std::vector<std::string> command;  // the program and its arguments
};

// Becomes the program, with the interposing libibverbs.so.1 preloaded. Returns only when that can't
// be done, having said why: 2, or 126 and 127 as shells do.
int RunOnSoftNic(const SoftOptions& options);

}  // namespace sumac::cli
