#include "verbs/status.h"

#include <cerrno>
#include <string>

#include "gtest/gtest.h"

namespace sumac::verbs {
namespace {

TEST(VerbsStatus, EveryCompletionStatusHasItsNameAndAnErrorCode) {
  EXPECT_STREQ(NameOf(IBV_WC_REM_ACCESS_ERR), "IBV_WC_REM_ACCESS_ERR");
  EXPECT_TRUE(CompletionStatus(IBV_WC_SUCCESS, "here").ok());
  for (int value = IBV_WC_LOC_LEN_ERR; value <= IBV_WC_GENERAL_ERR; ++value) {
    const auto status = static_cast<ibv_wc_status>(value);
    EXPECT_EQ(std::string(NameOf(status)).rfind("IBV_WC_", 0), 0u) << value;
    EXPECT_STRNE(NameOf(status), "IBV_WC_UNKNOWN") << value;
    EXPECT_NE(CodeOf(status), absl::StatusCode::kOk) << NameOf(status);
    const absl::Status made = CompletionStatus(status, "soft0 QP 0x000001");
    EXPECT_FALSE(made.ok());
    EXPECT_EQ(made.message().rfind("soft0 QP 0x000001: IBV_WC_", 0), 0u) << made;
  }
  EXPECT_STREQ(NameOf(static_cast<ibv_wc_status>(999)), "IBV_WC_UNKNOWN");
  EXPECT_EQ(CodeOf(static_cast<ibv_wc_status>(999)), absl::StatusCode::kUnknown);
}

TEST(VerbsStatus, ErrnoSaysCallPlaceReasonAndAdvice) {
  const absl::Status status = ErrnoStatus(ENOMEM, "ibv_reg_mr", "soft0");
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message().rfind("ibv_reg_mr on soft0: Cannot allocate memory (errno 12): ", 0),
            0u)
      << status;
  // Some calls give the negative.
  EXPECT_EQ(ErrnoStatus(-ENOMEM, "ibv_reg_mr", "soft0"), status);
}

}  // namespace
}  // namespace sumac::verbs
