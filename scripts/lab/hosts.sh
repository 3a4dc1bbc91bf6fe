# Sourced in the guest: test hosts with an rxe device each, and hosts without one for the soft NIC, on one Ethernet.
#
# rxe's sockets live in the initial namespace only (drivers/infiniband/sw/rxe/rxe_net.c, before 6.15), so its hosts are
# interfaces there, not namespaces: rxe0 on host0 (10.77.0.1), rxe1 on host1 (10.77.0.2), ... Each is one end of a veth
# pair whose other end is a port of a bridge in the namespace `switch`. Rules of routing make packets between two of
# them leave by the one and come in by the other, as between machines. Hosts for the soft NIC are namespaces soft0
# (10.77.0.101), soft1, ... with an interface eth0 on the same bridge.
#
# In: hosts, soft_hosts, lab_mtu, lab_netem (from /job/options). Out: lab_devices.
source /job/options

modules=(ib_uverbs rdma_ucm rdma_rxe veth bridge)
[ -z "$lab_netem" ] || modules+=(sch_netem)
# rxe of 6.1 asks for "crc32" of the crypto layer and can't load it by itself.
modprobe -a "${modules[@]}" && { modprobe -q crc32_generic || true; } || return 1

hex() { printf '%02x' "$1"; }
port_mac() { echo "02:77:00:00:00:$(hex "$1")"; }

batch=$(
  echo "link set lo up"
  for ((i = 0; i < hosts; ++i)); do
    echo "link add host$i mtu $lab_mtu address $(port_mac $((i + 1))) type veth peer name leg$i mtu $lab_mtu netns switch"
    echo "addr add 10.77.0.$((i + 1))/24 dev host$i noprefixroute"
    echo "addr add fd77::$(hex $((i + 1)))/64 dev host$i noprefixroute nodad"
    echo "link set host$i up"
  done
)
ip netns add switch && ip -batch - <<<"$batch" || return 1

# What comes in by an interface is looked up as usual; what leaves from one's address leaves by its interface, also when
# the destination is another address of ours: the local table comes late. To itself each talks at home. Who names no
# source address speaks as host0.
batch=$(
  echo "rule add pref 1000 lookup local"
  for ((i = 0; i < hosts; ++i)); do
    echo "rule add pref $((20 + i)) iif host$i lookup local"
    echo "rule add pref $((100 + i)) oif host$i to 10.77.0.$((i + 1)) lookup local"
    echo "rule add pref $((120 + i)) from 10.77.0.$((i + 1)) to 10.77.0.$((i + 1)) lookup local"
    echo "rule add pref $((200 + i)) oif host$i lookup $((1000 + i))"
    echo "rule add pref $((400 + i)) from 10.77.0.$((i + 1)) to 10.77.0.0/24 lookup $((1000 + i))"
    echo "route add 10.77.0.0/24 dev host$i src 10.77.0.$((i + 1)) table $((1000 + i))"
    for ((j = 0; j < hosts; ++j)); do
      ((i == j)) || echo "neigh replace 10.77.0.$((j + 1)) lladdr $(port_mac $((j + 1))) dev host$i nud permanent"
    done
  done
  echo "route add 10.77.0.0/24 dev host0 src 10.77.0.1"
  echo "rule del pref 0"
)
ip -4 -batch - <<<"$batch" || return 1
batch=$(
  echo "rule add pref 1000 lookup local"
  for ((i = 0; i < hosts; ++i)); do
    echo "rule add pref $((20 + i)) iif host$i lookup local"
    echo "rule add pref $((100 + i)) oif host$i to fd77::$(hex $((i + 1))) lookup local"
    echo "rule add pref $((120 + i)) from fd77::$(hex $((i + 1))) to fd77::$(hex $((i + 1))) lookup local"
    echo "rule add pref $((200 + i)) oif host$i lookup $((1000 + i))"
    echo "rule add pref $((400 + i)) from fd77::$(hex $((i + 1))) to fd77::/64 lookup $((1000 + i))"
    echo "route add fd77::/64 dev host$i src fd77::$(hex $((i + 1))) table $((1000 + i))"
    for ((j = 0; j < hosts; ++j)); do
      ((i == j)) || echo "neigh replace fd77::$(hex $((j + 1))) lladdr $(port_mac $((j + 1))) dev host$i nud permanent"
    done
  done
  echo "route add fd77::/64 dev host0 src fd77::01"
  echo "rule del pref 0"
)
ip -6 -batch - <<<"$batch" || return 1
for ((i = 0; i < hosts; ++i)); do
  echo 1 >/proc/sys/net/ipv4/conf/host$i/accept_local
  echo 0 >/proc/sys/net/ipv4/conf/host$i/rp_filter
  echo 1 >/proc/sys/net/ipv4/conf/host$i/arp_ignore # only the one that is asked for answers
