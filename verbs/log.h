// The one logger of Sumac: standard error, level from SUMAC_LOG (trace, debug, info, warn, error,
// off; default warn).
//
// Used by every floor for what a user should know and no call can return. Never on a data path. Any
// thread.
#pragma once

#include "spdlog/spdlog.h"

namespace sumac {

spdlog::logger& Log();

}  // namespace sumac
