// The system calls on /dev/infiniband/rdma_cm: writes are commands, and somebody must notice when
// it is closed. All other descriptors pass by after one look into a table: no lock, no allocation,
// nothing that a signal handler must not do.

#include "verbs/soft_nic/interpose/rdma_cm_file.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <rdma/rdma_user_cm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>

#define SUMAC_EXPORT extern "C" __attribute__((visibility("default")))

namespace sumac::soft_nic::interpose {
namespace {

// Descriptors up to here can be ours; more than RLIMIT_NOFILE lets most programs have.
constexpr int kDescriptorsMax = 1 << 20;
std::array<std::atomic<uint64_t>, kDescriptorsMax / 64> ours;  // a bit each

std::atomic<uint64_t>& WordOf(int fd) { return ours[static_cast<size_t>(fd) / 64]; }
uint64_t BitOf(int fd) { return uint64_t{1} << (fd % 64); }

bool IsOurs(int fd) {
  return fd >= 0 && fd < kDescriptorsMax &&
         (WordOf(fd).load(std::memory_order_relaxed) & BitOf(fd)) != 0;
}

template <typename Function>
Function In(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, name));
}

// Set once, before anything is ours.
int (*cm_open)(int) = nullptr;
ssize_t (*cm_write)(int, const void*, size_t) = nullptr;
void (*cm_close)(int) = nullptr;

// The C library's functions. Looked up when this library is loaded, because a signal handler may be
// the first to call; those that other libraries call even earlier go to the kernel.
ssize_t (*next_write)(int, const void*, size_t) = nullptr;
int (*next_close)(int) = nullptr;
int (*next_dup2)(int, int) = nullptr;
int (*next_dup3)(int, int, int) = nullptr;

template <typename Function>
void Find(Function& function, const char* name) {
  function = reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

__attribute__((constructor(101))) void FindAll() {
  Find(next_write, "write");
  Find(next_close, "close");
  Find(next_dup2, "dup2");
  Find(next_dup3, "dup3");
}

// Which thread closed a descriptor of ours last, by the low bits of the descriptor: both in a word.
std::array<std::atomic<uint64_t>, 64> closed_by;
std::atomic<uint64_t>& ClosedWordOf(int fd) { return closed_by[static_cast<size_t>(fd) % 64]; }
uint64_t CloserOf(int fd, pid_t thread) {
  return uint64_t{static_cast<uint32_t>(fd)} << 32 | static_cast<uint32_t>(thread);
}

void Forget(int fd) {
  if (!IsOurs(fd)) return;
  ClosedWordOf(fd).store(CloserOf(fd, gettid()));
  WordOf(fd).fetch_and(~BitOf(fd));
  cm_close(fd);
}

// A thread asks for the events of a channel that another one has just closed: rping does when it
// ends, and takes an error for a failure. Against the kernel it asks before that, since everything
// takes longer there, and waits for as long as the process lives: so it does here.
void WaitAsTheKernelWould(int fd, const void* bytes, size_t size) {
  rdma_ucm_cmd_hdr header;
  if (fd < 0 || size < sizeof(header)) return;
  const uint64_t closed = ClosedWordOf(fd).load();
  if (closed >> 32 != static_cast<uint32_t>(fd) || closed == CloserOf(fd, gettid())) return;
  std::memcpy(&header, bytes, sizeof(header));
  while (header.cmd == RDMA_USER_CM_CMD_GET_EVENT) pause();  // may be cancelled
}

// The numbers of the kernel's own device, where there is one: librdmacm asks for them by netlink
// and compares.
dev_t KernelsDevice() {
  unsigned major_number = 10, minor_number = 0;  // misc
  if (FILE* const file = std::fopen("/sys/class/misc/rdma_cm/dev", "re")) {
    if (std::fscanf(file, "%u:%u", &major_number, &minor_number) != 2) major_number = 10;
    std::fclose(file);
  }
  return makedev(major_number, minor_number);
}

template <typename Stat>
void ShowAsDevice(Stat* out) {
  out->st_mode = S_IFCHR | 0666;
  out->st_rdev = KernelsDevice();
}

}  // namespace

int OpenConnectionManagerFile(int flags) {
  static const bool found = [] {
    cm_open = In<int (*)(int)>("sumac_rdma_cm_open");
    cm_write = In<ssize_t (*)(int, const void*, size_t)>("sumac_rdma_cm_write");
    cm_close = In<void (*)(int)>("sumac_rdma_cm_close");
    return cm_open != nullptr && cm_write != nullptr && cm_close != nullptr;
  }();
  if (!found) {
    errno = ENXIO;
    return -1;
  }
  const int fd = cm_open(flags);
  if (fd >= kDescriptorsMax) {
    cm_close(fd);
    next_close(fd);
    errno = EMFILE;
    return -1;
  }
  if (fd >= 0) WordOf(fd).fetch_or(BitOf(fd));
  return fd;
}

}  // namespace sumac::soft_nic::interpose

using namespace sumac::soft_nic::interpose;  // NOLINT: C functions live in no namespace

SUMAC_EXPORT ssize_t write(int fd, const void* bytes, size_t size) {
  if (next_write == nullptr) return syscall(SYS_write, fd, bytes, size);
  const ssize_t written = IsOurs(fd) ? cm_write(fd, bytes, size) : next_write(fd, bytes, size);
  if (written < 0 && errno == EBADF) WaitAsTheKernelWould(fd, bytes, size);
  return written;
}

SUMAC_EXPORT int close(int fd) {
  Forget(fd);
  if (next_close == nullptr) return static_cast<int>(syscall(SYS_close, fd));
  return next_close(fd);
}

SUMAC_EXPORT int dup2(int from, int to) {
  if (from != to) Forget(to);
  return next_dup2(from, to);
}

SUMAC_EXPORT int dup3(int from, int to, int flags) {
  if (from != to) Forget(to);
  return next_dup3(from, to, flags);
}

// NOLINTBEGIN(bugprone-macro-parentheses): types and lists can't be put into parentheses
#define SUMAC_FSTAT_CALL(name, parameters, arguments)                                      \
  SUMAC_EXPORT int name parameters {                                                       \
    static const auto next = reinterpret_cast<int(*) parameters>(dlsym(RTLD_NEXT, #name)); \
    const int result = next arguments;                                                     \
    if (result == 0 && IsOurs(fd)) ShowAsDevice(out);                                      \
    return result;                                                                         \
  }                                                                                        \
  static_assert(true)
// NOLINTEND(bugprone-macro-parentheses)

SUMAC_FSTAT_CALL(fstat, (int fd, struct stat* out), (fd, out));
SUMAC_FSTAT_CALL(fstat64, (int fd, struct stat64* out), (fd, out));
// What the same calls were before glibc 2.33.
SUMAC_FSTAT_CALL(__fxstat, (int version, int fd, struct stat* out), (version, fd, out));
SUMAC_FSTAT_CALL(__fxstat64, (int version, int fd, struct stat64* out), (version, fd, out));
