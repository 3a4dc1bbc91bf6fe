// `sumac devices --counters`: what the ports of all devices have counted.
#pragma once

namespace sumac::cli {

// Prints to standard output; of a table's counters those that are not zero, or all if `verbose`.
// The exit code: 0, or 1 when a device could not be asked.
int PrintCounters(bool json, bool verbose);

}  // namespace sumac::cli
