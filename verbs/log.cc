#include "verbs/log.h"

#include <cstdlib>
#include <memory>
#include <string>

#include "spdlog/sinks/stdout_sinks.h"

namespace sumac {
namespace {

std::shared_ptr<spdlog::logger> MakeLogger() {
  auto logger =
      std::make_shared<spdlog::logger>("sumac", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_pattern("%H:%M:%S.%e sumac[%P] %l: %v");
  const char* level = std::getenv("SUMAC_LOG");
  const std::string name = level == nullptr ? "warn" : level;
  logger->set_level(spdlog::level::from_str(name));
  if (logger->level() == spdlog::level::off && name != "off") {
    logger->set_level(spdlog::level::warn);
    logger->warn("SUMAC_LOG={}: unknown level (trace, debug, info, warn, error, off), using warn",
                 name);
  }
  return logger;
}

}  // namespace

spdlog::logger& Log() {
  // Never destroyed: threads may log until the process ends.
  static auto* const logger = new std::shared_ptr<spdlog::logger>(MakeLogger());
  return **logger;
}

}  // namespace sumac
