#include "cli/perf/runner.h"

int main(int argc, char** argv) {
  return sumac::cli::PerfMain(sumac::cli::Collective::kAllReduce, argc, argv);
}
