// Memory registration.

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "verbs/soft_nic/device/control_path.h"
#include "verbs/soft_nic/device/limits.h"
#include "verbs/soft_nic/device/on_demand.h"
#include "verbs/soft_nic/device/protection_domain.h"
#include "verbs/soft_nic/device/soft_context.h"

namespace sumac::soft_nic {
namespace {

// The optional range is for hints that a device may ignore; huge pages are one as well.
constexpr int kKnownAccess = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE |
                             IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC |
                             IBV_ACCESS_MW_BIND | IBV_ACCESS_ON_DEMAND | IBV_ACCESS_HUGETLB |
                             static_cast<int>(IBV_ACCESS_OPTIONAL_RANGE);
constexpr int kNeedLocalWrite = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC;

struct SoftMemoryRegion : ibv_mr {
  int access = 0;
  SharedPlace place;  // for peers on this host
};

// Hardware pins pages and so refuses memory that is not there or not writable. We fault the pages
// in for the same effect: an engine that copies must not meet a hole. 0 or errno.
int Populate(void* addr, size_t length, bool write) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  // No process has memory at the end of the address space; rounding up would wrap around.
  if (length > UINTPTR_MAX - reinterpret_cast<uintptr_t>(addr) - page) return EFAULT;
  const uintptr_t first = reinterpret_cast<uintptr_t>(addr) & ~(page - 1);
  const uintptr_t end = (reinterpret_cast<uintptr_t>(addr) + length + page - 1) & ~(page - 1);
  auto* const start = reinterpret_cast<unsigned char*>(first);
  const size_t bytes = end - first;
  if (madvise(start, bytes, write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ) == 0) return 0;
  if (errno != EINVAL) return errno == ENOMEM ? EFAULT : errno;
  // EINVAL: no right to write there, or memory of a device, or a kernel before 5.14. Only in the
  // first case do reads work.
  if (write && madvise(start, bytes, MADV_POPULATE_READ) == 0) return EACCES;
  return msync(start, bytes, MS_ASYNC) == 0 ? 0 : EFAULT;  // at least it must be mapped
}

// What a region must be, and its pages there. 0 or errno.
int CheckRegistration(void* addr, size_t length, uint64_t iova, int access) {
  const auto start = reinterpret_cast<uint64_t>(addr);
  const bool writable = (access & IBV_ACCESS_LOCAL_WRITE) != 0;
  if ((access & ~kKnownAccess) != 0) return EOPNOTSUPP;
  if (length == 0 || start + length < start || iova + length < iova) return EINVAL;
  if ((access & kNeedLocalWrite) != 0 && !writable) return EINVAL;
  if ((access & IBV_ACCESS_ON_DEMAND) != 0) return OnDemandOffered() ? 0 : EOPNOTSUPP;
  return Populate(addr, length, writable);
}

// Before a region changes: from now on peers on this host need packets for it. False when windows
// are bound to it, or a peer can't be waited for.
bool WithdrawFromPeers(SoftContext& context, const SoftMemoryRegion& mr) {
  const bool withdrawn = context.progress().Exclusive([&] {
    if (context.keys().at(mr.lkey).windows != 0) return false;
    context.same_host().Withdraw(mr.lkey, mr.place);
    return true;
  });
  return withdrawn && context.same_host().AwaitUnused(mr.lkey, context.progress());
}

}  // namespace

ibv_mr* RegMr(ibv_pd* pd, void* addr, size_t length, int access) {
  return RegMrIova(pd, addr, length, reinterpret_cast<uint64_t>(addr), access);
}

