#!/bin/bash
# In the lab's guest: the kernel's rdma_cm on rxe and the soft NIC's connect to each other, both ways.
#
#   rdma_cm.sh SUMAC    the program; needs one host with rxe (10.77.0.1) and one without (soft0, at 10.77.0.101)
#
# The programs are Debian's and check what they transfer themselves.
sumac=$1
failures=0
rxe() { timeout 60 "$@"; }
soft() { timeout 60 ip netns exec soft0 "$sumac" soft --interface eth0 -- "$@"; }
# servers PLACE: how many listen there.
servers() {
  case $1 in
    rxe) rdma resource show cm_id | grep -c 'state LISTEN' ;;
    soft) ip netns exec soft0 grep -c "/cm/1[01][16]/[0-9]*/listens" /proc/net/unix ;;
  esac
}
# wait_for N PLACE: until so many listen, 30 s at most.
wait_for() {
  local waits
  for ((waits = 0; waits < 300; waits++)); do
    [ "$(servers "$2")" = "$1" ] && return
    sleep 0.1
  done
  echo "not $1 but $(servers "$2") servers on $2"
}
# serve PLACE COMMAND
serve() {
  wait_for 0 "$1"
  "$@" >/tmp/server.log 2>&1 &
  server=$!
  wait_for 1 "$1"
}
failed() {
  failures=$((failures + 1))
  echo "FAILED: $*"
  for log in server client; do
    echo "-- $log"
    tail -n 15 /tmp/$log.log
  done
}
# try SERVER_PLACE SERVER_COMMAND CLIENT_PLACE CLIENT_COMMAND
try() {
  local status
  echo "$2 on $1, $4 on $3"
  serve "$1" $2
  "$3" $4 >/tmp/client.log 2>&1
  status=$?
  wait "$server" || status="$status, the server's $?"
  [ "$status" = 0 ] || failed "exit code $status"
}
both() {
  try rxe "$1" soft "$2 10.77.0.1"
  try soft "$1" rxe "$2 10.77.0.101"
}
# refuse SERVER_PLACE CLIENT_PLACE ADDRESS: there is somebody, but not at that port.
refuse() {
  echo "nobody at that port of $1"
  serve "$1" rping -s -C 1
  "$2" rping -c -C 1 -a "$3" -p 7999 >/tmp/client.log 2>&1 && failed "connected to nobody"
  grep -q REJECTED /tmp/client.log || failed "not refused"
  "$2" rping -c -C 1 -a "$3" >/tmp/client.log 2>&1 || failed "nor served afterwards"
  wait "$server"
}
both "rping -s -V -C 20 -S 4000" "rping -c -V -C 20 -S 4000 -a"
both "ucmatose -c 5 -C 10 -S 2000" "ucmatose -c 5 -C 10 -S 2000 -s"
both "udaddy -c 2 -C 10 -S 500" "udaddy -c 2 -C 10 -S 500 -s"
both "rstream -S 10000 -I 20 -C 5 -T v" "rstream -S 10000 -I 20 -C 5 -T v -s"
refuse soft rxe 10.77.0.101
refuse rxe soft 10.77.0.1
exit $((failures != 0))
