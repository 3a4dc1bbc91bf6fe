// Protection domains and memory registration.

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "verbs/soft_nic/device/control_path.h"
#include "verbs/soft_nic/device/limits.h"
#include "verbs/soft_nic/device/soft_context.h"

namespace sumac::soft_nic {
namespace {

// The optional range is for hints that a device may ignore.
constexpr int kKnownAccess = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE |
                             IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC |
                             IBV_ACCESS_MW_BIND | static_cast<int>(IBV_ACCESS_OPTIONAL_RANGE);
constexpr int kNeedLocalWrite = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC;

struct SoftMemoryRegion : ibv_mr {};

// Hardware pins pages and so refuses memory that is not there or not writable. We fault the pages
// in for the same effect: an engine that copies must not meet a hole. 0 or errno.
int Populate(void* addr, size_t length, bool write) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
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

}  // namespace

ibv_pd* AllocPd(ibv_context* context) {
  SoftContext& soft = SoftContext::Of(context);
  if (++soft.protection_domains > kProtectionDomainsMax) {
    --soft.protection_domains;
    errno = ENOMEM;
    return nullptr;
  }
  soft.Retain();
  auto* pd = new SoftProtectionDomain{};
  pd->context = context;
  return pd;
}

int DeallocPd(ibv_pd* pd) {
  auto* soft = static_cast<SoftProtectionDomain*>(pd);
  if (soft->objects.load() != 0) return EBUSY;
  SoftContext& context = SoftContext::Of(pd->context);
  --context.protection_domains;
  delete soft;
  context.Release();
  return 0;
}

ibv_mr* RegMr(ibv_pd* pd, void* addr, size_t length, int access) {
  const auto start = reinterpret_cast<uint64_t>(addr);
  const bool writable = (access & IBV_ACCESS_LOCAL_WRITE) != 0;
  if ((access & ~kKnownAccess) != 0) {
    errno = EOPNOTSUPP;
    return nullptr;
  }
  if (length == 0 || start + length < start || ((access & kNeedLocalWrite) != 0 && !writable)) {
    errno = EINVAL;
    return nullptr;
  }
  if (int error = Populate(addr, length, writable); error != 0) {
    errno = error;
    return nullptr;
  }
  SoftContext& context = SoftContext::Of(pd->context);
  const uint32_t key = context.progress().Exclusive([&] {
    return context.keys().Add({.pd = pd, .addr = start, .length = length, .access = access});
  });
  if (key == 0) {
    errno = ENOMEM;
    return nullptr;
  }
  auto* mr = new SoftMemoryRegion{};
  mr->context = pd->context;
  mr->pd = pd;
  mr->addr = addr;
  mr->length = length;
  mr->handle = mr->lkey = mr->rkey = key;
  ++static_cast<SoftProtectionDomain*>(pd)->objects;
  return mr;
}

int DeregMr(ibv_mr* mr) {
  SoftContext& context = SoftContext::Of(mr->context);
  context.progress().Exclusive([&] { context.keys().Remove(mr->lkey); });
  --static_cast<SoftProtectionDomain*>(mr->pd)->objects;
  delete static_cast<SoftMemoryRegion*>(mr);
  return 0;
}

}  // namespace sumac::soft_nic
