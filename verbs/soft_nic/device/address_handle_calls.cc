// Address handles: where UD sends go, and how to answer what came.

#include <cerrno>
#include <cstring>

#include "verbs/log.h"
#include "verbs/soft_nic/device/address_vector.h"
#include "verbs/soft_nic/device/control_path.h"
#include "verbs/soft_nic/device/limits.h"
#include "verbs/soft_nic/device/protection_domain.h"
#include "verbs/soft_nic/device/soft_context.h"
#include "verbs/soft_nic/engine/address_handle.h"
#include "verbs/soft_nic/wire/grh.h"

namespace sumac::soft_nic {

ibv_ah* CreateAh(ibv_pd* pd, ibv_ah_attr* attr) {
  SoftContext& context = SoftContext::Of(pd->context);
  const Gid& local = context.link().local_gid();
  absl::Status legal = CheckAddressVector(*attr);
  if (legal.ok()) legal = CheckFamily(*attr, local);
  if (legal.ok() && attr->port_num != 1) legal = absl::InvalidArgumentError("port_num must be 1");
  if (!legal.ok()) {
    Log().info("{}: ibv_create_ah: {}", pd->context->device->name, std::string(legal.message()));
    errno = EINVAL;
    return nullptr;
  }
  AddressHandle* made = nullptr;
  if (++context.address_handles <= kAddressHandlesMax) {
    made = OrNoMemory([] { return new AddressHandle{}; });
  }
  if (made == nullptr) {
    --context.address_handles;
    errno = ENOMEM;
    return nullptr;
  }
  made->context = pd->context;
  made->pd = pd;
  made->path = PathOf(*attr, local);
  AddObject(pd);
  return made;
}

int DestroyAh(ibv_ah* ah) {
  --SoftContext::Of(ah->context).address_handles;
  RemoveObject(ah->pd);
  delete static_cast<AddressHandle*>(ah);
  return 0;
}

int InitAhFromWc(ibv_context* context, uint8_t port, ibv_wc* wc, ibv_grh* grh, ibv_ah_attr* attr) {
  *attr = {};
  attr->port_num = port;
  attr->dlid = wc->slid;
  attr->sl = wc->sl;
  attr->src_path_bits = wc->dlid_path_bits;
  if ((wc->wc_flags & IBV_WC_GRH) == 0) return 0;
  static_assert(sizeof(*grh) == kGrhBytes);
  const auto fields =
      ReadGrh(std::span<const std::byte, kGrhBytes>(reinterpret_cast<std::byte*>(grh), kGrhBytes));
  // The answer goes out from where the datagram went to: that must be our address.
  if (!fields.has_value() || fields->destination != SoftContext::Of(context).link().local_gid()) {
    errno = EINVAL;
    return -1;
  }
  attr->is_global = 1;
  std::memcpy(attr->grh.dgid.raw, fields->source.data(), fields->source.size());
  attr->grh.flow_label = fields->flow_label;
  attr->grh.traffic_class = fields->traffic_class;
  attr->grh.hop_limit = fields->hop_limit;
  return 0;
}

ibv_ah* CreateAhFromWc(ibv_pd* pd, ibv_wc* wc, ibv_grh* grh, uint8_t port) {
  ibv_ah_attr attr;
  if (InitAhFromWc(pd->context, port, wc, grh, &attr) != 0) return nullptr;
  return CreateAh(pd, &attr);
}

}  // namespace sumac::soft_nic
