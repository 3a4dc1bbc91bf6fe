#include "verbs/soft_nic/device/on_demand.h"

#include <infiniband/verbs.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>

#include "verbs/soft_nic/device/control_path.h"
#include "verbs/soft_nic/device/key_table.h"
#include "verbs/soft_nic/device/protection_domain.h"
#include "verbs/soft_nic/device/soft_context.h"

namespace sumac::soft_nic {
namespace {

// Who asks for more at once asks about the range of a whole message, and again for every packet
// before it touches a byte. The engine must not be held up by a gigabyte of page faults.
constexpr size_t kMadePresentAtOnceMax = size_t{1} << 20;

constexpr int kWrites = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC;

}  // namespace

bool OnDemandOffered() {
  static const bool offered = [] {
    const int here = 0;
    return MakePresent(const_cast<int*>(&here), sizeof(here), false) == 0;
  }();
  return offered;
}

int MakePresent(void* start, size_t bytes, bool write) {
  static const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t from = reinterpret_cast<uintptr_t>(start);
  const uintptr_t first = from & ~(page - 1);
  if (bytes > UINTPTR_MAX - from - page) return EFAULT;  // no process has memory there
  const size_t whole = ((from + bytes + page - 1) & ~(page - 1)) - first;
  const int advice = write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ;
  return madvise(reinterpret_cast<void*>(first), whole, advice) == 0 ? 0 : EFAULT;
}

std::byte* Region::FindOnDemand(uint64_t from, size_t bytes, int rights) const {
  std::byte* const at = Covers(from, bytes, rights) ? Place(from) : nullptr;
  if (at == nullptr) return nullptr;
  const bool write = (rights & kWrites) != 0;
  return MakePresent(at, std::min(bytes, kMadePresentAtOnceMax), write) == 0 ? at : nullptr;
}

namespace {

// What is wrong with advice about `range` of `region`: 0 or errno, as the kernel has them.
int CheckAdvice(const Region* region, const ibv_pd* pd, const ibv_sge& range, bool write) {
  if (region == nullptr) return ENOENT;
  if (region->pd != pd) return EPERM;
  if ((region->access & IBV_ACCESS_ON_DEMAND) == 0) return EINVAL;
  if (write && (region->access & IBV_ACCESS_LOCAL_WRITE) == 0) return EPERM;
  return region->Covers(range.addr, range.length, 0) ? 0 : EFAULT;
}

}  // namespace

int AdviseMr(ibv_pd* pd, ibv_advise_mr_advice advice, uint32_t flags, ibv_sge* ranges,
             uint32_t count) {
  const bool write = advice == IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE;
  const bool no_fault = advice == IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT;
  if (!OnDemandOffered() || (!write && !no_fault && advice != IBV_ADVISE_MR_ADVICE_PREFETCH)) {
    return EOPNOTSUPP;
  }
  if ((flags & ~static_cast<uint32_t>(IBV_ADVISE_MR_FLAG_FLUSH)) != 0 || count == 0) return EINVAL;
  SoftContext& context = SoftContext::Of(pd->context);
  for (const ibv_sge* range = ranges; range != ranges + count; ++range) {
    std::byte* place = nullptr;
    const int error = context.progress().Exclusive([&] {
      const Region* const region = context.keys().find(range->lkey);
      const int wrong = CheckAdvice(region, RightsOf(pd), *range, write);
      if (wrong == 0) place = region->Place(range->addr);
      return wrong;
    });
    if (error != 0) return error;
    if (no_fault || range->length == 0) continue;  // what is present is so already
    // Without the flag the program does not wait to hear how it went.
    const int missing = MakePresent(place, range->length, write);
    if (missing != 0 && (flags & IBV_ADVISE_MR_FLAG_FLUSH) != 0) return missing;
  }
  return 0;
}

}  // namespace sumac::soft_nic
