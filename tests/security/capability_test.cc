// Forged capabilities between two real processes: the target's NIC refuses, no byte changes.
//
// A forger has the record's layout and the checksum; what it lacks is a grant. Each case is a
// domain of its own, because a refusal ends the connection.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "runtime/domain.h"
#include "runtime/testing/domain_rank.h"
#include "tests/support/job.h"

namespace sumac::runtime {
namespace {

using test_support::ForkedJob;
using testing::DomainRank;
using ::testing::HasSubstr;
using testing::Must;

constexpr std::chrono::seconds kJobTime{200};
constexpr size_t kBytes = 3 * 4096;
constexpr size_t kGranted = 4096;  // the middle page; the others are guards
constexpr std::byte kGuard{0xa5};
constexpr std::byte kMine{0x3c};

struct Operation {
  const char* name;
  uint32_t right;
  std::function<absl::Status(Domain&, const Capability&, const Segment&)> run;
};

const std::vector<Operation>& Operations() {
  static const std::vector<Operation> operations = {
      {"put", kRightPut,
       [](Domain& d, const Capability& c, const Segment& mine) {
         return d.Put(c, 0, mine.Slice(0, c.length)).status();
       }},
      {"put of a byte at the end", kRightPut,
       [](Domain& d, const Capability& c, const Segment& mine) {
         return d.Put(c, c.length - 1, mine.Slice(0, 1)).status();
       }},
      {"put with signal", kRightPut,
       [](Domain& d, const Capability& c, const Segment& mine) {
         return d.PutWithSignal(c, 0, mine.Slice(0, c.length), {.rank = 1, .id = 0}).status();
       }},
      {"get", kRightGet,
       [](Domain& d, const Capability& c, const Segment& mine) {
         return d.Get(c, 0, mine.Slice(0, c.length)).status();
       }},
      {"fetch-add", kRightAtomic,
       [](Domain& d, const Capability& c, const Segment&) {
         return d.FetchAdd(c, c.length / 8 * 8 - 8, 1).status();
       }},
      {"compare-swap", kRightAtomic,
       [](Domain& d, const Capability& c, const Segment&) {
         return d.CompareSwap(c, c.length / 8 * 8 - 8, 0xa5a5a5a5a5a5a5a5, 1).status();
       }},
  };
  return operations;
}

struct Forgery {
  const char* name;
  std::function<void(Capability&)> forge;
  uint32_t granted = kAllRights;
};

// Each makes every operation above reach outside what was granted (at its first or last byte), or
// use a key that is none.
const std::vector<Forgery>& Forgeries() {
  static const std::vector<Forgery> forgeries = {
      {"next key", [](Capability& c) { c.rkey += 1; }},
      {"previous key", [](Capability& c) { c.rkey -= 1; }},
      {"key with another top bit", [](Capability& c) { c.rkey ^= 0x80000000; }},
      {"key 0", [](Capability& c) { c.rkey = 0; }},
      {"page before", [](Capability& c) { c.base -= kGranted; }},
      {"page behind", [](Capability& c) { c.base += kGranted; }},
      {"eight bytes more", [](Capability& c) { c.length += 8; }},
      {"shifted by eight", [](Capability& c) { c.base += 8; }},
      {"null page", [](Capability& c) { c.base = 0; }},
      {"top of the address space", [](Capability& c) { c.base = ~uint64_t{0} - 8191; }},
  };
  return forgeries;
}

bool AllAre(const Segment& segment, std::byte value) {
  return std::all_of(segment.data(), segment.data() + segment.size(),
                     [value](std::byte b) { return b == value; });
}

// One side of one case. Rank 1 grants the middle page of guarded memory; rank 0 forges and tries.
void RunCase(DomainRank& self, const std::string& name, const Operation& operation,
             const Forgery& forgery) {
  SCOPED_TRACE(name);
  static int cases = 0;  // a domain's name is used once
  const auto domain = self.MakeDomain(absl::StrCat("case-", cases++));
  const Segment memory = Must(domain->Allocate(kBytes));
  std::fill_n(memory.data(), kBytes, self.rank() == 1 ? kGuard : kMine);
  const Signal signal = Must(domain->CreateSignal());
  const Grant grant = Must(domain->MakeGrant(memory, kGranted, kGranted, forgery.granted));
  Capability forged = self.Swap(grant.capability())[1];
  if (self.rank() == 0) {
    forgery.forge(forged);
    forged = Must(Capability::Parse(forged.Serialize()));
    absl::Status status = operation.run(*domain, forged, memory);
    if (status.ok()) status = domain->Flush(1);
    EXPECT_TRUE(absl::IsPermissionDenied(status)) << status;
    EXPECT_THAT(status.message(), HasSubstr("rank 1"));
    EXPECT_TRUE(AllAre(memory, kMine)) << "a refused operation changed local bytes";
    // It stays refused; a good capability doesn't help any more.
    EXPECT_FALSE(domain->Put(forged, 0, memory.Slice(0, 1)).ok());
  }
  self.Barrier();
  if (self.rank() == 1) {
    domain->Progress();
    EXPECT_TRUE(AllAre(memory, kGuard)) << "a refused operation changed bytes";
    EXPECT_EQ(domain->SignalValue(signal, 0), 0u);
  }
  self.Barrier();
}

TEST(ForgedCapabilityTest, KeysAndRanges) {
  ForkedJob job(2, [](const transport::BootstrapOptions& options) {
    DomainRank self(options);
    for (const Forgery& forgery : Forgeries()) {
      for (const Operation& operation : Operations()) {
        RunCase(self, absl::StrCat(forgery.name, ", ", operation.name), operation, forgery);
      }
    }
  });
  job.ExpectAllOk(kJobTime);
}

TEST(ForgedCapabilityTest, Rights) {
  ForkedJob job(2, [](const transport::BootstrapOptions& options) {
    DomainRank self(options);
    for (const uint32_t granted : {1u, 2u, 3u, 4u, 5u, 6u}) {
      for (const Operation& operation : Operations()) {
        if ((granted & operation.right) != 0) continue;
        RunCase(self, absl::StrCat(RightsToString(granted), " for ", operation.name), operation,
                {"rights", [](Capability& c) { c.rights = kAllRights; }, granted});
      }
    }
  });
  job.ExpectAllOk(kJobTime);
}

// Keys of another domain of the same process, and of a grant that was dropped.
TEST(ForgedCapabilityTest, ForeignAndRevokedKeys) {
  ForkedJob job(2, [](const transport::BootstrapOptions& options) {
    DomainRank self(options);
    const Segment other = Must(self.domain().Allocate(kBytes));
    std::fill_n(other.data(), kBytes, kGuard);
    const Grant foreign = Must(self.domain().MakeGrant(other, 0, kBytes, kAllRights));
    const Capability theirs = self.Swap(foreign.capability())[1];
    for (const Operation& operation : Operations()) {
      RunCase(self, absl::StrCat("foreign key, ", operation.name), operation,
              {"foreign", [&](Capability& c) {
                 c.rkey = theirs.rkey;
                 c.base = theirs.base;
               }});
    }
    if (self.rank() == 1) {
      EXPECT_TRUE(AllAre(other, kGuard));
    }

    Capability revoked;
    {
      const Grant shortly = Must(self.domain().MakeGrant(other, 0, kBytes, kAllRights));
      revoked = self.Swap(shortly.capability())[1];
      if (self.rank() == 0) {
        Must(self.domain().Get(revoked, 0, other.Slice(0, kBytes)));
        Must(self.domain().Flush());
      }
      self.Barrier();
    }
    self.Barrier();
    if (self.rank() == 0) {
      absl::Status status = self.domain().Put(revoked, 0, other.Slice(0, kBytes)).status();
      if (status.ok()) status = self.domain().Flush(1);
      EXPECT_TRUE(absl::IsPermissionDenied(status)) << status;
    }
    self.Barrier();
    if (self.rank() == 1) {
      EXPECT_TRUE(AllAre(other, kGuard));
    }
  });
  job.ExpectAllOk(kJobTime);
}

// Every other tampered field is found out before anything is sent, and does not end the connection.
TEST(ForgedCapabilityTest, IdentitiesAreRefusedByTheClient) {
  ForkedJob job(2, [](const transport::BootstrapOptions& options) {
    DomainRank self(options);
    Domain& domain = self.domain();
    const Segment memory = Must(domain.Allocate(kBytes));
    const Grant grant = Must(domain.MakeGrant(memory, 0, kBytes, kAllRights));
    const Capability good = self.Swap(grant.capability())[1];
    if (self.rank() == 0) {
      const auto code = [&](const std::function<void(Capability&)>& change) {
        Capability c = good;
        change(c);
        return domain.Put(c, 0, memory.Slice(0, 8)).status().code();
      };
      using absl::StatusCode;
      EXPECT_EQ(code([](Capability& c) { c.node_epoch ^= 1; }), StatusCode::kFailedPrecondition);
      EXPECT_EQ(code([](Capability& c) { c.domain += 1; }), StatusCode::kFailedPrecondition);
      EXPECT_EQ(code([](Capability& c) { c.generation += 1; }), StatusCode::kFailedPrecondition);
      EXPECT_EQ(code([](Capability& c) { c.rank = 0; }), StatusCode::kFailedPrecondition);
      EXPECT_EQ(code([](Capability& c) { c.rank = 2; }), StatusCode::kInvalidArgument);
      EXPECT_EQ(code([](Capability& c) { c.rights = kRightGet; }), StatusCode::kPermissionDenied);
      EXPECT_EQ(code([](Capability& c) { c.length = 7; }), StatusCode::kOutOfRange);
      Must(domain.Put(good, 0, memory.Slice(0, 8)));
      Must(domain.Flush());
    }
    self.Barrier();
  });
  job.ExpectAllOk(kJobTime);
}

}  // namespace
}  // namespace sumac::runtime
