#!/usr/bin/env python3
"""The oracle against captures with planted faults: each breaks one rule, and only that one is named.

Usage: oracle_test.py [unittest arguments]
"""

import pathlib
import struct
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import capture  # noqa: E402
from oracle import Judge, parser  # noqa: E402

GOLDEN = HERE.parent / "golden" / "rxe-6.1"
NEAR, FAR = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
NEAR_QPN, FAR_QPN = 0x11, 0x22
MTU = 256
CODES = {name: code for code, name in enumerate(capture.OPERATIONS) if name}
NO_CREDITS = 31


class Wire:
    """Frames of one connection: NEAR asks, FAR answers."""

    def __init__(self):
        self.frames = []  # [time in us, frame]
        self.now_us = 1000

    def ask(self, name, psn, size=0, extended=b"", ack=0, **more):
        self.put(NEAR, FAR, FAR_QPN, CODES[name], psn, extended, b"\x5a" * size, ack=ack, **more)

    def write(self, name, psn, size, length=None, address=0x1000, ack=0):
        reth = struct.pack(">QII", address, 0x77, size if length is None else length)
        self.ask(name, psn, size, reth if "FIRST" in name or "ONLY" in name else b"", ack)

    def read(self, psn, length, address=0x1000, key=0x77):
        self.ask("READ_REQUEST", psn, 0, struct.pack(">QII", address, key, length), 1)

    def add(self, psn):
        self.ask("FETCH_ADD", psn, 0, struct.pack(">QIQQ", 0x1000, 0x77, 1, 0), 1)

    def answer(self, name, psn, msn=0, size=0, syndrome=NO_CREDITS, extended=b"", **more):
        aeth = b"" if name == "READ_RESPONSE_MIDDLE" else struct.pack(">I", syndrome << 24 | msn)
        self.put(FAR, NEAR, NEAR_QPN, CODES[name], psn, aeth + extended, b"\xa5" * size, **more)

    def ack(self, psn, msn, **more):
        self.answer("ACK", psn, msn, **more)

    def nak(self, psn, msn, code=0):
        self.answer("ACK", psn, msn, syndrome=0x60 | code)

    def cnp(self, payload=bytes(16), becn=1):
        self.put(FAR, NEAR, NEAR_QPN, capture.CNP_OPCODE, 0, b"", payload, becn=becn)

    def wait(self, us):
        self.now_us += us

    def put(self, source, destination, qpn, opcode, psn, extended, payload, ack=0, becn=0, version=0, pkey=0xFFFF, damage=0):
        pad = -len(payload) % 4
        bth = struct.pack(">BBHII", opcode, pad << 4 | version, pkey, becn << 30 | qpn, ack << 31 | psn & 0xFFFFFF)
        body = bth + extended + payload + bytes(pad)
        ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + 8 + len(body) + 4, 0, 0x4000, 64, 17, 0, source, destination)
        udp = struct.pack(">HHHH", 0xC123, capture.ROCE_PORT, 8 + len(body) + 4, 0) + body
        icrc = struct.pack("<I", capture.icrc_of(ip, udp) ^ damage)
        self.frames.append([self.now_us, bytes(12) + b"\x08\x00" + ip + udp + icrc])
        self.now_us += 10

    def save(self, path):
        with open(path, "wb") as out:
            out.write(struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, capture.ETHERNET))
            for time_us, frame in self.frames:
                out.write(struct.pack("<IIII", time_us // 10**6, time_us % 10**6, len(frame), len(frame)) + frame)


def rules(wire, *words):
    """The rules that the oracle finds broken, once each."""
    with tempfile.TemporaryDirectory(prefix="sumac-oracle-") as name:
        path = pathlib.Path(name) / "x.pcap"
        wire.save(path)
        judge = Judge(parser().parse_args([*words, str(path)]))
        judge.judge(capture.read_capture(path))
        return sorted({rule for _, rule, _ in judge.broken})


def conversation(wire, psn=0xFFFFFE):
    """Everything that is allowed, across the wrap of PSNs: four requests, seven PSNs. Returns the next PSN."""
    wire.write("WRITE_FIRST", psn, MTU, 600)
    wire.write("WRITE_MIDDLE", psn + 1, MTU)
    wire.write("WRITE_LAST", psn + 2, 88, ack=1)
    wire.ack(psn + 2, 1)
    wire.read(psn + 3, 300)
    wire.answer("READ_RESPONSE_FIRST", psn + 3, 2, MTU)
    wire.answer("READ_RESPONSE_LAST", psn + 4, 2, 44)
    wire.add(psn + 5)
    wire.answer("ATOMIC_ACK", psn + 5, 3, extended=bytes(8))
    wire.ask("SEND_ONLY_IMM", psn + 6, 13, bytes(4), ack=1)
    wire.ack(psn + 6, 4)
    return psn + 7


class Faults:
    """One planted fault each; the method's name is the rule that it breaks, dashes as underscores."""

    def icrc(self, wire, psn):
        wire.ask("SEND_ONLY", psn, 8, damage=1)

    def header(self, wire, psn):
        wire.ask("SEND_ONLY", psn, 8, version=1)

    def header_partition(self, wire, psn):
        wire.ask("SEND_ONLY", psn, 8, pkey=0x1234)

    def header_payload(self, wire, psn):
        wire.ask("SEND_ONLY", psn, 8, ack=1)
        wire.ack(psn, 5, size=4)

    def header_answer_asks(self, wire, psn):
        wire.ask("SEND_ONLY", psn, 8, ack=1)
        wire.answer("ACK", psn, 5, ack=1)

    def psn_order(self, wire, psn):
        wire.ask("SEND_ONLY", psn + 1, 8)

    def opcode_order(self, wire, psn):
        wire.ask("SEND_FIRST", psn, MTU)
        wire.write("WRITE_ONLY", psn + 1, 8)

    def opcode_order_middle(self, wire, psn):
        wire.ask("SEND_MIDDLE", psn, MTU)

    def length(self, wire, psn):
        wire.write("WRITE_ONLY", psn, 8, 12)

    def length_first(self, wire, psn):
        wire.ask("SEND_FIRST", psn, MTU - 4)

    def length_write(self, wire, psn):
        wire.write("WRITE_FIRST", psn, MTU, 600)
        wire.write("WRITE_LAST", psn + 1, MTU)

    def resend_differs(self, wire, psn):
        wire.ask("SEND_ONLY", psn, 8)
        wire.wait(1000)
        wire.ask("SEND_ONLY", psn, 12)

    def resend_differs_read(self, wire, psn):
        wire.read(psn, 600)
        wire.wait(1000)
        wire.read(psn + 1, 344, address=0x1000)  # where 0x1100 was meant

    def resend_cause(self, wire, psn):
        wire.ask("SEND_ONLY", psn, 8)
        wire.ask("SEND_ONLY", psn, 8)

    def resend_cause_twice(self, wire, psn):
        wire.ask("SEND_ONLY", psn, 8)
        wire.nak(psn, 4)
        wire.ask("SEND_ONLY", psn, 8)
        wire.ask("SEND_ONLY", psn, 8)

    def rnr_wait(self, wire, psn):
        wire.ask("SEND_ONLY", psn, 8)
        wire.answer("ACK", psn, 4, syndrome=0x20 | 14)  # 1.28 ms
        wire.wait(1000)
        wire.ask("SEND_ONLY", psn, 8)

    def ghost(self, wire, psn):
        wire.ask("SEND_ONLY", psn, 8)
        wire.ack(psn + 1, 5)

    def ack_order(self, wire, psn):
        wire.ask("SEND_ONLY", psn, 8)
        wire.ask("SEND_ONLY", psn + 1, 8)
        wire.ack(psn + 1, 6)
        wire.ack(psn, 6)

    def one_nak(self, wire, psn):
        wire.ask("SEND_ONLY", psn, 8)
        wire.ask("SEND_ONLY", psn + 1, 8)
        wire.nak(psn, 4)
        wire.nak(psn, 4)

    def syndrome(self, wire, psn):
        wire.ask("SEND_ONLY", psn, 8)
        wire.answer("ACK", psn, 4, syndrome=0x65)

    def syndrome_type(self, wire, psn):
        wire.ask("SEND_ONLY", psn, 8)
        wire.answer("ACK", psn, 4, syndrome=0x5F)

    def syndrome_data(self, wire, psn):
        wire.read(psn, 8)
        wire.answer("READ_RESPONSE_ONLY", psn, 5, 8, syndrome=0x60)

    def credits(self, wire, psn):
        wire.ask("SEND_ONLY", psn, 8)
        wire.answer("ACK", psn, 5, syndrome=4)

    def response_kind(self, wire, psn):
        wire.ask("SEND_ONLY", psn, 8)
        wire.answer("READ_RESPONSE_ONLY", psn, 5, 8)

    def response_kind_atomic(self, wire, psn):
        wire.read(psn, 8)
        wire.answer("ATOMIC_ACK", psn, 5, extended=bytes(8))

    def unasked(self, wire, psn):
        wire.read(psn, 8)
        wire.answer("READ_RESPONSE_ONLY", psn, 5, 8)
        wire.answer("READ_RESPONSE_ONLY", psn, 5, 8)

    def response_order(self, wire, psn):
        wire.read(psn, 8)
        wire.read(psn + 1, 8)
        wire.answer("READ_RESPONSE_ONLY", psn + 1, 6, 8)
        wire.answer("READ_RESPONSE_ONLY", psn, 6, 8)

    def read_length(self, wire, psn):
        wire.read(psn, 8)
        wire.answer("READ_RESPONSE_ONLY", psn, 5, 4)

    def read_opcode(self, wire, psn):
        wire.read(psn, 2 * MTU)
        wire.answer("READ_RESPONSE_FIRST", psn, 5, MTU)
        wire.answer("READ_RESPONSE_MIDDLE", psn + 1, 0, MTU)

    def read_opcode_begin(self, wire, psn):
        wire.read(psn, 2 * MTU)
        wire.answer("READ_RESPONSE_MIDDLE", psn, 0, MTU)
        wire.answer("READ_RESPONSE_LAST", psn + 1, 5, MTU)

    def msn(self, wire, psn):
        wire.ask("SEND_ONLY", psn, 8)
        wire.ack(psn, 4)

    def msn_ahead(self, wire, psn):
        wire.ask("SEND_ONLY", psn, 8)
        wire.ack(psn, 6)

    def msn_back(self, wire, psn):
        wire.ask("SEND_ONLY", psn, 8)
        wire.read(psn + 1, 8)
        wire.answer("READ_RESPONSE_ONLY", psn + 1, 6, 8)
        wire.read(psn + 2, 8)
        wire.ask("SEND_ONLY", psn + 3, 8)
        wire.answer("READ_RESPONSE_ONLY", psn + 2, 5, 8)

    def cnp(self, wire, psn):
        wire.cnp(payload=bytes(15) + b"\1")

    def cnp_becn(self, wire, psn):
        wire.cnp(becn=0)

    def cnp_gap(self, wire, psn):
        wire.cnp()
        wire.cnp()

    def unanswered(self, wire, psn):
        wire.ask("SEND_ONLY", psn, 8)


RULES = [
    "icrc", "header", "psn-order", "opcode-order", "length", "resend-differs", "resend-cause", "rnr-wait", "ghost", "ack-order",
    "one-nak", "syndrome", "credits", "response-kind", "unasked", "response-order", "read-length", "read-opcode", "msn", "cnp-gap",
    "cnp", "unanswered",
]  # fmt: skip


def rule_of(fault):
    named = fault.replace("_", "-")
    return next(rule for rule in sorted(RULES, key=len, reverse=True) if named == rule or named.startswith(rule + "-"))


class OracleTest(unittest.TestCase):
    def test_each_fault_breaks_its_rule_only(self):
        faults = [name for name in vars(Faults) if not name.startswith("_")]
        self.assertEqual({rule_of(name) for name in faults}, set(RULES), "each rule has a fault")
        for name in faults:
            with self.subTest(name):
                wire = Wire()
                getattr(Faults(), name)(wire, conversation(wire))
                # An end that is cut off is a fault of its own, and only that one looks for it.
                words = ["--complete"] if name == "unanswered" else []
                self.assertEqual(rules(wire, *words), [rule_of(name)])

    def test_what_is_allowed(self):
        wire = Wire()
        psn = conversation(wire)
        self.assertEqual(rules(wire, "--complete"), [])
        # Go back N on a NAK; READ again from the middle on; silence; RNR; one ACK for several; a far CNP.
        wire.ask("SEND_ONLY", psn, 8)
        wire.ask("SEND_ONLY", psn + 1, 8)
        wire.nak(psn, 4)
        wire.ask("SEND_ONLY", psn, 8)
        wire.ask("SEND_ONLY", psn + 1, 8, ack=1)
        wire.ack(psn + 1, 6)
        wire.read(psn + 2, 600)
        wire.answer("READ_RESPONSE_FIRST", psn + 2, 7, MTU)
        wire.answer("READ_RESPONSE_LAST", psn + 4, 7, 88)
        wire.read(psn + 3, 344, address=0x1100)
        wire.answer("READ_RESPONSE_FIRST", psn + 3, 7, MTU)
        wire.answer("READ_RESPONSE_LAST", psn + 4, 7, 88)
        wire.cnp()
        wire.wait(100)
        wire.cnp()
        wire.ask("SEND_ONLY", psn + 5, 8)
        wire.wait(1000)
        wire.ask("SEND_ONLY", psn + 5, 8)
        wire.answer("ACK", psn + 5, 7, syndrome=0x20 | 1)
        wire.wait(10)
        wire.ask("SEND_ONLY", psn + 5, 8)
        wire.ack(psn + 5, 8)
        wire.ack(psn + 5, 8)  # of the duplicate
        self.assertEqual(rules(wire, "--complete"), [])

    def test_reset_queue_pairs(self):
        wire = Wire()
        conversation(wire, 0x100)
        conversation(wire, 0x100)
        self.assertNotEqual(rules(wire), [])
        self.assertEqual(rules(wire, "--reconnects", "--complete"), [])

    def test_an_allowed_rule_is_not_reported(self):
        wire = Wire()
        Faults().one_nak(wire, conversation(wire))
        self.assertEqual(rules(wire, "--allow", "one-nak"), [])

    def test_crc_bit_by_bit(self):
        """zlib's CRC is the one that the specification means: here it is from its polynomial."""

        def crc(data):
            state = 0xFFFFFFFF
            for byte in data:
                state ^= byte
                for _ in range(8):
                    state = state >> 1 ^ (0xEDB88320 if state & 1 else 0)
            return state ^ 0xFFFFFFFF

        ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0xB9, 64, 0x1234, 0x4000, 63, 17, 0xBEEF, NEAR, FAR)
        udp = struct.pack(">HHHH", 0xC123, capture.ROCE_PORT, 44, 0xCAFE) + bytes(range(32))
        masked_ip = bytes([0x45, 0xFF]) + ip[2:8] + b"\xff" + ip[9:10] + b"\xff\xff" + ip[12:]
        masked_udp = udp[:6] + b"\xff\xff" + udp[8:12] + b"\xff" + udp[13:]
        self.assertEqual(capture.icrc_of(ip, udp), crc(b"\xff" * 8 + masked_ip + masked_udp))

    def test_golden_captures(self):
        """All of them, but for rules about time: they were stamped when they were written to the file."""
        paths = sorted(GOLDEN.glob("*.pcap"))
        self.assertEqual(len(paths), 36)
        for path in paths:
            with self.subTest(path.name):
                judge = Judge(parser().parse_args(["--no-times", "--complete", str(path)]))
                packets = capture.read_capture(path)
                judge.judge(packets)
                self.assertEqual([(packet.number, rule, text) for packet, rule, text in judge.broken], [])
                for packet in packets:
                    self.assertTrue(packet.icrc_good)

    def test_program(self):
        wire = Wire()
        psn = conversation(wire)
        with tempfile.TemporaryDirectory(prefix="sumac-oracle-") as name:
            path = pathlib.Path(name) / "x.pcap"

            def run(*words):
                return subprocess.run([sys.executable, HERE / "oracle.py", *words], capture_output=True, text=True, timeout=60)

            wire.save(path)
            done = run(path)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.assertIn("11 packets (11 RC), 1 connections, 0 broken rules", done.stdout)
            Faults().ghost(wire, psn)
            wire.save(path)
            done = run(path)
            self.assertEqual(done.returncode, 1)
            self.assertIn("ghost: packet 13 (10.0.0.2 -> 10.0.0.1 QP 0x11 ACK PSN 0x6)", done.stdout)
            self.assertEqual(run("--tolerate", "ghost=8", path).returncode, 0)  # one of 13
            self.assertEqual(run("--tolerate", "ghost=7", path).returncode, 1)
            path.write_bytes(path.read_bytes()[:-3])
            self.assertEqual(run(path).returncode, 2)
            path.write_bytes(b"no capture, but long enough to be one")
            done = run(path)
            self.assertEqual(done.returncode, 2)
            self.assertIn("not a pcap file", done.stderr)
            self.assertEqual(run(path.with_name("none")).returncode, 2)


if __name__ == "__main__":
    unittest.main()
