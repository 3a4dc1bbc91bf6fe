// XRC domains: opening, sharing by file, and the numbers of their queues.

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <memory>
#include <mutex>
#include <optional>

#include "absl/strings/str_cat.h"

#include "verbs/log.h"
#include "verbs/soft_nic/device/control_path.h"
#include "verbs/soft_nic/device/limits.h"
#include "verbs/soft_nic/device/shared_receive_queue.h"
#include "verbs/soft_nic/device/soft_context.h"
#include "verbs/soft_nic/device/xrc_domain.h"
#include "verbs/soft_nic/link/abstract_socket.h"

namespace sumac::soft_nic {

SharedReceiveQueue* SoftXrcDomain::Find(uint32_t number) {
  const auto found = queues_.find(number);
  return found != queues_.end() ? &found->second->engine : nullptr;
}

bool SoftXrcDomain::Add(SoftSharedReceiveQueue& queue) {
  constexpr int kDraws = 64;
  for (int i = 0; i < kDraws; ++i) {
    const std::optional<uint32_t> drawn = DrawNumber();
    if (!drawn) return false;
    const uint32_t number = *drawn >> 8;  // 24 bits on the wire
    if (number == 0 || number == 0xffffff || removed_.Holds(number)) continue;
    if (!queues_.try_emplace(number, &queue).second) continue;
    queue.number = number;
    return true;
  }
  return false;
}

void SoftXrcDomain::Remove(SoftSharedReceiveQueue& queue) {
  queues_.erase(queue.number);
  removed_.Add(queue.number);
}

namespace {

// Takes hold of the file. 0 or errno.
int Hold(SoftXrcDomain& domain, int fd, const FileIdentity& identity) {
  domain.identity = identity;
  domain.file = UniqueFd(fcntl(fd, F_DUPFD_CLOEXEC, 0));  // or its number could become another's
  if (!domain.file.valid()) return errno;
  auto claim =
      ListenOnName(absl::StrCat("sumac-xrc-domain-", identity.first, "-", identity.second));
  if (claim.ok()) {
    domain.claim = *std::move(claim);
  } else {
    Log().warn(
        "{}: ibv_open_xrcd: the XRC domain of this file (inode {}) is open elsewhere ({}); soft "
        "NICs "
        "share XRC domains within one device of one process only: this one begins without queues",
        domain.context->device->name, identity.second, std::string(claim.status().message()));
  }
  return 0;
}

SoftXrcDomain* Fail(SoftContext& context, int error) {
  --context.xrc_domains;
  errno = error;
  return nullptr;
}

SoftXrcDomain* Make(ibv_context* context, int fd, const FileIdentity* identity) {
  SoftContext& soft = SoftContext::Of(context);
  if (++soft.xrc_domains > kXrcDomainsMax) return Fail(soft, ENOMEM);
  std::unique_ptr<SoftXrcDomain> made(OrNoMemory([&] { return new SoftXrcDomain(context); }));
  if (made == nullptr) return Fail(soft, ENOMEM);
  if (identity != nullptr) {
    if (const int error = Hold(*made, fd, *identity); error != 0) return Fail(soft, error);
    soft.xrc_files.emplace(*identity, made.get());
  }
  soft.Retain();
  return made.release();
}

}  // namespace

ibv_xrcd* OpenXrcd(ibv_context* context, ibv_xrcd_init_attr* attr) {
  constexpr uint32_t kNeeded = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS;
  if (attr->comp_mask != kNeeded || (attr->oflags & ~(O_CREAT | O_EXCL)) != 0) {
    errno = EINVAL;
    return nullptr;
  }
  if (attr->fd == -1) return Make(context, -1, nullptr);  // nobody else's
  struct stat status {};
  if (fstat(attr->fd, &status) != 0) return nullptr;
  const FileIdentity identity(status.st_dev, status.st_ino);
  SoftContext& soft = SoftContext::Of(context);
  const std::lock_guard guard(soft.xrc_mutex);
  const auto found = soft.xrc_files.find(identity);
  if (found == soft.xrc_files.end()) {
    if ((attr->oflags & O_CREAT) != 0) return Make(context, attr->fd, &identity);
    errno = EAGAIN;  // as the kernel has it: there is none yet
    return nullptr;
  }
  if ((attr->oflags & O_EXCL) != 0) {
    errno = EINVAL;  // likewise: there is one
    return nullptr;
  }
  ++found->second->opens;
  return found->second;
}

int CloseXrcd(ibv_xrcd* xrcd) {
  auto* const domain = static_cast<SoftXrcDomain*>(xrcd);
  SoftContext& context = SoftContext::Of(xrcd->context);
  {
    const std::lock_guard guard(context.xrc_mutex);
    if (domain->opens == 1 && domain->objects.load() != 0) return EBUSY;
    if (--domain->opens != 0) return 0;
    if (domain->file.valid()) context.xrc_files.erase(domain->identity);
  }
  --context.xrc_domains;
  delete domain;
  context.Release();
  return 0;
}

int GetSrqNum(ibv_srq* srq, uint32_t* number) {
  const auto& soft = *static_cast<SoftSharedReceiveQueue*>(srq);
  if (soft.xrc_domain == nullptr) return EINVAL;  // no packet can name it
  *number = soft.number;
  return 0;
}

}  // namespace sumac::soft_nic
