#include "verbs/soft_nic/local/shared_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"

#include "verbs/soft_nic/local/board_layout.h"

namespace sumac::soft_nic {
namespace {

uint64_t Identity(dev_t device, ino_t inode) {
  const uint64_t mixed = (uint64_t{device} * 0x9e3779b97f4a7c15ull) ^ uint64_t { inode };
  return mixed != 0 ? mixed : 1;
}

// A shared mapping of a file that covers a whole range.
struct FileRange {
  dev_t device = 0;
  ino_t inode = 0;
  uint64_t offset = 0;
};

// One mapping or several, one behind the other in memory and file. False: something else is there.
bool FindMapping(uint64_t start, uint64_t end, FileRange* found) {
  std::ifstream maps("/proc/self/maps");
  uint64_t covered = start;
  for (std::string line; std::getline(maps, line);) {
    uint64_t from = 0, to = 0, offset = 0, inode = 0;
    unsigned major = 0, minor = 0;
    char rights[8] = {};
    if (std::sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64 " %7s %" SCNx64 " %x:%x %" SCNu64, &from,
                    &to, rights, &offset, &major, &minor, &inode) != 7) {
      return false;
    }
    if (to <= covered) continue;
    if (from > covered || rights[0] != 'r' || rights[3] != 's' || inode == 0) return false;
    const dev_t device = makedev(major, minor);
    if (covered == start) {
      *found = {device, inode, offset + (start - from)};
    } else if (device != found->device || inode != found->inode ||
               offset != found->offset + (covered - start)) {
      return false;
    }
    covered = to;
    if (covered >= end) return true;
  }
  return false;
}

// A new descriptor of an open file of this process that is the one, or none.
UniqueFd FindDescriptor(uint64_t identity) {
  DIR* const list = opendir("/proc/self/fd");
  if (list == nullptr) return UniqueFd();
  UniqueFd found;
  while (const dirent* const entry = readdir(list)) {
    const int fd = std::atoi(entry->d_name);
    if (entry->d_name[0] == '.' || fd == dirfd(list) || IdentityOfSharedFile(fd) != identity) {
      continue;
    }
    found = UniqueFd(fcntl(fd, F_DUPFD_CLOEXEC, 3));
    // The program may have closed it, and opened another, meanwhile.
    if (IdentityOfSharedFile(found.get()) == identity) break;
    found = UniqueFd();
  }
  closedir(list);
  return found;
}

}  // namespace

uint64_t IdentityOfSharedFile(int fd) {
  const int seals = fcntl(fd, F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) return 0;
  struct stat about {};
  return fstat(fd, &about) == 0 ? Identity(about.st_dev, about.st_ino) : 0;
}

SharedPlace SharedFiles::Find(const void* start, size_t bytes) {
  const auto from = reinterpret_cast<uint64_t>(start);
  FileRange range;
  if (!FindMapping(from, from + bytes, &range)) return {};
  const uint64_t page = range.offset / kFilePageBytes;
  if (page > UINT32_MAX) return {};
  const uint64_t identity = Identity(range.device, range.inode);
  const std::lock_guard guard(mutex_);
  Held& held = held_[identity];
  if (!held.fd.valid()) held.fd = FindDescriptor(identity);
  if (!held.fd.valid()) {
    held_.erase(identity);
    return {};
  }
  ++held.regions;
  return {identity, static_cast<uint32_t>(held.fd.get()), static_cast<uint32_t>(page)};
}

void SharedFiles::Release(const SharedPlace& place) {
  if (place.file == 0) return;
  const std::lock_guard guard(mutex_);
  const auto found = held_.find(place.file);
  if (found != held_.end() && --found->second.regions == 0) held_.erase(found);
}

}  // namespace sumac::soft_nic
