#!/bin/bash
# In the lab's guest, on a link that loses, doubles and reorders packets: two rxe devices that both ask in a pipeline stop
# for good, neither with a completion nor with an error, although an ACK timeout of 268 ms and 7 retries are set. Here so
# that a kernel that mends this is noticed (docs/testing_with_rxe.md).
#
#   rc_stall.sh RC_PEER
here=${0%/*}
said=$("$here/rc_peers.sh" "$1" rxe0 rxe1 --lossy --cases random --operations 40000 2>&1)
status=$?
echo "$said"
[ $status != 0 ] && [[ $said == *"no completion in 30 s"* ]] || { echo "rxe got through this time"; exit 1; }
