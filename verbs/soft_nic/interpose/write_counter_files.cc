// Writes the files of soft0's counters into the made-up /sys, for programs that list them; whoever
// opens one gets its value of now (paths.cc). Runs during the build.
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "verbs/port_counters.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
    return 2;
  }
  const std::filesystem::path port = argv[1];
  // Of an address that nobody has: all names, and nothing but zeros.
  for (const auto& counter : sumac::verbs::ReadSoftPortCounters("nowhere").counters) {
    std::filesystem::create_directories(port / counter.group);
    std::ofstream(port / counter.group / counter.name) << counter.value << "\n";
  }
  return 0;
}