done
echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter
# A READ's responses come as fast as the responder can: at the smallest path MTU 1 MiB is 4,096 packets, and a veth drops
# what its receiver's backlog (1,000) does not hold. This Ethernet is lossless unless lab_netem says otherwise.
echo 100000 >/proc/sys/net/core/netdev_max_backlog
# Nor does an Ethernet overtake: each interface's packets are received by one processor, whichever sends them.
keep_order='for queue in /sys/class/net/*/queues/rx-0/rps_cpus; do echo 1 >"$queue"; done'

# Hosts of the soft NIC.
for ((i = 0; i < soft_hosts; ++i)); do
  ip netns add "soft$i" || return 1
  ip -n "soft$i" -batch - <<<"link set lo up
link add eth0 mtu $lab_mtu address $(port_mac $((101 + i))) type veth peer name soft$i mtu $lab_mtu netns switch
addr add 10.77.0.$((101 + i))/24 dev eth0
addr add fd77::$(hex $((101 + i)))/64 dev eth0 nodad
link set eth0 up" && ip netns exec "soft$i" bash -c "$keep_order" || return 1
done

batch=$(
  echo "link add switch mtu $lab_mtu type bridge forward_delay 0 mcast_snooping 0"
  for ((i = 0; i < hosts; ++i)); do echo "link set leg$i master switch up"; done
  for ((i = 0; i < soft_hosts; ++i)); do echo "link set soft$i master switch up"; done
  echo "link set switch up"
)
ip -n switch -batch - <<<"$batch" || return 1
eval "$keep_order" && ip netns exec switch bash -c "$keep_order" || return 1
if [ -n "$lab_netem" ]; then
  # On the way to a host: rxe spins when its own packets are dropped under it.
  for ((i = 0; i < hosts; ++i)); do
    ip netns exec switch tc qdisc add dev "leg$i" root netem limit 10000 $lab_netem || return 1
  done
  for ((i = 0; i < soft_hosts; ++i)); do
    ip netns exec switch tc qdisc add dev "soft$i" root netem limit 10000 $lab_netem || return 1
  done
fi

# Links and ports of a bridge drop what they are given until the kernel's link watch has seen their carrier: milliseconds
# as a rule, up to a second (net/core/link_watch.c). Who allows no loss, or resolves an address, would begin too soon.
await_answer_of_host0() { # COMMAND... that pings from elsewhere
  local try
  for ((try = 0; try < 20; ++try)); do
    "$@" -q -c 1 -W 1 10.77.0.1 >/dev/null && return 0
  done
  echo "the lab's Ethernet does not come up: no answer to: $* 10.77.0.1" >&2
  return 1
}
for ((i = 1; i < hosts; ++i)); do await_answer_of_host0 busybox ping -I "10.77.0.$((i + 1))" || return 1; done
for ((i = 0; i < soft_hosts && hosts > 0; ++i)); do
  await_answer_of_host0 ip netns exec "soft$i" busybox ping || return 1
done

lab_devices=
for ((i = 0; i < hosts; ++i)); do
  rdma link add "rxe$i" type rxe netdev "host$i" || return 1
  lab_devices+=${lab_devices:+,}rxe$i
done
