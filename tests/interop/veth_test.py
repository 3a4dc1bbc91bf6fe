#!/usr/bin/env python3
"""Ranks in two network namespaces joined by a veth pair; their packets as others read them.

Usage: veth_test.py --ranks N --mtu BYTES (--verify VERIFY_CAPTURE [--oracle ORACLE] | --whole-batches) [--expect TEXT] -- PROGRAM ARGUMENTS

Runs N ranks of PROGRAM, half of them in each namespace, with the soft NIC on the veth, captures what
crosses it, and checks that
  - every rank ends well,
  - tshark (Wireshark's InfiniBand dissector) finds nothing but well-formed RoCE v2 packets with
    opcodes of reliable connections, whose PSNs go up one by one,
  - every ICRC is right under the IP header that really was on the wire (VERIFY_CAPTURE),
  - an independent judge of the protocol finds no fault (ORACLE, tests/oracle).
With --whole-batches the kernel may carry many packets as one, as it does by default; nothing is captured then.

Exit code 77: skipped, and a line that says why. The namespaces have no names: they live as long as a
process of ours does, and vanish with it however this test ends.
"""

import argparse
import collections
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from namespaces import ADDRESSES, INTERFACE, Failed, Namespace, join_by_veth, skip

PORT = 29577
PATIENCE_S = 120

# Opcodes of reliable connections (IBTA table 38), and the congestion notification of RoCE v2.
REQUESTS = set(range(0x00, 0x0D)) | {0x13, 0x14, 0x16, 0x17}
READ_REQUEST = 0x0C
KNOWN = REQUESTS | set(range(0x0D, 0x13)) | {0x81}


class Capture:
    def __init__(self, space, path):
        self.path = path
        self.tcpdump = subprocess.Popen(
            space.command(
                "tcpdump", "-i", INTERFACE, "-s", 0, "-B", 65536, "--immediate-mode", "-Z", "root", "-w", path, "udp and port 4791"
            ),
            stderr=subprocess.PIPE,
            text=True,
        )
        for line in self.tcpdump.stderr:
            if "listening on" in line:
                return
        raise Failed("tcpdump does not listen")

    def stop(self):
        """Ends it; the number of packets that it missed."""
        self.tcpdump.send_signal(signal.SIGINT)
        said = self.tcpdump.stderr.read()
        self.tcpdump.wait()
        print("tcpdump:", ", ".join(said.strip().splitlines()))
        missed = [line.split()[0] for line in said.splitlines() if "dropped by kernel" in line]
        return int(missed[0]) if missed else 0

    def close(self):
        if self.tcpdump.poll() is None:
            self.tcpdump.kill()
            self.tcpdump.wait()


