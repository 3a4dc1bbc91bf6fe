#include "verbs/soft_nic/interpose/counter_files.h"

#include <dlfcn.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <string>

namespace sumac::soft_nic::interpose {
namespace {

// One that is open. Closing it is not seen: the inode tells whether a descriptor is still it.
struct OpenFile {
  int fd = -1;
  ino_t inode = 0;
  std::string name;
};

constexpr size_t kOpenMax = 64;  // more are read once, and never brought up to date
std::atomic<size_t> open_count{0};
std::mutex mutex;  // guards open_files
std::array<OpenFile, kOpenMax>& OpenFiles() {
  static auto* const files = new std::array<OpenFile, kOpenMax>;
  return *files;
}

bool ReadCounter(const char* name, uint64_t* value) {
  // Of the libibverbs.so.1 beside this library, which knows.
  static const auto read = reinterpret_cast<bool (*)(const char*, uint64_t*)>(
      dlsym(RTLD_DEFAULT, "sumac_soft_port_counter"));
  return read != nullptr && read(name, value);
}

bool Fill(int fd, uint64_t value) {
  char text[24];
  const int length = std::snprintf(text, sizeof(text), "%" PRIu64 "\n", value);
  return ftruncate(fd, 0) == 0 && pwrite(fd, text, static_cast<size_t>(length), 0) == length;
}

ino_t InodeOf(int fd) {
  struct stat status {};
  return fstat(fd, &status) == 0 ? status.st_ino : 0;
}

}  // namespace

int OpenCounter(const char* file) {
  constexpr char kPort[] = "/ports/1/";
  constexpr size_t kLength = sizeof(kPort) - 1;
  if (file == nullptr || std::strncmp(file, kPort, kLength) != 0) return -1;
  const char* const name = file + kLength;
  if (std::strncmp(name, "counters/", 9) != 0 && std::strncmp(name, "hw_counters/", 12) != 0) {
    return -1;
  }
  uint64_t value = 0;
  if (!ReadCounter(name, &value)) return -1;
  const int fd = memfd_create("counter", MFD_CLOEXEC);
  if (fd < 0) return -1;
  if (!Fill(fd, value)) {
    close(fd);
    return -1;
  }
  const std::lock_guard lock(mutex);
  for (OpenFile& open : OpenFiles()) {
    if (open.fd >= 0 && InodeOf(open.fd) == open.inode && open.fd != fd) continue;
    if (open.fd < 0) open_count.fetch_add(1);
    open = {fd, InodeOf(fd), name};
    break;
  }
  return fd;
}

void RefreshCounter(int fd) {
  if (open_count.load(std::memory_order_relaxed) == 0) return;
  std::string name;
  {
    const std::lock_guard lock(mutex);
    for (const OpenFile& file : OpenFiles()) {
      if (file.fd == fd && InodeOf(fd) == file.inode) name = file.name;
    }
  }
  if (name.empty() || lseek(fd, 0, SEEK_CUR) != 0) return;
  uint64_t value = 0;
  if (ReadCounter(name.c_str(), &value)) Fill(fd, value);
}

}  // namespace sumac::soft_nic::interpose
