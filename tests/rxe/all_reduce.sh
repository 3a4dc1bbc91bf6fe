#!/bin/bash
# In the lab's guest: a job's allreduce is right, runs on rxe, and went over the wire of every host.
#
#   all_reduce.sh COMMAND...    COMMAND runs all_reduce_perf -c 1 with a rank for each host or more
output=$("$@" 2>&1)
status=$?
printf '%s\n' "$output"
complain() {
  echo "all_reduce.sh: $*"
  status=1
}
((status == 0)) || complain "exit status $status"
grep -q "# Out of bounds values : 0 OK" <<<"$output" || complain "no '0 OK' line"
for device in ${SUMAC_DEVICE//,/ }; do
  grep -q "device $device\$" <<<"$output" || complain "no rank on $device"
  counters=$(rdma statistic show link "$device")
  [[ $counters =~ sent_pkts\ ([0-9]+) ]]
  ((BASH_REMATCH[1] > 0)) || complain "$device sent nothing: $counters"
  echo "$counters"
done
exit $status