def run_ranks(spaces, ranks, command, folder, expect):
    processes = []
    half = (ranks + 1) // 2
    try:
        for rank in range(ranks):
            space = spaces[rank // half]
            environment = dict(os.environ)
            environment.update(
                SUMAC_RANK=str(rank),
                SUMAC_SIZE=str(ranks),
                SUMAC_LOCAL_RANK=str(rank % half),
                SUMAC_LOCAL_SIZE=str(half if rank < half else ranks - half),
                SUMAC_BOOTSTRAP=f"{ADDRESSES[0]}:{PORT}",
                SUMAC_BOOTSTRAP_SERVE="1",
                SUMAC_JOB="veth",
                SUMAC_DEVICE="soft0",
                SUMAC_SOFT_INTERFACE=INTERFACE,
                SUMAC_HOST_MEMORY="0",  # the namespaces stand for hosts
            )
            output = open(folder / f"rank{rank}", "w+")
            processes.append(
                (subprocess.Popen(space.command(*command), stdout=output, stderr=output, env=environment), output)
            )
        deadline = time.monotonic() + PATIENCE_S
        bad = []
        for rank, (process, output) in enumerate(processes):
            try:
                code = process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                code = "none: it did not end in time"
            output.seek(0)
            text = output.read()
            if rank == 0 or code != 0:
                print(f"--- rank {rank}, exit code {code}\n{text}")
            if code != 0:
                bad.append(rank)
            if rank == 0 and expect not in text:
                raise Failed(f"rank 0 does not say '{expect}'")
        if bad:
            raise Failed(f"ranks {bad} did not end well")
    finally:
        for process, output in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
            output.close()


def decode(path):
    """What tshark reads: (source, destination, opcode, destination QP, PSN, frame length) of each packet."""
    fields = ["ip.src", "ip.dst", "infiniband.bth.opcode", "infiniband.bth.destqp", "infiniband.bth.psn", "frame.len"]
    words = ["tshark", "-n", "-r", str(path), "-T", "fields", "-e", "_ws.malformed", "-e", "frame.protocols"]
    for field in fields:
        words += ["-e", field]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed("tshark: " + done.stderr.strip())
    packets = []
    for number, line in enumerate(done.stdout.splitlines(), 1):
        malformed, protocols, source, destination, opcode, qp, psn, length = line.split("\t")
        if malformed or ":infiniband" not in protocols or not opcode:
            raise Failed(f"frame {number} does not decode as RoCE v2: {line}")
        packets.append((source, destination, int(opcode, 0), int(qp, 0), int(psn, 0), int(length)))
    return packets


def check(packets, mtu, missed):
    if len(packets) < 20:
        raise Failed(f"only {len(packets)} packets crossed the veth")
    if {packet[0] for packet in packets} != set(ADDRESSES):
        raise Failed("packets did not go both ways")
    flows = collections.defaultdict(list)
    opcodes = collections.Counter()
    for source, destination, opcode, qp, psn, length in packets:
        if opcode not in KNOWN:
            raise Failed(f"opcode {opcode:#x}")
        if length > mtu + 14:
            raise Failed(f"a frame of {length} bytes on a link with MTU {mtu}")
        opcodes[opcode] += 1
        if opcode in REQUESTS:
            flows[source, destination, qp].append((opcode, psn))
    steps = again = 0
    for flow, requests in flows.items():
        highest_opcode, highest = requests[0]
        for opcode, psn in requests[1:]:
            step = (psn - highest) & 0xFFFFFF
            if step == 0 or step >= 0x800000:
                again += 1  # a retransmission
                continue
            if step != 1 and highest_opcode != READ_REQUEST and missed == 0:
                raise Failed(f"{flow}: PSN {highest} is followed by {psn}")
            highest_opcode, highest = opcode, psn
            steps += 1
    if steps < 10:
        raise Failed("no PSN goes up")
    largest = max(packet[5] for packet in packets)
    path_mtu = 1024 if mtu == 1500 else 4096
    if largest < path_mtu:
        raise Failed(f"the largest frame has {largest} bytes: a path MTU of {path_mtu} was to be used")
    print(
        f"{len(packets)} packets, {len(flows)} flows of requests, {steps} PSN steps, {again} sent again, largest frame"
        f" {largest} bytes, opcodes " + ", ".join(f"{opcode:#04x}: {count}" for opcode, count in sorted(opcodes.items()))
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, required=True)
    parser.add_argument("--mtu", type=int, required=True)
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--verify")
    how.add_argument("--whole-batches", action="store_true")
    parser.add_argument("--oracle")
    parser.add_argument("--expect", default="")
    parser.add_argument("program", nargs="+")
    options = parser.parse_args()
    for tool in ("setpriv", "unshare", "nsenter", "ip", "tcpdump", "tshark"):
        if shutil.which(tool) is None:
            raise Failed(f"{tool} is not installed (scripts/setup)")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    spaces = []
    capture = None
    with tempfile.TemporaryDirectory(prefix="sumac-veth-") as name:
        folder = pathlib.Path(name)
        try:
            for _ in ADDRESSES:
                spaces.append(Namespace())
            join_by_veth(*spaces, options.mtu, options.whole_batches)
            if options.whole_batches:
                run_ranks(spaces, options.ranks, options.program, folder, options.expect)
                return
            capture = Capture(spaces[0], folder / "veth.pcap")
            run_ranks(spaces, options.ranks, options.program, folder, options.expect)
            missed = capture.stop()
            check(decode(capture.path), options.mtu, missed)
            subprocess.run([options.verify, str(capture.path)], check=True)
            if options.oracle and missed == 0:
                # An ACK that has crossed may lie in a socket while its reader, with no core to run on, sends again.
                judge = [sys.executable, options.oracle, "--tolerate", "resend-cause=2", str(capture.path)]
                subprocess.run(judge, check=True)
            elif options.oracle:
                print(f"the oracle is not asked: the capture misses {missed} packets")
        finally:
            if capture is not None:
                capture.close()
            for space in spaces:
                space.close()


if __name__ == "__main__":
    try:
        main()
    except (Failed, subprocess.CalledProcessError) as failure:
        print(f"FAILED: {failure}")
        sys.exit(1)
