// /dev/infiniband/rdma_cm: opened, it is a descriptor of the soft NIC's connection manager.
//
// Part of the library of files, which has no other tie to the soft NIC than the functions that
// libibverbs.so.1 beside it exports for this.
#pragma once

namespace sumac::soft_nic::interpose {

inline constexpr char kConnectionManager[] = "/dev/infiniband/rdma_cm";

// As open(2); ENXIO without the soft NIC's libibverbs in the process.
int OpenConnectionManagerFile(int flags);

}  // namespace sumac::soft_nic::interpose
