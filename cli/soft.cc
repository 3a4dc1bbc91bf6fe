#include "cli/soft.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <system_error>

namespace sumac::cli {
namespace {

// bin/sumac and lib/sumac/ stand side by side, as built and as installed. As LD_PRELOAD takes it:
// the library, the one that shows the soft NIC's files, and the one for buffers.
std::string InterposingLibraries() {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return "";
  const auto prefix = self.parent_path().parent_path();
  for (const char* folder : {"lib/sumac", SUMAC_LIBRARY_FOLDER}) {
    const auto verbs = prefix / folder / "libibverbs.so.1";
    const auto paths = prefix / folder / "libsumac_paths.so";
    const auto allocations = prefix / folder / "libsumac_allocations.so";
    if (std::filesystem::exists(verbs, error) && std::filesystem::exists(paths, error) &&
        std::filesystem::exists(allocations, error)) {
      return verbs.string() + ":" + paths.string() + ":" + allocations.string();
    }
  }
  return "";
}

}  // namespace

int RunOnSoftNic(const SoftOptions& options) {
  std::string preload = InterposingLibraries();
  if (preload.empty()) {
    std::fprintf(
        stderr,
        "sumac soft: lib/sumac/libibverbs.so.1, libsumac_paths.so or libsumac_allocations.so "
        "is missing beside this program: build the target sumac_interpose (not in sanitizer "
        "builds)\n");
    return 2;
  }
  if (options.print_preload) {
    std::puts(preload.c_str());
    return 0;
  }
  if (options.command.empty()) {
    std::fprintf(stderr, "sumac soft: which program? sumac soft -- PROGRAM ARGUMENTS\n");
    return 2;
  }
  const char* others = std::getenv("LD_PRELOAD");
  if (others != nullptr && *others != '\0') preload.append(":").append(others);
  setenv("LD_PRELOAD", preload.c_str(), 1);
  if (!options.interface.empty()) {
    setenv("SUMAC_SOFT_INTERFACE", options.interface.c_str(), 1);
  }
  std::vector<char*> arguments;
  for (const std::string& word : options.command) {
    arguments.push_back(const_cast<char*>(word.c_str()));
  }
  arguments.push_back(nullptr);
  execvp(arguments[0], arguments.data());
  const int error = errno;
  std::fprintf(stderr, "sumac soft: %s: %s\n", arguments[0], std::strerror(error));
  return error == ENOENT ? 127 : 126;
}

}  // namespace sumac::cli
