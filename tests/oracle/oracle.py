#!/usr/bin/env python3
"""Judges captures of RoCE v2: does every packet keep the rules of the protocol?

Usage: oracle.py [options] CAPTURE.pcap...     exit status 1: a rule is broken; 2: no such capture

An oracle of its own: it shares no code with the tree's codec and engine. README.md lists the rules.
"""

import argparse
import collections
import ipaddress
import sys

import capture
from connection import Direction

SHOWN = 20


class Judge:
    def __init__(self, options):
        self.options = options
        self.broken = []  # (packet, rule, text)
        self.connections = {}  # (address, QP number) of one end -> of the other
        self.directions = {}  # (source, destination, QP number asked) -> Direction
        self.cnps = {}
        self.counts = collections.Counter()

    def report(self, packet, rule, text):
        if rule not in self.options.allow:
            self.broken.append((packet, rule, text))

    def judge(self, packets):
        good = [packet for packet in packets if self.check_packet(packet)]
        connected = [packet for packet in good if packet.transport == capture.RC]
        self.pair(connected)
        mtus = self.find_mtus(connected)
        for packet in good:
            if packet.transport == capture.CNP:
                self.check_cnp(packet)
            elif packet.transport == capture.RC:
                self.follow(packet, mtus)
            elif packet.transport == capture.UC:
                self.follow_unreliable(packet)
        for direction in self.directions.values():
            if connected:
                direction.finish(connected[-1])

    def check_packet(self, packet):
        """False: nothing more can be said about it."""
        self.counts[packet.transport] += 1
        if not packet.icrc_good:
            self.report(packet, "icrc", "wrong ICRC")
            return False
        if packet.malformed:
            self.report(packet, "header", packet.malformed)
            return False
        if packet.pkey & 0x7FFF != 0x7FFF and packet.operation != "MAD":
            self.report(packet, "header", f"partition {packet.pkey:#x}")
        if packet.is_response and (packet.ack_request or packet.solicited):
            self.report(packet, "header", "an answer that asks for an answer")
        return True

    # --- Which QP numbers belong together: no packet says both ---

    def pair(self, packets):
        """By the PSNs that are answered: most likely the answer is to whoever sent that PSN last."""
        asked = collections.defaultdict(dict)  # (from, to, PSN) -> {QP number asked: (packet number, port) of the last}
        scores = collections.Counter()
        for packet in packets:
            if not packet.is_response:
                count = 1
                if packet.operation == "READ_REQUEST":  # with the smallest MTU at most
                    count = min(max(1, -(-packet.extended["length"] // 256)), 1 << 16)
                for i in range(count):
                    asked[packet.source, packet.destination, (packet.psn + i) & 0xFFFFFF][packet.qpn] = (packet.number, packet.port)
                continue
            candidates = asked.get((packet.destination, packet.source, packet.psn), {})
            last = max(candidates.values(), default=None)
            for qpn, (number, port) in candidates.items():
                score = 1 if (number, port) == last else 0.01
                score += 0.01 * (port == packet.port)  # rxe answers with the port of the request
                scores[frozenset([(packet.destination, packet.qpn), (packet.source, qpn)])] += score
        for ends, _ in sorted(scores.items(), key=lambda item: -item[1]):
            if len(ends) == 2 and not any(end in self.connections for end in ends):
                one, other = ends
                self.connections[one], self.connections[other] = other, one

    def request_flow(self, packet):
        """The flow of the requests that `packet`, an answer, belongs to; None: of no known connection."""
        other = self.connections.get((packet.destination, packet.qpn))
        return (packet.destination, packet.source, other[1]) if other else None

    def find_mtus(self, packets):
        """The path MTU of each connection: what FIRST and MIDDLE packets carry, most of them at least."""
        sizes = collections.defaultdict(collections.Counter)
        for packet in packets:
            if "FIRST" in packet.operation or "MIDDLE" in packet.operation:
                sizes[self.connection_of(packet)][len(packet.payload)] += 1
        return {connection: counter.most_common(1)[0][0] for connection, counter in sizes.items()}

    def connection_of(self, packet):
        end = (packet.destination, packet.qpn)
        other = self.connections.get(end)
        return frozenset([end, other] if other else [end, packet.source])

    def follow(self, packet, mtus):
        flow = self.request_flow(packet) if packet.is_response else (packet.source, packet.destination, packet.qpn)
        if flow is None:
            return self.report(packet, "ghost", "answers no request of this capture")
        if flow not in self.directions:
            # Without a FIRST or MIDDLE every message has one packet, whatever the MTU.
            mtu = mtus.get(self.connection_of(packet), 4096)
            if mtu not in (256, 512, 1024, 2048, 4096):
                self.report(packet, "length", f"an MTU of {mtu}")
                mtu = 4096
            self.directions[flow] = Direction(self.report, self.options, mtu)
        direction = self.directions[flow]
        if packet.is_response:
            direction.on_response(packet)
        else:
            direction.on_request(packet)

    def follow_unreliable(self, packet):
        flow = ("UC", packet.source, packet.destination, packet.qpn)
        next_psn = self.cnps.get(flow)
        if next_psn is not None and packet.psn != next_psn:
            self.report(packet, "psn-order", f"PSN {next_psn:#x} was to come")
        self.cnps[flow] = (packet.psn + 1) & 0xFFFFFF

    def check_cnp(self, packet):
        """Annex A17.9: BECN, sixteen bytes of nothing; and not too many of them."""
        if not packet.becn or packet.ack_request or packet.solicited or packet.payload != bytes(16):
            self.report(packet, "cnp", "not as a congestion notification looks")
        flow = (packet.source, packet.destination, packet.qpn)
        last = self.cnps.get(flow)
        gap_ns = 0 if self.options.no_times else self.options.cnp_gap_us * 1000
        if last is not None and packet.time_ns - last < gap_ns:
            self.report(packet, "cnp-gap", f"{(packet.time_ns - last) / 1000:.0f} us after the last one")
        self.cnps[flow] = packet.time_ns

    def forgive(self, packets):
        """Takes back what --tolerate allows: a rule that few packets break."""
        for word in self.options.tolerate:
            rule, percent = word.split("=")
            found = [each for each in self.broken if each[1] == rule]
            if found and len(found) * 100 <= float(percent) * len(packets):
                self.broken = [each for each in self.broken if each[1] != rule]
                print(f"tolerated: {len(found)} {rule}, the first: {found[0][0]}")

    def summary(self):
        ends = {frozenset([a, b]) for a, b in self.connections.items()}
        kinds = ", ".join(f"{count} {kind or 'of no known kind'}" for kind, count in sorted(self.counts.items(), key=str))
        return f"{sum(self.counts.values())} packets ({kinds}), {len(ends)} connections, {len(self.broken)} broken rules"


def parser():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--allow", action="append", default=[], metavar="RULE", help="a rule that may be broken here")
    options.add_argument("--tolerate", action="append", default=[], metavar="RULE=PERCENT", help="a rule that so many packets may break")
    options.add_argument("--silence-us", type=int, default=900, help="silence after which packets may be sent again")
    options.add_argument("--no-times", action="store_true", help="the time stamps are not those of the wire: rules about time rest")
    options.add_argument("--cnp-gap-us", type=int, default=50, help="least time between two CNPs for a queue pair")
    options.add_argument("--reconnects", action="store_true", help="queue pairs are reset and connected again")
    options.add_argument("--window", type=int, default=1 << 16, help="with --reconnects: a farther jump of PSNs is a new connection")
    options.add_argument("--complete", action="store_true", help="at the end every request has its answer")
    options.add_argument("captures", nargs="+")
    return options


def main():
    options = parser().parse_args()
    failed = False
    for path in options.captures:
        judge = Judge(options)
        packets = capture.read_capture(path)
        judge.judge(packets)
        judge.forgive(packets)
        for packet, rule, text in judge.broken[:SHOWN]:
            print(f"{path}: {rule}: {packet}: {text}")
        if len(judge.broken) > SHOWN:
            rules = collections.Counter(rule for _, rule, _ in judge.broken)
            print(f"{path}: … in all " + ", ".join(f"{count} {rule}" for rule, count in rules.most_common()))
        print(f"{path}: {judge.summary()}")
        failed |= bool(judge.broken) or not packets
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, capture.Bad) as error:
        print(f"oracle: {error}", file=sys.stderr)
        sys.exit(2)
