#!/bin/bash
# In the lab's guest: a job whose ranks are dealt out over hosts with rxe and hosts with the soft NIC.
#
#   mixed_job.sh PLACE... -- PROGRAM ARGUMENTS   rank i runs at the i-th PLACE: rxe0, rxe1, ... or soft0, soft1, ...
#
# As separate machines would: each rank knows the address of rank 0's bootstrap server and nothing else of the others.
# Rank 0's output is this program's; what the others wrote is shown when one fails. Exit status: the worst.
places=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  places+=("$1")
  shift
done
shift
export SUMAC_BOOTSTRAP=10.77.0.1:18600 SUMAC_BOOTSTRAP_SERVE=1 SUMAC_JOB=mixed SUMAC_SIZE=${#places[@]}
export SUMAC_LOCAL_RANK=0 SUMAC_LOCAL_SIZE=1 SUMAC_SOFT_INTERFACE=eth0
ranks=()
for rank in "${!places[@]}"; do
  place=${places[rank]}
  at=()
  [[ $place != soft* ]] || at=(ip netns exec "$place")
  [[ $place != soft* ]] || device=soft0
  [[ $place != rxe* ]] || device=$place
  if ((rank == 0)); then exec 4>&1; else exec 4>"/tmp/mixed_job.$rank"; fi
  SUMAC_RANK=$rank SUMAC_DEVICE=$device "${at[@]}" "$@" >&4 2>&1 &
  ranks+=($!)
done
worst=0
for rank in "${!places[@]}"; do
  wait "${ranks[rank]}"
  status=$?
  ((status == 0)) && continue
  ((status > worst)) && worst=$status
  echo "rank $rank (${places[rank]}) ended with $status"
  ((rank == 0)) || tail -n 20 /tmp/mixed_job.$rank
done
exit $worst
