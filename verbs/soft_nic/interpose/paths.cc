// Files of the soft NIC that programs look for by themselves, beside what they ask of libibverbs.
//
// librdmacm talks to /dev/infiniband/rdma_cm (rdma_cm_file.h).
// UCX takes a device only if /dev/infiniband/NAME is a character device; NCCL, perftest and UCX
// read /sys/class/infiniband/NAME. Paths that begin so, with the soft NIC's name, lead to a small
// made-up tree beside this library; everything else is passed on as it is. A library of its own,
// because its functions must not carry libibverbs' versions. Any thread; no state.

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "verbs/soft_nic/interpose/counter_files.h"
#include "verbs/soft_nic/interpose/rdma_cm_file.h"

#define SUMAC_EXPORT extern "C" __attribute__((visibility("default")))

using sumac::soft_nic::interpose::OpenCounter;
using sumac::soft_nic::interpose::RefreshCounter;

namespace {

using sumac::soft_nic::interpose::kConnectionManager;
using sumac::soft_nic::interpose::OpenConnectionManagerFile;

constexpr char kSysfs[] = "/sys/class/infiniband/soft0";
constexpr char kInterfaces[] = "/sys/class/infiniband/soft0/device/net";
constexpr char kCharacterDevice[] = "/dev/infiniband/soft0";

bool Begins(const char* path, const char* prefix, size_t length) {
  return std::strncmp(path, prefix, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

// The folder of this library, with the made-up tree in it.
const std::string& Tree() {
  static const std::string* const tree = [] {
    Dl_info self{};
    dladdr(reinterpret_cast<void*>(&Tree), &self);
    const std::string library = self.dli_fname != nullptr ? self.dli_fname : "";
    return new std::string(library.substr(0, library.rfind('/') + 1) + "sysfs/soft0");
  }();
  return *tree;
}

// The tree has the loopback interface as the device's; with another address it would be wrong.
bool IsOnLoopback() {
  const char* const interface = std::getenv("SUMAC_SOFT_INTERFACE");
  return interface == nullptr || *interface == '\0';
}

// Where `path` leads; `room` keeps the text as long as it is needed.
const char* Lead(const char* path, std::string& room) {
  if (path == nullptr) return path;
  if (std::strcmp(path, kCharacterDevice) == 0 || std::strcmp(path, kConnectionManager) == 0) {
    return "/dev/null";
  }
  if (!Begins(path, kSysfs, sizeof(kSysfs) - 1)) return path;
  if (Begins(path, kInterfaces, sizeof(kInterfaces) - 1) && !IsOnLoopback()) return path;
  room = Tree() + (path + sizeof(kSysfs) - 1);
  return room.c_str();
}

bool IsConnectionManager(const char* path) {
  return path != nullptr && std::strcmp(path, kConnectionManager) == 0;
}

// What comes after .../soft0 in a path that Lead gave, or that realpath told a program; null: it is
// no path of the tree.
const char* InTree(const char* path) {
  if (path == nullptr || path[0] != '/') return nullptr;
  const std::string& tree = Tree();
  return std::strncmp(path, tree.c_str(), tree.size()) == 0 ? path + tree.size() : nullptr;
}

template <typename Function>
Function Next(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

}  // namespace

// NOLINTBEGIN(bugprone-macro-parentheses): types and lists can't be put into parentheses
// SUMAC_PATH_CALL(result, name, (parameters), (arguments with Lead(path, room))).
#define SUMAC_PATH_CALL(result, name, parameters, arguments)    \
  SUMAC_EXPORT result name parameters {                         \
    static const auto next = Next<result(*) parameters>(#name); \
    std::string room;                                           \
    return next arguments;                                      \
  }                                                             \
  static_assert(true)

// `mode` is there only when the call creates a file; passing 0 else does no harm.
#define SUMAC_MODE(last)                                                         \
  va_list rest;                                                                  \
  va_start(rest, last);                                                          \
  const bool creates = (last & O_CREAT) != 0 || (last & O_TMPFILE) == O_TMPFILE; \
  const mode_t mode = creates ? va_arg(rest, mode_t) : 0;                        \
  va_end(rest)
#define SUMAC_OPEN_CALL(name, name_at)                                               \
  SUMAC_EXPORT int name(const char* path, int flags, ...) {                          \
    static const auto next = Next<int (*)(const char*, int, mode_t)>(#name);         \
    SUMAC_MODE(flags);                                                               \
    if (IsConnectionManager(path)) return OpenConnectionManagerFile(flags);          \
    std::string room;                                                                \
    const char* const led = Lead(path, room);                                        \
    if (const int counter = OpenCounter(InTree(led)); counter >= 0) return counter;  \
    return next(led, flags, mode);                                                   \
  }                                                                                  \
  SUMAC_EXPORT int name_at(int folder, const char* path, int flags, ...) {           \
    static const auto next = Next<int (*)(int, const char*, int, mode_t)>(#name_at); \
    SUMAC_MODE(flags);                                                               \
    if (IsConnectionManager(path)) return OpenConnectionManagerFile(flags);          \
    std::string room;                                                                \
    const char* const led = Lead(path, room);                                        \
    if (const int counter = OpenCounter(InTree(led)); counter >= 0) return counter;  \
    return next(folder, led, flags, mode);                                           \
  }                                                                                  \
  static_assert(true)
// NOLINTEND(bugprone-macro-parentheses)

#define SUMAC_FOPEN_CALL(name)                                                 \
  SUMAC_EXPORT FILE* name(const char* path, const char* mode) {                \
    static const auto next = Next<FILE* (*)(const char*, const char*)>(#name); \
    std::string room;                                                          \
    const char* const led = Lead(path, room);                                  \
    const int counter = OpenCounter(InTree(led));                              \
    return counter >= 0 ? fdopen(counter, "r") : next(led, mode);              \
  }                                                                            \
  static_assert(true)

SUMAC_OPEN_CALL(open, openat);
SUMAC_FOPEN_CALL(fopen);
SUMAC_FOPEN_CALL(fopen64);
SUMAC_PATH_CALL(DIR*, opendir, (const char* path), (Lead(path, room)));
SUMAC_PATH_CALL(int, access, (const char* path, int mode), (Lead(path, room), mode));
SUMAC_PATH_CALL(ssize_t, readlink, (const char* path, char* text, size_t size),
                (Lead(path, room), text, size));
SUMAC_PATH_CALL(char*, realpath, (const char* path, char* out), (Lead(path, room), out));
SUMAC_OPEN_CALL(open64, openat64);
SUMAC_PATH_CALL(char*, __realpath_chk, (const char* path, char* out, size_t size),
                (Lead(path, room), out, size));
SUMAC_PATH_CALL(int, stat, (const char* path, struct stat* out), (Lead(path, room), out));
SUMAC_PATH_CALL(int, stat64, (const char* path, struct stat64* out), (Lead(path, room), out));
SUMAC_PATH_CALL(int, lstat, (const char* path, struct stat* out), (Lead(path, room), out));
SUMAC_PATH_CALL(int, lstat64, (const char* path, struct stat64* out), (Lead(path, room), out));
SUMAC_PATH_CALL(int, fstatat, (int folder, const char* path, struct stat* out, int flags),
                (folder, Lead(path, room), out, flags));
SUMAC_PATH_CALL(int, fstatat64, (int folder, const char* path, struct stat64* out, int flags),
                (folder, Lead(path, room), out, flags));
SUMAC_PATH_CALL(int, statx,
                (int folder, const char* path, int flags, unsigned mask, struct statx* out),
                (folder, Lead(path, room), flags, mask, out));
SUMAC_EXPORT ssize_t read(int fd, void* out, size_t size) {
  static const auto next = Next<ssize_t (*)(int, void*, size_t)>("read");
  RefreshCounter(fd);
  return next(fd, out, size);
}
// What the same calls were before glibc 2.33.
SUMAC_PATH_CALL(int, __xstat, (int version, const char* path, struct stat* out),
                (version, Lead(path, room), out));
SUMAC_PATH_CALL(int, __xstat64, (int version, const char* path, struct stat64* out),
                (version, Lead(path, room), out));
SUMAC_PATH_CALL(int, __lxstat, (int version, const char* path, struct stat* out),
                (version, Lead(path, room), out));
SUMAC_PATH_CALL(int, __lxstat64, (int version, const char* path, struct stat64* out),
                (version, Lead(path, room), out));
