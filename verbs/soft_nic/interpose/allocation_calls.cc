// The allocation calls of stock programs: page-aligned blocks of a page and more come from a file
// that peers on the same host can map (shared_allocations.h), everything else from whoever is next
// (the C library, or another preloaded allocator).
//
// perftest, the pingpongs and their like allocate their buffers so (memalign, posix_memalign). A
// library of its own, because its functions must not carry libibverbs' versions, and are called
// while the loader runs. Any thread.
#include <dlfcn.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "verbs/soft_nic/interpose/shared_allocations.h"

#define SUMAC_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using sumac::soft_nic::interpose::SharedAllocations;

constexpr size_t kPageBytes = 4096;

constinit SharedAllocations shared;

// The next library's functions. dlsym may itself allocate and free: whoever is asked meanwhile by
// this thread has no next one yet.
struct NextCalls {
  int (*posix_memalign)(void**, size_t, size_t);
  void* (*memalign)(size_t, size_t);
  void* (*aligned_alloc)(size_t, size_t);
  void* (*valloc)(size_t);
  void* (*pvalloc)(size_t);
  void* (*malloc)(size_t);
  void* (*realloc)(void*, size_t);
  void* (*reallocarray)(void*, size_t, size_t);
  void (*free)(void*);
  size_t (*malloc_usable_size)(void*);
};
constinit NextCalls next_calls{};
constinit std::atomic<bool> next_known{false};
constinit thread_local bool looking = false;

template <typename Function>
void LookUp(Function*& function, const char* name) {
  function = reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

// Null while this thread is looking for them. Threads that look at once find the same.
const NextCalls* Next() {
  if (next_known.load(std::memory_order_acquire)) return &next_calls;
  if (looking) return nullptr;
  looking = true;
  NextCalls found{};
  LookUp(found.posix_memalign, "posix_memalign");
  LookUp(found.memalign, "memalign");
  LookUp(found.aligned_alloc, "aligned_alloc");
  LookUp(found.valloc, "valloc");
  LookUp(found.pvalloc, "pvalloc");
  LookUp(found.malloc, "malloc");
  LookUp(found.realloc, "realloc");
  LookUp(found.reallocarray, "reallocarray");
  LookUp(found.free, "free");
  LookUp(found.malloc_usable_size, "malloc_usable_size");
  looking = false;
  static constinit std::atomic<bool> writing{false};
  if (!writing.exchange(true)) {
    next_calls = found;
    next_known.store(true, std::memory_order_release);
  }
  while (!next_known.load(std::memory_order_acquire)) {
  }
  return &next_calls;
}

// Null: somebody else's turn.
void* TakeShared(size_t alignment, size_t bytes) {
  const bool page_aligned = alignment >= kPageBytes && (alignment & (alignment - 1)) == 0;
  return page_aligned ? shared.Allocate(alignment, bytes) : nullptr;
}

void* NoMemory() {
  errno = ENOMEM;
  return nullptr;
}

}  // namespace

SUMAC_EXPORT void free(void* address) {
  if (shared.Owns(address)) return shared.Free(address);
  // What dlsym gives back while it is asked for free is a few bytes, once.
  if (const NextCalls* next = Next(); next != nullptr) next->free(address);
}

SUMAC_EXPORT int posix_memalign(void** out, size_t alignment, size_t bytes) {
  if (void* const block = TakeShared(alignment, bytes)) {
    *out = block;
    return 0;
  }
  const NextCalls* const next = Next();
  return next != nullptr ? next->posix_memalign(out, alignment, bytes) : ENOMEM;
}

SUMAC_EXPORT void* memalign(size_t alignment, size_t bytes) {
  if (void* const block = TakeShared(alignment, bytes)) return block;
  const NextCalls* const next = Next();
  return next != nullptr ? next->memalign(alignment, bytes) : NoMemory();
}

SUMAC_EXPORT void* aligned_alloc(size_t alignment, size_t bytes) {
  if (void* const block = TakeShared(alignment, bytes)) return block;
  const NextCalls* const next = Next();
  return next != nullptr ? next->aligned_alloc(alignment, bytes) : NoMemory();
}

SUMAC_EXPORT void* valloc(size_t bytes) {
  if (void* const block = TakeShared(kPageBytes, bytes)) return block;
  const NextCalls* const next = Next();
  return next != nullptr ? next->valloc(bytes) : NoMemory();
}

SUMAC_EXPORT void* pvalloc(size_t bytes) {
  if (void* const block = TakeShared(kPageBytes, bytes)) return block;
  const NextCalls* const next = Next();
  return next != nullptr ? next->pvalloc(bytes) : NoMemory();
}

SUMAC_EXPORT void* realloc(void* address, size_t bytes) {
  const NextCalls* const next = Next();
  if (!shared.Owns(address)) return next != nullptr ? next->realloc(address, bytes) : NoMemory();
  if (bytes == 0) {
    shared.Free(address);
    return nullptr;
  }
  if (shared.Fits(address, bytes)) return address;
  void* to = shared.Allocate(kPageBytes, bytes);
  if (to == nullptr && next != nullptr) to = next->malloc(bytes);
  if (to == nullptr) return NoMemory();
  std::memcpy(to, address, std::min(bytes, shared.UsableBytes(address)));
  shared.Free(address);
  return to;
}

SUMAC_EXPORT void* reallocarray(void* address, size_t count, size_t bytes) {
  size_t total = 0;
  if (__builtin_mul_overflow(count, bytes, &total)) return NoMemory();
  return realloc(address, total);
}

SUMAC_EXPORT size_t malloc_usable_size(void* address) {
  if (shared.Owns(address)) return shared.UsableBytes(address);
  const NextCalls* const next = Next();
  return next != nullptr ? next->malloc_usable_size(address) : 0;
}

namespace {

__attribute__((constructor)) void Start() {
  const char* const wanted = std::getenv("SUMAC_SOFT_SHARE_ALLOCATIONS");
  const char* const local = std::getenv("SUMAC_SOFT_LOCAL");
  const auto is_off = [](const char* value) {
    return value != nullptr && std::strcmp(value, "0") == 0;
  };
  // A program with an allocator of its own would get blocks that its free does not know.
  if (is_off(wanted) || is_off(local) ||
      dlsym(RTLD_DEFAULT, "free") != reinterpret_cast<void*>(&free) ||
      dlsym(RTLD_DEFAULT, "realloc") != reinterpret_cast<void*>(&realloc)) {
    return;
  }
  Next();
  if (!shared.Open()) {
    char line[256];
    const int length = std::snprintf(
        line, sizeof(line),
        "sumac: SUMAC_SOFT_SHARE_ALLOCATIONS: buffers of this program are not mapped by peers on "
        "this host, which makes access to them slower: %s\n",
        shared.reason());
    if (write(STDERR_FILENO, line, static_cast<size_t>(length)) < 0) return;
    return;
  }
  pthread_atfork([] { shared.BeforeFork(); }, [] { shared.AfterForkInParent(); },
                 [] { shared.AfterForkInChild(); });
}

}  // namespace
