// An outside program: an allreduce among the ranks of whatever launcher started it, one without
// any.
#include <cstdio>
#include <vector>

#include "collectives/communicator.h"

int main() {
  auto communicator = sumac::collectives::Communicator::FromEnvironment();
  if (!communicator.ok()) {
    std::fprintf(stderr, "%s\n", communicator.status().ToString().c_str());
    return 1;
  }
  std::vector<float> values(1000, 2.5f);
  const absl::Status status =
      (*communicator)
          ->AllReduce(values.data(), values.data(), values.size(),
                      sumac::collectives::DataType::kFloat32, sumac::collectives::ReduceOp::kSum);
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
    return 1;
  }
  const float expected = 2.5f * static_cast<float>((*communicator)->size());
  for (const float value : values) {
    if (value != expected) {
      std::fprintf(stderr, "got %g, expected %g\n", value, expected);
      return 1;
    }
  }
  std::printf("allreduce of %zu values among %d ranks: each is %g\n", values.size(),
              (*communicator)->size(), expected);
  return 0;
}
