"""Reads the RoCE v2 packets of a pcap file, with the standard library only.

Shares nothing with the rest of the tree on purpose: a mistake in our own decoder must not hide here.
Bad() says why a file can't be read; a packet that is malformed is still a Packet, with `malformed` set.
"""

import ipaddress
import struct
import zlib

ROCE_PORT = 4791
ETHERNET = 1

# Low five bits of the opcode of a reliable or unreliable connection.
OPERATIONS = [
    "SEND_FIRST", "SEND_MIDDLE", "SEND_LAST", "SEND_LAST_IMM", "SEND_ONLY", "SEND_ONLY_IMM",
    "WRITE_FIRST", "WRITE_MIDDLE", "WRITE_LAST", "WRITE_LAST_IMM", "WRITE_ONLY", "WRITE_ONLY_IMM",
    "READ_REQUEST", "READ_RESPONSE_FIRST", "READ_RESPONSE_MIDDLE", "READ_RESPONSE_LAST", "READ_RESPONSE_ONLY",
    "ACK", "ATOMIC_ACK", "CMP_SWAP", "FETCH_ADD", None, "SEND_LAST_INV", "SEND_ONLY_INV",
]  # fmt: skip
RESPONSES = {"READ_RESPONSE_FIRST", "READ_RESPONSE_MIDDLE", "READ_RESPONSE_LAST", "READ_RESPONSE_ONLY", "ACK", "ATOMIC_ACK"}
NO_PAYLOAD = {"READ_REQUEST", "CMP_SWAP", "FETCH_ADD", "ACK", "ATOMIC_ACK"}
RC, UC, UD, CNP = "RC", "UC", "UD", "CNP"
CNP_OPCODE = 0x81


class Bad(Exception):
    """The file is no capture that this reader knows."""


def icrc_of(ip, udp):
    """The ICRC of a packet, from its IP header and its UDP datagram without the ICRC itself."""
    ip = bytearray(ip)
    if ip[0] >> 4 == 4:
        ip[1] = ip[8] = ip[10] = ip[11] = 0xFF  # type of service, time to live, checksum
    else:
        ip[0] |= 0x0F  # traffic class, flow label
        ip[1] = ip[2] = ip[3] = ip[7] = 0xFF  # … and hop limit
    udp = bytearray(udp)
    udp[6] = udp[7] = 0xFF  # checksum
    udp[8 + 4] = 0xFF  # FECN, BECN and the bits beside them
    return zlib.crc32(udp, zlib.crc32(ip, zlib.crc32(b"\xff" * 8)))


