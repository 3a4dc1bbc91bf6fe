// Domains of all ranks of a fake job, in one thread: the fixture of the unit tests of this floor.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "runtime/domain.h"
#include "runtime/testing/fake_fabric.h"

namespace sumac::runtime::testing {

class FakeJob {
 public:
  explicit FakeJob(int size, DomainOptions options = {})
      : fabric(size), options_(std::move(options)) {
    options_.worker.name = options_.name;
    for (int rank = 0; rank < size; ++rank) {
      auto domain = Domain::Adopt(fabric.MakeWorker(rank, options_.worker), options_);
      EXPECT_TRUE(domain.ok()) << domain.status();
      domains.push_back(*std::move(domain));
    }
  }

  Domain& operator[](int rank) { return *domains[static_cast<size_t>(rank)]; }

  FakeFabric fabric;
  std::vector<std::unique_ptr<Domain>> domains;

 private:
  DomainOptions options_;
};

// Bytes of a segment, as text.
inline std::string Text(const Segment& segment, size_t offset, size_t length) {
  return {reinterpret_cast<const char*>(segment.data()) + offset, length};
}
inline void SetText(const Segment& segment, size_t offset, const std::string& text) {
  std::copy(text.begin(), text.end(), reinterpret_cast<char*>(segment.data()) + offset);
}

}  // namespace sumac::runtime::testing
