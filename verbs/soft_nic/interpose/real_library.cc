#include "verbs/soft_nic/interpose/real_library.h"

#include <dlfcn.h>
#include <link.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <string>

namespace sumac::soft_nic::interpose {
namespace {

// One slot for each symbol that is passed on unseen (generated; see generate_symbols.py).
struct PassedOn {
  const char* name;
  const char* version;
};
// NOLINTBEGIN(readability-identifier-naming): assembler and C names
extern "C" {
extern const PassedOn sumac_passed_on[];
extern const size_t sumac_passed_on_count;
extern void* sumac_passed_on_target[];
// Data that provider libraries read; as the real library sets it.
extern bool verbs_allow_disassociate_destroy;
bool verbs_allow_disassociate_destroy = false;
}
// NOLINTEND(readability-identifier-naming)

bool SameFile(const char* one, const char* other) {
  struct stat a, b;
  return stat(one, &a) == 0 && stat(other, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

void* OpenRealLibrary() {
  Dl_info self{};
  dladdr(reinterpret_cast<void*>(&OpenRealLibrary), &self);
  const auto open = [&self](const std::string& folder) -> void* {
    const std::string path = folder + "/libibverbs.so.1";
    if (path.front() != '/' || SameFile(path.c_str(), self.dli_fname)) return nullptr;
    return dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  };
  // As the loader would look for it: LD_LIBRARY_PATH, then the folders of the system.
  if (const char* variable = std::getenv("LD_LIBRARY_PATH")) {
    const std::string folders = variable;
    for (size_t at = 0; at < folders.size();) {
      const size_t end = std::min(folders.find(':', at), folders.size());
      if (end > at) {
        if (void* library = open(folders.substr(at, end - at))) return library;
      }
      at = end + 1;
    }
  }
  for (const char* folder : {SUMAC_LIBIBVERBS_FOLDER, "/usr/lib64", "/usr/lib"}) {
    if (void* library = open(folder)) return library;
  }
  return nullptr;
}

void* RealLibrary() {
  static void* const library = OpenRealLibrary();
  return library;
}

// What symbols lead to that the real library does not have.
void* Missing() {
  errno = ENOSYS;
  return nullptr;
}

__attribute__((constructor)) void Connect() {
  verbs_allow_disassociate_destroy = std::getenv("RDMAV_ALLOW_DISASSOC_DESTROY") != nullptr;
  for (size_t i = 0; i < sumac_passed_on_count; ++i) {
    void* const target = RealSymbol(sumac_passed_on[i].name, sumac_passed_on[i].version);
    sumac_passed_on_target[i] = target != nullptr ? target : reinterpret_cast<void*>(&Missing);
  }
}

}  // namespace

void* RealSymbol(const char* name, const char* version) {
  return RealLibrary() == nullptr ? nullptr : dlvsym(RealLibrary(), name, version);
}

}  // namespace sumac::soft_nic::interpose
