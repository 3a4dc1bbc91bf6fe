#!/bin/bash
# In the lab's guest: stock perftest on the kernel's rxe and on the soft NIC, in turn. Prints a table of medians.
#
#   scripts/rxe_lab --hosts 2 --soft-hosts 2 -- scripts/compare/rxe_guest.sh build/bin [ROUNDS]
#
#   rxe    two devices of the kernel, on two ends of an emulated Ethernet
#   wire   the soft NIC, in two namespaces on the same kind of link
#   local  the soft NIC, two processes of one namespace: the other way to have RDMA on one machine
set -u
bin=$1 rounds=${2:-5}
tests=(ib_write_lat ib_read_lat ib_send_lat ib_write_bw ib_read_bw ib_send_bw)
results=$(mktemp)
trap 'rm -f "$results"' EXIT
port=19600

# pair SERVER... ::: CLIENT...: what the client prints. The server takes its time to listen.
pair() {
  local server=() output='' pid
  while [ "$1" != ::: ]; do server+=("$1"); shift; done
  shift
  timeout 60 "${server[@]}" >/dev/null 2>&1 &
  pid=$!
  for _ in $(seq 20); do
    sleep 0.5
    output=$(timeout 60 "$@" 2>/dev/null) && break
    output=
  done
  [ -n "$output" ] || kill "$pid" 2>/dev/null
  wait "$pid"
  printf '%s\n' "$output"
}

# measure TEST SIZE ITERATIONS COLUMN, of the line that begins with the size.
measure() {
  local size=$2 column=$4 way near far
  for way in rxe wire local; do
    port=$((port + 1))
    local words=("$1" -p $port -s "$size" -n "$3" -F)
    local soft=("$bin/sumac" soft --interface eth0 -- "${words[@]}" -d soft0 -x 0)
    case $way in
      rxe) near=("${words[@]}" -d rxe0) far=("${words[@]}" -d rxe1 10.77.0.1) ;;
      wire) near=(ip netns exec soft0 "${soft[@]}") far=(ip netns exec soft1 "${soft[@]}" 10.77.0.101) ;;
      local) near=(ip netns exec soft0 "${soft[@]}") far=(ip netns exec soft0 "${soft[@]}" 10.77.0.101) ;;
    esac
    pair "${near[@]}" ::: "${far[@]}" |
      awk -v size="$size" -v column="$column" -v name="$1 $way" '$1 == size { print name, $column }' >>"$results"
  done
}

for ((round = 1; round <= rounds; ++round)); do
  echo "round $round of $rounds" >&2
  for test in "${tests[@]}"; do
    case $test in
      *_lat) measure "$test" 8 1000 5 ;;     # typical
      *_bw) measure "$test" 65536 500 4 ;;   # average
    esac
  done
done

median() {
  awk -v name="$1" '$1 " " $2 == name { print $3 }' "$results" | sort -g |
    awk '{ all[NR] = $1 } END { print NR ? all[int((NR + 1) / 2)] : 0 }'
}
printf '%-14s %10s %10s %10s   %s\n' test rxe wire local 'better than rxe by: wire, local'
for test in "${tests[@]}"; do
  awk -v test="$test" -v rxe="$(median "$test rxe")" -v wire="$(median "$test wire")" -v near="$(median "$test local")" '
    function better(ours) { return !ours || !rxe ? "-" : sprintf("%.2f", test ~ /lat$/ ? rxe / ours : ours / rxe) }
    BEGIN {
      printf "%-14s %10s %10s %10s   %s, %s  (%s)\n", test, rxe, wire, near, better(wire), better(near),
        test ~ /lat$/ ? "us, 8 bytes" : "MB/s, 64 KiB"
    }'
done
