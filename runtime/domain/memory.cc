// Segments, registrations, grants: memory that the NIC knows, and for whom.

#include <utility>

#include "absl/strings/str_cat.h"

#include "runtime/domain/impl.h"

namespace sumac::runtime {
namespace {

LocalSlice SliceOf(std::byte* data, size_t size, uint32_t lkey, size_t offset, size_t length) {
  if (offset > size || length > size - offset) return {nullptr, 0, lkey};
  return {data + offset, length, lkey};
}

uint32_t AccessFor(uint32_t rights) {
  uint32_t access = transport::kRemoteNone;
  if ((rights & kRightGet) != 0) access |= transport::kRemoteRead;
  if ((rights & kRightPut) != 0) access |= transport::kRemoteWrite;
  if ((rights & kRightAtomic) != 0) access |= transport::kRemoteAtomic;
  return access;
}

}  // namespace

// Members are dropped from the bottom up: first the NIC forgets the memory, then it goes.
struct Segment::Impl {
  std::shared_ptr<Domain::Impl> domain;
  std::shared_ptr<Mapping> mapping;
  std::unique_ptr<transport::RegisteredMemory> registration;
};

struct Registration::Impl {
  std::shared_ptr<Domain::Impl> domain;
  std::unique_ptr<transport::RegisteredMemory> registration;
};

struct Grant::Impl {
  ~Impl() { domain->grants.Remove(capability.region); }

  std::shared_ptr<Domain::Impl> domain;
  std::shared_ptr<Mapping> mapping;
  std::unique_ptr<transport::RegisteredMemory> registration;
  Capability capability;
};

Segment::Segment(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Segment::Segment(Segment&&) noexcept = default;
Segment& Segment::operator=(Segment&&) noexcept = default;
Segment::~Segment() = default;
std::byte* Segment::data() const { return impl_->mapping->data(); }
size_t Segment::size() const { return impl_->mapping->size(); }
int Segment::fd() const { return impl_->mapping->fd(); }
LocalSlice Segment::Slice(size_t offset, size_t length) const {
  return SliceOf(data(), size(), impl_->registration->lkey(), offset, length);
}

Registration::Registration(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Registration::Registration(Registration&&) noexcept = default;
Registration& Registration::operator=(Registration&&) noexcept = default;
Registration::~Registration() = default;
LocalSlice Registration::Slice(size_t offset, size_t length) const {
  const transport::RegisteredMemory& memory = *impl_->registration;
  return SliceOf(static_cast<std::byte*>(memory.addr()), memory.length(), memory.lkey(), offset,
                 length);
}

Grant::Grant(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Grant::Grant(Grant&&) noexcept = default;
Grant& Grant::operator=(Grant&&) noexcept = default;
Grant::~Grant() = default;
const Capability& Grant::capability() const { return impl_->capability; }

absl::StatusOr<Segment> Domain::Allocate(size_t bytes) {
  auto mapping = Mapping::Create(absl::StrCat("sumac-", impl_->options.name), bytes);
  if (!mapping.ok()) return mapping.status();
  // The whole segment is registered for local use only; peers get in by grants.
  auto registration = impl_->worker->Register((*mapping)->data(), bytes, transport::kRemoteNone);
  if (!registration.ok()) return registration.status();
  auto segment = std::make_unique<Segment::Impl>();
  segment->domain = impl_;
  segment->mapping = *std::move(mapping);
  segment->registration = *std::move(registration);
  return Segment(std::move(segment));
}

absl::StatusOr<Registration> Domain::Register(void* addr, size_t bytes) {
  if (addr == nullptr || bytes == 0) {
    return absl::InvalidArgumentError(absl::StrCat("nothing to register: ", bytes, " bytes at ",
                                                   addr == nullptr ? "null" : "an", " address"));
  }
  auto memory = impl_->worker->Register(addr, bytes, transport::kRemoteNone);
  if (!memory.ok()) return memory.status();
  auto registration = std::make_unique<Registration::Impl>();
  registration->domain = impl_;
  registration->registration = *std::move(memory);
  return Registration(std::move(registration));
}

absl::StatusOr<Grant> Domain::MakeGrant(const Segment& segment, size_t offset, size_t length,
                                        uint32_t rights) {
  if (segment.impl_ == nullptr || segment.impl_->domain != impl_) {
    return absl::InvalidArgumentError("a grant on a segment of another domain");
  }
  if (rights == 0 || (rights & ~kAllRights) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("a grant of ", RightsToString(rights), ": choose from put, get and atomic"));
  }
  if (length == 0 || offset > segment.size() || length > segment.size() - offset) {
    return absl::OutOfRangeError(absl::StrCat("a grant on ", length, " bytes at offset ", offset,
                                              " of a segment of ", segment.size()));
  }
  auto memory = impl_->worker->Register(segment.data() + offset, length, AccessFor(rights));
  if (!memory.ok()) return memory.status();
  auto grant = std::make_unique<Grant::Impl>();
  grant->domain = impl_;
  grant->mapping = segment.impl_->mapping;
  grant->registration = *std::move(memory);
  Capability& c = grant->capability;
  c.rank = impl_->rank();
  c.node_epoch = impl_->identity.node_epoch;
  c.domain = impl_->identity.domain;
  c.generation = impl_->identity.generation;
  c.region = impl_->regions++;
  c.rights = rights;
  c.base = reinterpret_cast<uintptr_t>(segment.data() + offset);
  c.length = length;
  c.rkey = grant->registration->rkey();
  impl_->grants.Add(c);
  return Grant(std::move(grant));
}

}  // namespace sumac::runtime
