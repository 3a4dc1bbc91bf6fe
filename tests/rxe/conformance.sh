#!/bin/bash
# In the lab's guest: the scripts of tests/conformance against kernel rxe. The peer is a socket on another host of the
# lab's Ethernet (rxe has port 4791 of its own). Which cases rxe is known to fail, and why, is in rxe_differences.txt.
#
#   conformance.sh PLAYER SCRIPTS [options of conformance_player]
player=$1 scripts=$2
shift 2
"$player" --device rxe0 --peer 10.77.0.101 --peer-netns soft0 --differences "$scripts/rxe_differences.txt" "$@" "$scripts"/*/*.rdma
