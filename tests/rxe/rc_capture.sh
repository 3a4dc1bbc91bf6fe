#!/bin/bash
# In the lab's guest: what a soft NIC and rxe send each other, captured on the switch. Every ICRC is checked under the IP
# header that was on the wire (rxe drops a packet with a wrong ICRC without counting it; here it would be named), and so
# is what rxe does its own way there (docs/testing_with_rxe.md).
#
#   rc_capture.sh RC_PEER VERIFY_CAPTURE ORACLE
here=${0%/*} program=$1 verify=$2 oracle=$3
capture=/tmp/rc.pcap said=/tmp/rc.tcpdump
modprobe af_packet
# Batches are cut before the veth, or the capture would show many packets as one.
ip -n soft0 link set eth0 gso_max_segs 1 || exit 1

# captured OPTIONS OF rc_peer...: leaves what verify_capture says in $report.
captured() {
  : >"$said"
  ip netns exec switch tcpdump -i leg0 -s 4500 -B 65536 --immediate-mode -Z root -c 40000 -w "$capture" udp port 4791 2>"$said" &
  local tcpdump=$! tries status
  for ((tries = 0; tries < 200; ++tries)); do
    [[ $(<"$said") == *listening* ]] && break
    kill -0 "$tcpdump" || { cat "$said"; exit 1; }
    read -rt 0.05 _ < <(:)
  done
  "$here/rc_peers.sh" "$program" rxe0 soft0 "$@" || exit 1
  kill -INT "$tcpdump" 2>/dev/null
  wait "$tcpdump"
  cat "$said"
  grep -q "^0 packets dropped" "$said" || { echo "the capture has gaps"; exit 1; }
  report=$("$verify" "$capture")
  status=$?
  echo "$report"
  [ $status = 0 ] || exit 1
  judge
}

# The oracle's verdict (tests/oracle). Queue pairs are connected anew; in an emulated host packets wait in queues, so that
# what the switch sees says nothing about time.
judge() {
  "$oracle" --reconnects --no-times "$capture" || exit 1
}

# field ADDRESS PATTERN: the number that the pattern's group matches in what is said of that sender.
field() { sed -nE "s/^$1:.* $2.*/\1/p" <<<"$report"; }
# expect WHAT CONDITION: an arithmetic one.
expect() { (($2)) || { echo "not so: $1 ($2)"; exit 1; }; }
rxe=10.77.0.1 soft=10.77.0.101

captured --cases pieces,atomics,refusals
captured --operations 2000 --cases random
expect "the soft NIC sends the hop limit that it is given" "$(field $soft 'hop limit ([0-9]+),') == 33"
expect "rxe sends 64" "$(field $rxe 'hop limit ([0-9]+),') == 64"
expect "rxe's packets have identifications" "$(field $rxe '([0-9]+) identifications') > 1"
asked=$(field $soft '([0-9]+) asked')
expect "rxe answers each that asks" "$(field $rxe '([0-9]+) ACKs') == $asked"
asked=$(field $rxe '([0-9]+) asked')
expect "one ACK of the soft NIC may cover several" "$(field $soft '([0-9]+) ACKs') < $asked"