ibv_mr* RegMrIova(ibv_pd* pd, void* addr, size_t length, uint64_t iova, int access) {
  const auto start = reinterpret_cast<uint64_t>(addr);
  if (int error = CheckRegistration(addr, length, iova, access); error != 0) {
    errno = error;
    return nullptr;
  }
  SoftContext& context = SoftContext::Of(pd->context);
  auto* mr = OrNoMemory([] { return new SoftMemoryRegion{}; });
  if (mr == nullptr) return nullptr;
  mr->place = context.same_host().Locate(addr, length, access);
  const uint32_t key = context.progress().Exclusive([&] {
    const Region region{.pd = RightsOf(pd),
                        .addr = iova,
                        .length = length,
                        .access = access,
                        .offset = start - iova};
    const uint32_t added = context.keys().Add(region);
    if (added != 0) context.same_host().Publish(added, region, mr->place);
    return added;
  });
  if (key == 0) {
    context.same_host().Release(mr->place);
    delete mr;
    errno = ENOMEM;
    return nullptr;
  }
  mr->context = pd->context;
  mr->pd = pd;
  mr->addr = addr;
  mr->length = length;
  mr->handle = mr->lkey = mr->rkey = key;
  mr->access = access;
  AddObject(pd);
  return mr;
}

ibv_mr* RegDmabufMr(ibv_pd*, uint64_t, size_t, uint64_t, int, int) {
  errno = EOPNOTSUPP;
  return nullptr;
}

int ReregMr(ibv_mr* mr, int flags, ibv_pd* pd, void* addr, size_t length, int access) {
  auto& soft = *static_cast<SoftMemoryRegion*>(mr);
  const bool move = (flags & IBV_REREG_MR_CHANGE_TRANSLATION) != 0;
  const bool change_domain = (flags & IBV_REREG_MR_CHANGE_PD) != 0;
  const bool change_access = (flags & IBV_REREG_MR_CHANGE_ACCESS) != 0;
  int error = 0;
  if (flags == 0 || (flags & ~IBV_REREG_MR_FLAGS_SUPPORTED) != 0 ||
      (change_domain && (pd == nullptr || pd->context != mr->context))) {
    error = EINVAL;
  } else if (move || change_access) {
    void* const new_addr = move ? addr : mr->addr;
    error = CheckRegistration(new_addr, move ? length : mr->length,
                              reinterpret_cast<uint64_t>(new_addr),
                              change_access ? access : soft.access);
  }
  if (error != 0) {
    errno = error;
    return IBV_REREG_MR_ERR_INPUT;  // the region is as it was
  }
  SoftContext& context = SoftContext::Of(mr->context);
  if (!WithdrawFromPeers(context, soft)) {
    errno = EBUSY;
    return IBV_REREG_MR_ERR_INPUT;
  }
  const int new_access = change_access ? access : soft.access;
  const SharedPlace place = move || change_access
                                ? context.same_host().Locate(move ? addr : mr->addr,
                                                             move ? length : mr->length, new_access)
                                : std::exchange(soft.place, {});
  const bool changed = context.progress().Exclusive([&] {
    Region& region = context.keys().at(mr->lkey);
    if (region.windows != 0) return false;
    if (change_domain) region.pd = RightsOf(pd);
    if (change_access) region.access = access;
    if (move) {
      region.addr = reinterpret_cast<uint64_t>(addr);
      region.length = length;
      region.offset = 0;
    }
    context.same_host().Publish(mr->lkey, region, place);
    return true;
  });
  context.same_host().Release(std::exchange(soft.place, place));
  if (!changed) {
    errno = EBUSY;  // memory windows are bound to it
    return IBV_REREG_MR_ERR_INPUT;
  }
  if (change_domain) {
    RemoveObject(mr->pd);
    AddObject(pd);
    mr->pd = pd;
  }
  if (change_access) soft.access = access;
  if (move) {
    mr->addr = addr;
    mr->length = length;
  }
  return 0;
}

int DeregMr(ibv_mr* mr) {
  SoftContext& context = SoftContext::Of(mr->context);
  auto& soft = *static_cast<SoftMemoryRegion*>(mr);
  if (!WithdrawFromPeers(context, soft)) return EBUSY;
  const bool removed = context.progress().Exclusive([&] {
    if (context.keys().at(mr->lkey).windows != 0) return false;
    context.keys().Remove(mr->lkey);
    return true;
  });
  if (!removed) return EBUSY;  // memory windows are bound to it
  context.same_host().Release(soft.place);
  RemoveObject(mr->pd);
  delete &soft;
  return 0;
}

}  // namespace sumac::soft_nic
