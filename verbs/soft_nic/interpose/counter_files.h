// Files of soft0's counters that programs open under /sys/class/infiniband: in memory, each with
// its value of now.
//
// perftest keeps them open and reads them again from their start, so a read there brings the value
// up to date. Any thread.
#pragma once

namespace sumac::soft_nic::interpose {

// `file` is what comes after .../soft0 in a path, or null. A descriptor; -1 when it is no counter.
int OpenCounter(const char* file);

// Before a read of any descriptor: costs next to nothing while no counter is open.
void RefreshCounter(int fd);

}  // namespace sumac::soft_nic::interpose
