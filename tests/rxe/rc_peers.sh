#!/bin/bash
# In the lab's guest: two devices check each other's reliable connections (tests/interop/rc_peer).
#
#   rc_peers.sh RC_PEER PLACE PLACE [options of rc_peer]    a PLACE is rxe0, rxe1, ..., or soft0, soft1, ...
program=$1 first=$2 second=$3
shift 3
# at PLACE COMMAND...: on that host. Who is on rxe listens, at 10.77.0.1, which every host reaches.
at() {
  local place=$1
  shift
  case $place in
    soft*) SUMAC_SOFT_INTERFACE=eth0 ip netns exec "$place" "$@" --device soft0 ;;
    *) "$@" --device "$place" ;;
  esac
}
# The kernel hands out counters up to 10 ms old (rounded up to its ticks: 12) unless told otherwise.
for lifespan in /sys/class/infiniband/rxe*/ports/1/hw_counters/lifespan; do
  [[ $(<"$lifespan") =~ ^(0|10|12)$ ]] || { echo "$lifespan: $(<"$lifespan"), not 10"; exit 1; }
  echo 0 >"$lifespan"
done
at "$first" "$program" --listen 10.77.0.1:18700 "$@" &
at "$second" "$program" --connect 10.77.0.1:18700 "$@"
status=$?
wait $! || status=1
exit $status
