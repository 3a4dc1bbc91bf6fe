// Domains in processes of their own: the fixture of multi-process tests of this floor.
//
// Header-only; used inside the body of a test_support::ForkedJob. Ranks leave together (Barrier),
// since the end of a rank's memory is an error for who still uses it.
#pragma once

#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

#include "runtime/domain.h"
#include "transport/bootstrap/bootstrap.h"

namespace sumac::runtime::testing {

inline constexpr absl::Duration kPatience = absl::Seconds(60);
inline absl::Time Deadline() { return absl::Now() + kPatience; }

// What stops a rank's part of a test: ForkedRanks reports it with the rank's output.
template <typename T>
T Must(absl::StatusOr<T> result) {
  if (!result.ok()) throw std::runtime_error(result.status().ToString());
  return *std::move(result);
}
inline void Must(const absl::Status& status) {
  if (!status.ok()) throw std::runtime_error(status.ToString());
}

class DomainRank {
 public:
  explicit DomainRank(const transport::BootstrapOptions& options)
      : bootstrap_(Must(transport::Bootstrap::Join(options))), domain_(MakeDomain("0")) {}

  int rank() const { return bootstrap_->rank(); }
  int size() const { return bootstrap_->size(); }
  transport::Bootstrap& bootstrap() { return *bootstrap_; }
  Domain& domain() { return *domain_; }

  std::unique_ptr<Domain> MakeDomain(const std::string& name) {
    DomainOptions options;
    options.name = name;
    options.timeout = kPatience;
    return Must(Domain::Create(*bootstrap_, options));
  }

  void Barrier() { Must(bootstrap_->Barrier(absl::StrCat("test/", barriers_++), kPatience)); }

  // Gives `mine` to all; what all gave, by rank.
  std::vector<Capability> Swap(const Capability& mine) {
    const auto records = Must(bootstrap_->Exchange(absl::StrCat("capabilities/", barriers_++),
                                                   mine.Serialize(), kPatience));
    std::vector<Capability> capabilities;
    for (const std::string& record : records) {
      capabilities.push_back(Must(Capability::Parse(record)));
    }
    return capabilities;
  }

 private:
  std::unique_ptr<transport::Bootstrap> bootstrap_;
  std::unique_ptr<Domain> domain_;
  int barriers_ = 0;
};

}  // namespace sumac::runtime::testing