class Packet:
    """One RoCE v2 packet. `extended` holds what its extended headers say, by name."""

    def __init__(self, number, time_ns, ip, udp):
        self.number, self.time_ns = number, time_ns
        self.malformed = None
        if ip[0] >> 4 == 4:
            self.source, self.destination = ip[12:16], ip[16:20]
        else:
            self.source, self.destination = ip[8:24], ip[24:40]
        self.port = struct.unpack_from(">H", udp)[0]
        self.operation = self.transport = None
        self.extended, self.payload = {}, b""
        self.psn = self.qpn = 0
        if len(udp) < 8 + 12 + 4:
            self.malformed = "shorter than its headers"
            self.icrc_good = False
            return
        self.icrc_good = icrc_of(ip, udp[:-4]) == struct.unpack_from("<I", udp, len(udp) - 4)[0]
        self._decode(udp[8:-4])

    def _decode(self, bth):
        opcode, flags, self.pkey, qpn_word, psn_word = struct.unpack_from(">BBHII", bth)
        self.opcode = opcode
        self.solicited, self.migration = flags >> 7, flags >> 6 & 1
        pad, version = flags >> 4 & 3, flags & 15
        self.fecn, self.becn = qpn_word >> 31, qpn_word >> 30 & 1
        self.qpn, self.psn = qpn_word & 0xFFFFFF, psn_word & 0xFFFFFF
        self.ack_request = psn_word >> 31
        if opcode == CNP_OPCODE:
            self.transport = CNP
        elif opcode >> 5 == 0 or opcode >> 5 == 1:
            self.transport = RC if opcode >> 5 == 0 else UC
            self.operation = OPERATIONS[opcode & 31] if opcode & 31 < len(OPERATIONS) else None
            uc_only = self.transport == UC and (opcode & 31) > 0x0B
            if self.operation is None or uc_only:
                self.malformed = f"opcode {opcode:#04x}"
                return
        elif opcode in (0x64, 0x65):
            self.transport = UD
            self.operation = "SEND_ONLY" if opcode == 0x64 else "SEND_ONLY_IMM"
        else:
            self.malformed = f"opcode {opcode:#04x}"
            return
        if version != 0:
            self.malformed = f"transport version {version}"
        elif (qpn_word >> 24) & 0x3F or (psn_word >> 24) & 0x7F:
            self.malformed = "reserved bits"
        rest = self._take_extended(bth[12:])
        if rest is None:
            self.malformed = "shorter than its headers"
            return
        if self.transport == UD and self.qpn == 1:
            self.operation = "MAD"  # connection management: one partition of its own, nothing to follow
        if len(rest) % 4 or pad > len(rest):
            self.malformed = self.malformed or "pad"
        self.payload = rest[: len(rest) - pad]
        if self.operation in NO_PAYLOAD and rest:
            self.malformed = self.malformed or f"{self.operation} with a payload"

    def _take_extended(self, rest):
        """What follows the extended headers; None: they do not fit."""
        name, extended = self.operation or "", self.extended
        formats = []
        if self.transport == UD:
            formats.append((">II", ("qkey", "source_qpn")))
        if name in ("WRITE_FIRST", "WRITE_ONLY", "WRITE_ONLY_IMM", "READ_REQUEST"):
            formats.append((">QII", ("address", "key", "length")))
        if name in ("CMP_SWAP", "FETCH_ADD"):
            formats.append((">QIQQ", ("address", "key", "swap", "compare")))
        if name in RESPONSES and name != "READ_RESPONSE_MIDDLE":
            formats.append((">I", ("aeth",)))
        if name == "ATOMIC_ACK":
            formats.append((">Q", ("result",)))
        if name.endswith("_IMM"):
            formats.append((">I", ("immediate",)))
        if name.endswith("_INV"):
            formats.append((">I", ("invalidate",)))
        at = 0
        for layout, names in formats:
            if len(rest) < at + struct.calcsize(layout):
                return None
            extended.update(zip(names, struct.unpack_from(layout, rest, at)))
            at += struct.calcsize(layout)
        if "aeth" in extended:
            extended["syndrome"], extended["msn"] = extended["aeth"] >> 24, extended["aeth"] & 0xFFFFFF
        return rest[at:]

    @property
    def is_response(self):
        return self.operation in RESPONSES

    def starts(self):
        return "FIRST" in self.operation or "ONLY" in self.operation

    def ends(self):
        return "LAST" in self.operation or "ONLY" in self.operation

    def __str__(self):
        def address(raw):
            return ipaddress.ip_address(raw)

        return f"packet {self.number} ({address(self.source)} -> {address(self.destination)} QP {self.qpn:#x} {self.operation or self.transport} PSN {self.psn:#x})"


def read_capture(path):
    """Its RoCE v2 packets; others are passed over. Frames are Ethernet, IP headers without options."""
    with open(path, "rb") as file:
        data = file.read()
    if len(data) < 24:
        raise Bad(f"{path}: too short for a capture")
    for order in "<>":
        magic = struct.unpack_from(order + "I", data)[0]
        if magic in (0xA1B2C3D4, 0xA1B23C4D):
            break
    else:
        raise Bad(f"{path}: not a pcap file")
    unit_ns = 1000 if magic == 0xA1B2C3D4 else 1
    if struct.unpack_from(order + "I", data, 20)[0] & 0xFFFF != ETHERNET:
        raise Bad(f"{path}: not of an Ethernet device")
    packets, at, number = [], 24, 0
    while at < len(data):
        if len(data) - at < 16:
            raise Bad(f"{path}: ends inside a record")
        seconds, fraction, kept, length = struct.unpack_from(order + "IIII", data, at)
        frame = data[at + 16 : at + 16 + kept]
        at += 16 + kept
        number += 1
        if len(frame) < kept:
            raise Bad(f"{path}: ends inside packet {number}")
        parts = split_frame(frame)
        if parts is None:
            continue
        if kept < length:
            raise Bad(f"{path}: packet {number} was cut by the capture")
        packets.append(Packet(number, seconds * 10**9 + fraction * unit_ns, *parts))
    return packets


def split_frame(frame):
    """(IP header, UDP datagram) of a frame that carries RoCE v2; None: something else."""
    if len(frame) < 14 + 28:
        return None
    kind = struct.unpack_from(">H", frame, 12)[0]
    ip = frame[14:]
    if kind == 0x0800 and ip[0] == 0x45 and ip[9] == 17 and not struct.unpack_from(">H", ip, 6)[0] & 0x3FFF:
        head, total = 20, struct.unpack_from(">H", ip, 2)[0]
    elif kind == 0x86DD and len(ip) >= 48 and ip[6] == 17:
        head, total = 40, 40 + struct.unpack_from(">H", ip, 4)[0]
    else:
        return None
    udp = ip[head:total]
    if len(udp) < 8 or struct.unpack_from(">H", udp, 2)[0] != ROCE_PORT:
        return None
    return ip[:head], udp
