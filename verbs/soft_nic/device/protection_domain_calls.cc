// Protection domains, parent domains and thread domains.

#include <cerrno>

#include "verbs/log.h"
#include "verbs/soft_nic/device/control_path.h"
#include "verbs/soft_nic/device/limits.h"
#include "verbs/soft_nic/device/protection_domain.h"
#include "verbs/soft_nic/device/soft_context.h"

namespace sumac::soft_nic {
namespace {

SoftProtectionDomain* Make(ibv_context* context) {
  SoftContext& soft = SoftContext::Of(context);
  SoftProtectionDomain* made = nullptr;
  if (++soft.protection_domains <= kProtectionDomainsMax) {
    made = OrNoMemory([] { return new SoftProtectionDomain{}; });
  }
  if (made == nullptr) {
    --soft.protection_domains;
    errno = ENOMEM;
    return nullptr;
  }
  soft.Retain();
  made->context = context;
  return made;
}

}  // namespace

ibv_pd* AllocPd(ibv_context* context) { return Make(context); }

ibv_pd* AllocParentDomain(ibv_context* context, ibv_parent_domain_init_attr* attr) {
  constexpr uint32_t kKnown =
      IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS | IBV_PARENT_DOMAIN_INIT_ATTR_PD_CONTEXT;
  const char* wrong = nullptr;
  if ((attr->comp_mask & ~kKnown) != 0) {
    wrong = "comp_mask has bits that are not known here";
  } else if (attr->pd == nullptr || attr->pd->context != context) {
    wrong = "pd must be a protection domain of this device";
  } else if (static_cast<SoftProtectionDomain*>(attr->pd)->inner != nullptr) {
    wrong = "pd is itself a parent domain";
  } else if (attr->td != nullptr && attr->td->context != context) {
    wrong = "td must be a thread domain of this device";
  } else if ((attr->comp_mask & IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS) != 0 &&
             (attr->alloc == nullptr) != (attr->free == nullptr)) {
    wrong = "alloc and free go together";
  }
  if (wrong != nullptr) {
    Log().info("{}: ibv_alloc_parent_domain: {}", context->device->name, wrong);
    errno = EINVAL;
    return nullptr;
  }
  SoftProtectionDomain* const made = Make(context);
  if (made == nullptr) return nullptr;
  made->inner = static_cast<SoftProtectionDomain*>(attr->pd);
  AddObject(attr->pd);
  made->thread_domain = static_cast<SoftThreadDomain*>(attr->td);
  if (made->thread_domain != nullptr) ++made->thread_domain->users;
  return made;
}

int DeallocPd(ibv_pd* pd) {
  auto* soft = static_cast<SoftProtectionDomain*>(pd);
  if (soft->objects.load() != 0) return EBUSY;
  if (soft->inner != nullptr) RemoveObject(soft->inner);
  if (soft->thread_domain != nullptr) --soft->thread_domain->users;
  SoftContext& context = SoftContext::Of(pd->context);
  --context.protection_domains;
  delete soft;
  context.Release();
  return 0;
}

ibv_td* AllocTd(ibv_context* context, ibv_td_init_attr* attr) {
  if (attr->comp_mask != 0) {
    errno = EINVAL;
    return nullptr;
  }
  auto* made = OrNoMemory([] { return new SoftThreadDomain{}; });
  if (made == nullptr) return nullptr;
  made->context = context;
  SoftContext::Of(context).Retain();
  return made;
}

int DeallocTd(ibv_td* td) {
  auto* soft = static_cast<SoftThreadDomain*>(td);
  if (soft->users.load() != 0) return EBUSY;
  SoftContext& context = SoftContext::Of(td->context);
  delete soft;
  context.Release();
  return 0;
}

}  // namespace sumac::soft_nic
