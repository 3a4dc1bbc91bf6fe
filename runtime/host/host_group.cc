#include "runtime/host/host_group.h"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <new>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "runtime/host/host_record.h"

namespace sumac::runtime {
namespace {

// The verdict of a rank that can do everything; of one that can map the others only: nothing.
const std::string kCanCopy = "copies";

uint64_t DrawNonce() {
  std::random_device random;
  const uint64_t high = random();
  return (high << 32 | random()) | 1;
}

// Lets this process take part in the membarriers of others (Linux 4.16).
bool RegisterForMembarrier() {
  return ::syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0) == 0;
}

}  // namespace

HostGroup::HostGroup(transport::Bootstrap& bootstrap, std::shared_ptr<Mapping> mapping)
    : bootstrap_(bootstrap),
      rank_(bootstrap.rank()),
      mapping_(std::move(mapping)),
      members_(static_cast<size_t>(bootstrap.size())) {
  if (mapping_ == nullptr) return;
  own_ = new (mapping_->data()) Header;
  Member& own = members_[static_cast<size_t>(rank_)];
  own.header = own_;
  own.area = mapping_->data() + sizeof(Header);
  own.pid = ::getpid();
}

HostGroup::~HostGroup() { Leave(); }

absl::StatusOr<std::shared_ptr<HostGroup>> HostGroup::Create(transport::Bootstrap& bootstrap,
                                                             const HostGroupOptions& options) {
  HostRecord record;
  record.refusal = options.refusal;
  std::shared_ptr<Mapping> mapping;
  if (record.refusal.empty()) {
    auto host = OwnHost();
    auto made = Mapping::Create(absl::StrCat("sumac-host-", options.name),
                                sizeof(Header) + options.area_bytes);
    if (host.ok()) record = *host;
    if (!host.ok()) {
      record.refusal = std::string(host.status().message());
    } else if (!made.ok()) {
      record.refusal = std::string(made.status().message());
    } else if (auto file = DescribeMemoryFile((*made)->fd(), (*made)->size()); file.ok()) {
      record.area = *file;
      mapping = *std::move(made);
    } else {
      record.refusal = std::string(file.status().message());
    }
  }
  const std::shared_ptr<HostGroup> group(new HostGroup(bootstrap, std::move(mapping)));
  if (group->own_ != nullptr) {
    record.nonce = group->own_->nonce = DrawNonce();
    record.nonce_address = reinterpret_cast<uintptr_t>(&group->own_->nonce);
    record.asymmetric_fence = RegisterForMembarrier();
  }

  const auto exchange = [&](const char* what, const std::string& value) {
    return bootstrap.Exchange(absl::StrCat("host/", options.name, "/", what), value,
                              options.timeout);
  };
  const auto records = exchange("records", record.Serialize());
  if (!records.ok()) return records.status();
  // All ranks see the same records, so all come to the same end here.
  const auto first = HostRecord::Parse(records->front());
  for (size_t rank = 0; rank < records->size(); ++rank) {
    const auto each = HostRecord::Parse((*records)[rank]);
    const std::string why = !first.ok()  ? std::string(first.status().message())
                            : !each.ok() ? std::string(each.status().message())
                                         : WhyApart(*first, *each);
    if (!why.empty()) return absl::FailedPreconditionError(absl::StrCat("rank ", rank, ": ", why));
  }
  // Who can't map the others tells them, and who can't copy.
  const std::string refusal = group->MapOthers(*records);
  const auto verdicts =
      exchange("verdicts", refusal.empty() && group->can_copy_ ? kCanCopy : refusal);
  if (!verdicts.ok()) return verdicts.status();
  for (size_t rank = 0; rank < verdicts->size(); ++rank) {
    const std::string& why = (*verdicts)[rank];
    if (why == kCanCopy) continue;
    group->can_copy_ = false;
    if (!why.empty()) {
      return absl::FailedPreconditionError(absl::StrCat("rank ", rank, ": ", why));
    }
  }
  return group;
}

std::string HostGroup::MapOthers(const std::vector<std::string>& values) {
  bool all_registered = true;
  std::vector<std::string> cpus;
  for (size_t rank = 0; rank < values.size(); ++rank) {
    const auto record = HostRecord::Parse(values[rank]);
    if (!record.ok()) return std::string(record.status().message());
    cpus.push_back(record->cpus);
    all_registered = all_registered && record->asymmetric_fence;
    if (static_cast<int>(rank) == rank_) continue;
    auto memory = PeerMemory::Open(record->area);
    if (!memory.ok()) {
      return absl::StrCat("the memory of rank ", rank, ": ", memory.status().message());
    }
    Member& member = members_[rank];
    member.memory = *std::move(memory);
    member.header = std::launder(reinterpret_cast<Header*>(member.memory.data()));
    member.area = member.memory.data() + sizeof(Header);
    member.pid = record->area.pid;
    if (member.header->nonce != record->nonce) {
      return absl::StrCat("the memory of rank ", rank, " is another file's");
    }
    can_copy_ =
        can_copy_ && FindsNonce(static_cast<int>(rank), record->nonce_address, record->nonce);
  }
#if defined(__SANITIZE_THREAD__)
  all_registered = false;  // it does not know of membarriers
#endif
  fence_ = !all_registered;
  oversubscribed_ = size() > CountCpus(cpus);
  return "";
}

void HostGroup::Leave() {
  if (own_ != nullptr) own_->left.store(1, std::memory_order_release);
}

}  // namespace sumac::runtime
