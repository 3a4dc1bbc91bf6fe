#!/bin/bash
# Both ends on this machine, on the soft NIC.   pair.sh RC_PEER PORT [options of rc_peer]
program=$1 address=127.0.0.1:$2
shift 2
"$program" --listen "$address" "$@" &
"$program" --connect "$address" "$@"
status=$?
wait $! || status=1
exit $status
