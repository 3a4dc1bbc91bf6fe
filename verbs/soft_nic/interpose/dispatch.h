// How an exported function finds out whose device it was called for.
//
// Every verbs object leads to its ibv_context and from there to its ibv_device; ours is one fixed
// ibv_device. SUMAC_VERB defines an exported function that goes to the soft NIC for its objects and
// to the real library for all others.
#pragma once

#include <infiniband/verbs.h>

#include <cerrno>

#include "verbs/soft_nic/device/control_path.h"
#include "verbs/soft_nic/interpose/real_library.h"

// Inline wrappers of verbs.h that stand before functions of the same name.
#undef ibv_query_port
#undef ibv_reg_mr
#undef ibv_reg_mr_iova

namespace sumac::soft_nic::interpose {

inline bool IsSoft(const ibv_device* device) { return device == SoftDevice(); }
inline bool IsSoft(const ibv_context* context) { return IsSoft(context->device); }

// For calls that have no meaning on the soft NIC: what a device without the feature answers.
inline int NotSupported() { return EOPNOTSUPP; }
template <typename Object>
Object* NoSuchObject() {
  errno = EOPNOTSUPP;
  return nullptr;
}

}  // namespace sumac::soft_nic::interpose

// SUMAC_VERB(version, result, name, (parameters), (arguments), whose, soft): `whose` is an
// expression that gives the ibv_context or ibv_device, `soft` what to do when it is ours.
// NOLINTBEGIN(bugprone-macro-parentheses): types and lists can't be put into parentheses
#define SUMAC_VERB(version, result, name, parameters, arguments, whose, soft) \
  extern "C" __attribute__((visibility("default"))) result name parameters {  \
    if (sumac::soft_nic::interpose::IsSoft(whose)) return soft;               \
    static const auto real = reinterpret_cast<result(*) parameters>(          \
        sumac::soft_nic::interpose::RealSymbol(#name, version));              \
    return real arguments;                                                    \
  }                                                                           \
  static_assert(true)
// NOLINTEND(bugprone-macro-parentheses)
