#!/bin/bash
# In the lab's guest: the kernel's rdma_cm on rxe and the soft NIC's connect to each other, both ways.
#
#   rdma_cm.sh SUMAC    SUMAC: the program; needs one host with rxe (10.77.0.1) and one without (soft0, 10.77.0.101)
#
# The programs are Debian's and check what they transfer themselves.
sumac=$1
rxe() { timeout 60 "$@"; }
soft() { timeout 60 ip netns exec soft0 "$sumac" soft --interface eth0 -- "$@"; }
failures=0
# listening PROGRAM: waits until the server has claimed its port: in the kernel by the list of its identifiers, of the soft
# NIC by the abstract unix name.
listening() {
  local waits
  for ((waits = 0; waits < 300; waits++)); do
    case $1 in
      rxe) rdma resource show cm_id 2>/dev/null | grep -q 'state LISTEN' && return ;;
      soft) ip netns exec soft0 grep -q "/cm/1[01][16]/" /proc/net/unix && return ;;
    esac
    sleep 0.1
  done
}
# gone PLACE: waits until the server before has given its port back.
# try SERVER_PLACE SERVER_COMMAND CLIENT_PLACE CLIENT_COMMAND
try() {
  local server client
  echo "== $2 on $1, $4 on $3"
  "$1" $2 >/tmp/server.log 2>&1 &
  server=$!
  listening "$1"
  "$3" $4 >/tmp/client.log 2>&1
  client=$?
  wait $server || { client=1; echo "the server failed"; }
  if ((client != 0)); then
    failures=$((failures + 1))
    echo "-- server"; tail -n 15 /tmp/server.log
    echo "-- client ($client)"; tail -n 15 /tmp/client.log
  fi
}
both() {
  try rxe "$1" soft "$2 10.77.0.1"
  try soft "$1" rxe "$2 10.77.0.101"
}
both "rping -s -V -C 20 -S 4000" "rping -c -V -C 20 -S 4000 -a"
both "ucmatose -c 5 -C 10 -S 2000" "ucmatose -c 5 -C 10 -S 2000 -s"
both "udaddy -c 2 -C 10 -S 500" "udaddy -c 2 -C 10 -S 500 -s"
# Refusals: nobody listens.
rxe rping -c -C 1 -a 10.77.0.101 -p 7999 >/tmp/client.log 2>&1 && { echo "connected to nobody on the soft NIC"; failures=$((failures + 1)); }
grep -q REJECTED /tmp/client.log || { echo "not refused by the soft NIC:"; cat /tmp/client.log; failures=$((failures + 1)); }
soft rping -c -C 1 -a 10.77.0.1 -p 7999 >/tmp/client.log 2>&1 && { echo "connected to nobody on rxe"; failures=$((failures + 1)); }
grep -q REJECTED /tmp/client.log || { echo "not refused by rxe:"; cat /tmp/client.log; failures=$((failures + 1)); }
exit $((failures != 0))
