#!/bin/bash
# In the lab's guest: what a soft NIC and rxe send each other is captured on the switch, and every ICRC checked under the IP
# header that was on the wire. rxe drops a packet with a wrong ICRC without counting it; here it would be named.
#
#   rc_icrc.sh RC_PEER VERIFY_CAPTURE [options of rc_peer]
here=${0%/*} program=$1 verify=$2
shift 2
capture=/tmp/rc_icrc.pcap said=/tmp/rc_icrc.tcpdump
modprobe af_packet
: >"$said"
# Batches are cut before the veth, or the capture would show many packets as one.
ip -n soft0 link set eth0 gso_max_segs 1 || exit 1
ip netns exec switch tcpdump -i leg0 -s 0 -B 65536 --immediate-mode -Z root -c 40000 -w "$capture" udp port 4791 2>"$said" &
tcpdump=$!
for ((tries = 0; tries < 200; ++tries)); do
  [[ $(<"$said") == *listening* ]] && break
  kill -0 "$tcpdump" || { cat "$said"; exit 1; }
  read -rt 0.05 _ < <(:)
done
"$here/rc_peers.sh" "$program" rxe0 soft0 "$@" || exit 1
kill -INT "$tcpdump" 2>/dev/null
wait "$tcpdump"
cat "$said"
"$verify" "$capture"
