// On-demand registration (IBV_ACCESS_ON_DEMAND): memory whose pages need not be there before
// somebody asks for them, up to the whole address space of the process (an implicit region).
//
// Hardware takes a page fault and has the kernel bring the page in. We ask the kernel before each
// access, with advice that faults pages in and says so when it can't, where touching them would end
// in SIGSEGV or SIGBUS. Memory that another thread unmaps between the answer and the access faults
// all the same: a program must not unmap what a message is using.
//
// Any thread; system calls; no allocation.
#pragma once

#include <cstddef>

namespace sumac::soft_nic {

// Whether this kernel knows the advice (Linux 5.14).
bool OnDemandOffered();

// Faults in the pages of [start, start + bytes), to be read or written. 0, or EFAULT: some can't
// be.
[[nodiscard]] int MakePresent(void* start, size_t bytes, bool write);

}  // namespace sumac::soft_nic
