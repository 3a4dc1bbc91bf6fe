#!/bin/bash
# In the lab's guest: runs test programs, all of them, on the guest's rxe devices; rank i uses device i modulo their count.
#
#   run_suites.sh PROGRAM...
export SUMAC_TEST_DEVICE=$SUMAC_DEVICE
failed=()
for program in "$@"; do
  echo "== ${program##*/} on $SUMAC_TEST_DEVICE"
  "$program" --gtest_brief=1 || failed+=("${program##*/}")
done
[ ${#failed[@]} = 0 ] || { echo "failed on rxe: ${failed[*]}"; exit 1; }
