// The parts of the checker (checker.h says what each proves). Internal to this folder.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "collectives/schedule/hazards.h"
#include "collectives/schedule/schedule.h"

namespace sumac::collectives::internal {

absl::Status CheckStructure(const Schedule& schedule);
// The next two want a structure that was found sound.
absl::Status CheckOutcome(const Schedule& schedule, bool in_place);
absl::Status CheckOverlap(const Schedule& schedule);
// With lanes and waits as given, by rank (for a test that takes waits away).
absl::Status CheckOverlap(const Schedule& schedule, std::vector<ReadyProgram> programs);

// "allreduce ring with 4 ranks, root 0: rank 2, step 7 (receive block 3 ...): WHAT"
absl::Status StepError(const Schedule& schedule, int rank, size_t step, absl::string_view what);

}  // namespace sumac::collectives::internal
