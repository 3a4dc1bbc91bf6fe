// `sumac devices`: what RDMA devices there are, hardware, rxe and soft NIC alike.
#pragma once

namespace sumac::cli {

struct DevicesOptions {
  bool json = false;
  bool verbose = false;  // with limits
};

// Prints to standard output. The exit code: 0, or 1 when a device could not be opened.
int PrintDevices(const DevicesOptions& options);

}  // namespace sumac::cli
