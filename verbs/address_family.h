// Which addresses a GID may be made of. Apart from device_choice.h so that headers of the floors
// above can name it without libibverbs.
#pragma once

#include <cstdint>

namespace sumac::verbs {

enum class AddressFamily : uint8_t { kAny, kIpv4, kIpv6 };

}  // namespace sumac::verbs
