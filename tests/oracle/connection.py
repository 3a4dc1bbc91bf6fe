"""The rules for one direction of a reliable connection: requests one way, their answers the other.

PSNs are held as sequence numbers that never wrap. A rule that is broken is reported once per packet:
(packet, rule, what). Rules and their reasons: README.md.
"""

import bisect

HALF, SPACE = 1 << 23, 1 << 24
NAK_SEQUENCE, NAK_LAST = 0x60, 0x64

# What an RNR NAK asks a requester to wait, in hundredths of milliseconds (table 45).
RNR_WAITS = [65536, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192]
RNR_WAITS += [256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768, 49152]


def kind_of(syndrome):
    return ("ACK", "RNR", "RESERVED", "NAK")[syndrome >> 5 & 3] if syndrome < 0x80 else "RESERVED"


class Sent:
    """What was sent with one PSN."""

    def __init__(self, packet, first, last):
        self.packet, self.first, self.last = packet, first, last
        self.times = 1
        self.time_ns = packet.time_ns


class Direction:
    def __init__(self, report, options, mtu):
        self.report, self.options, self.mtu = report, options, mtu
        self.begin(None)

    def begin(self, sequence):
        """A new life of the connection: nothing is known."""
        self.next = sequence  # of the next new request
        self.base = sequence
        self.acked = sequence
        self.sent = {}  # sequence -> Sent, as first sent
        self.starts = []  # sequences of requests as first sent, ascending: READs cover several PSNs
        self.ends = []  # last sequences of messages, ascending
        self.open = None  # the message under way: (kind, bytes missing or None)
        self.asked = {}  # sequence of a READ or atomic response -> how often it was asked for
        self.answered = {}  # … and answered
        self.read_ends = set()  # sequences at which a READ request, repeated ones too, ends
        self.read_starts = set()
        self.cause = False  # something said that packets were lost
        self.resending_to = None  # the resend under way may go on with this sequence
        self.progress_ns = None
        self.naks = {}  # sequence -> sequence NAKs that asked for it
        self.rnr_at, self.rnr_until_ns = None, 0  # an RNR NAK stands for this sequence
        self.highest_answer = None
        self.msn = None
        self.msn_offset = None
        self.dead = False
        self.credits = None

    def extend(self, psn, near):
        return near + ((psn - near + HALF) % SPACE - HALF)

    def psns_of(self, packet):
        if packet.operation != "READ_REQUEST":
            return 1
        return max(1, -(-packet.extended["length"] // self.mtu))

    # --- Requests ---

    def on_request(self, packet):
        if self.next is None:
            self.begin(packet.psn + SPACE)
        sequence = self.extend(packet.psn, self.next)
        if self.options.reconnects and self.is_new_life(packet, sequence):
            self.begin(packet.psn + SPACE)
            sequence = self.next
        if sequence >= self.next:
            if sequence > self.next:
                self.report(packet, "psn-order", f"{sequence - self.next} PSNs were left out")
                self.open = None
            self.on_new_request(packet, sequence)
        else:
            self.on_resend(packet, sequence)
        if self.rnr_at == sequence:
            self.rnr_at = None
            if packet.time_ns < self.rnr_until_ns and not self.options.no_times:
                early = (self.rnr_until_ns - packet.time_ns) / 1000
                self.report(packet, "rnr-wait", f"{early:.0f} us before the time that the RNR NAK asked for")

    def is_new_life(self, packet, sequence):
        """A queue pair that was reset begins again where its program says, often with the same PSN."""
        over = self.dead or self.acked == self.next
        if sequence == self.base and packet.starts() and over and sequence != self.next:
            return True
        return abs(sequence - self.next) > self.options.window

    def on_new_request(self, packet, sequence):
        last = sequence + self.psns_of(packet) - 1
        if self.acked == self.next or self.progress_ns is None:
            self.progress_ns = packet.time_ns  # was idle: silence counts from here
        self.acked = self.acked if self.acked is not None else sequence
        self.check_message(packet)
        self.sent[sequence] = Sent(packet, sequence, last)
        self.starts.append(sequence)
        self.next = last + 1
        if packet.operation in ("READ_REQUEST", "CMP_SWAP", "FETCH_ADD"):
            self.ask(packet, sequence, last)
            self.ends.append(last)
        elif packet.ends():
            self.ends.append(last)
        self.resending_to = None

    def ask(self, packet, sequence, last):
        for each in range(sequence, last + 1):
            self.asked[each] = self.asked.get(each, 0) + 1
        if packet.operation == "READ_REQUEST":
            self.read_starts.add(sequence)
            self.read_ends.add(last)

    def check_message(self, packet):
        """FIRST, MIDDLE, LAST in order, all full but the last, and as many bytes as the RETH said."""
        kind = packet.operation.split("_")[0]
        size = len(packet.payload)
        if kind in ("READ", "CMP", "FETCH"):
            if self.open:
                self.report(packet, "opcode-order", f"inside a {self.open[0]}")
            self.open = None
            return
        expected = None if packet.starts() else kind
        if (self.open[0] if self.open else None) != expected:
            under_way = f"inside a {self.open[0]}" if self.open else "without a FIRST"
            self.report(packet, "opcode-order", under_way)
            self.open = None
        if not packet.ends() and size != self.mtu or size > self.mtu:
            self.report(packet, "length", f"{size} bytes with an MTU of {self.mtu}")
        missing = packet.extended.get("length") if packet.starts() else self.open[1] if self.open else None
        if missing is not None:
            missing -= size
            if missing < 0 or packet.ends() and missing != 0 or not packet.ends() and missing == 0:
                self.report(packet, "length", f"{missing} bytes missing at the end of this packet")
        self.open = None if packet.ends() else (kind, missing)

    def on_resend(self, packet, sequence):
        last = sequence + self.psns_of(packet) - 1
        original = self.original(sequence)
        if original is None:
            if sequence >= self.base:
                self.report(packet, "resend-differs", "nothing was sent with this PSN")
            return
        self.check_same(packet, sequence, last, original)
        self.check_cause(packet, sequence, original)
        if packet.operation in ("READ_REQUEST", "CMP_SWAP", "FETCH_ADD"):
            self.ask(packet, sequence, last)
        original.times += 1
        original.time_ns = packet.time_ns
        self.resending_to = last + 1

    def original(self, sequence):
        """What was first sent with this PSN, or the READ that covers it."""
        at = bisect.bisect_right(self.starts, sequence) - 1
        if at < 0:
            return None
        found = self.sent[self.starts[at]]
        return found if found.last >= sequence else None

    def check_same(self, packet, sequence, last, original):
        first = original.packet
        same = packet.operation == first.operation
        if same and packet.operation == "READ_REQUEST":
            moved = (sequence - original.first) * self.mtu
            same = (
                packet.extended["address"] == first.extended["address"] + moved
                and packet.extended["key"] == first.extended["key"]
                and packet.extended["length"] <= first.extended["length"] - moved
                and last <= original.last
            )
        elif same:
            same = packet.extended == first.extended and packet.payload == first.payload
        if not same:
            self.report(packet, "resend-differs", f"from packet {first.number}, which had this PSN")

    def check_cause(self, packet, sequence, original):
        if self.resending_to == sequence or self.options.no_times:
            return  # goes on, or perhaps after silence
        if self.cause:
            self.cause = False
            return
        silence = self.options.silence_us * 1000
        if packet.time_ns - original.time_ns >= silence or packet.time_ns - self.progress_ns >= silence:
            return
        # A response that crossed here may have been lost behind us: a later one told the requester.
        is_asked = packet.operation in ("READ_REQUEST", "CMP_SWAP", "FETCH_ADD")
        if is_asked and self.highest_answer is not None and self.highest_answer > sequence:
            return
        self.report(packet, "resend-cause", "sent again without a NAK, an RNR NAK, a response missing, or silence")

    # --- Answers ---

    def on_response(self, packet):
        if self.next is None:
            return self.report(packet, "ghost", "answers a connection on which nothing was sent")
        sequence = self.extend(packet.psn, self.next - 1)
        if not self.base <= sequence < self.next:
            return self.report(packet, "ghost", "answers a PSN that was not sent")
        if packet.operation == "ACK":
            self.on_acknowledge(packet, sequence)
        else:
            self.on_data(packet, sequence)
        if "msn" in packet.extended:
            self.check_msn(packet, sequence)
        if self.highest_answer is None or sequence > self.highest_answer:
            self.highest_answer = sequence

    def acknowledge(self, packet, to):
        if to > self.acked:
            self.acked = to
            self.progress_ns = packet.time_ns
            if self.resending_to is not None and self.resending_to < to:
                self.resending_to = to  # the resend goes on behind what was acknowledged

    def on_acknowledge(self, packet, sequence):
        syndrome = packet.extended["syndrome"]
        kind = kind_of(syndrome)
        unanswered = self.oldest_unanswered()
        if unanswered is not None and sequence > unanswered:
            self.cause = True  # passes over a READ or atomic: implied NAK
        if kind == "RESERVED" or kind == "NAK" and syndrome > NAK_LAST:
            return self.report(packet, "syndrome", f"{syndrome:#04x} is reserved")
        # A plain ACK says how far the responder is; it never goes back.
        position = sequence if kind == "ACK" else sequence - 1
        if position < self.acked - 1 and kind == "ACK":
            self.report(packet, "ack-order", f"PSN {(self.acked - 1) % SPACE:#x} was acknowledged before")
        if kind == "ACK":
            self.check_credits(packet, syndrome & 31)
            self.acknowledge(packet, sequence + 1)
        elif syndrome == NAK_SEQUENCE:
            # Answers cross with requests, so it is their numbers that are compared.
            self.naks[sequence] = self.naks.get(sequence, 0) + 1
            original = self.original(sequence)
            if original and self.naks[sequence] > original.times:
                self.report(packet, "one-nak", f"{self.naks[sequence]} sequence NAKs for what was sent {original.times} times")
            self.cause = True
            self.acknowledge(packet, sequence)
        elif kind == "RNR":
            self.cause = True
            self.rnr_at, self.rnr_until_ns = sequence, packet.time_ns + RNR_WAITS[syndrome & 31] * 10_000
            self.acknowledge(packet, sequence)
        else:
            self.dead = True
            self.acknowledge(packet, sequence)

    def check_credits(self, packet, value):
        """31: credits are not used. A responder uses them or not."""
        if self.credits is None:
            self.credits = value != 31
        elif self.credits != (value != 31):
            self.report(packet, "credits", "with and without credits on one connection")

    def oldest_unanswered(self):
        for sequence in self.asked:  # in the order of asking
            if sequence >= self.acked and sequence not in self.answered:
                return sequence
        return None

    def on_data(self, packet, sequence):
        """A READ or atomic response."""
        original = self.original(sequence)
        is_atomic = packet.operation == "ATOMIC_ACK"
        wanted = ("CMP_SWAP", "FETCH_ADD") if is_atomic else ("READ_REQUEST",)
        if original is None or original.packet.operation not in wanted:
            what = original.packet.operation if original else "nothing"
            return self.report(packet, "response-kind", f"answers {what}")
        self.answered[sequence] = self.answered.get(sequence, 0) + 1
        if self.answered[sequence] > self.asked.get(sequence, 0):
            self.report(packet, "unasked", f"answered {self.answered[sequence]} times, asked for {self.asked[sequence]}")
        elif self.answered[sequence] == 1 and self.highest_answer is not None and sequence < self.highest_answer and self.asked[sequence] == 1:
            self.report(packet, "response-order", f"after PSN {self.highest_answer % SPACE:#x}")
        if "syndrome" in packet.extended:
            syndrome = packet.extended["syndrome"]
            if kind_of(syndrome) != "ACK":
                self.report(packet, "syndrome", f"{syndrome:#04x} on a response with data")
            else:
                self.check_credits(packet, syndrome & 31)
        if not is_atomic:
            self.check_read_response(packet, sequence, original)
        if sequence > self.acked:
            missing = self.oldest_unanswered()
            if missing is not None and missing < sequence:
                self.cause = True  # passes over another: implied NAK
                return
        self.acknowledge(packet, sequence + 1)

    def check_read_response(self, packet, sequence, original):
        offset = (sequence - original.first) * self.mtu
        expected = min(self.mtu, original.packet.extended["length"] - offset)
        if len(packet.payload) != expected:
            self.report(packet, "read-length", f"{len(packet.payload)} bytes where {expected} were asked for")
        if packet.ends() != (sequence in self.read_ends) and not (packet.ends() is False and self.asked[sequence] > 1):
            self.report(packet, "read-opcode", "the end of the answer is not where the request ends")
        # After a retry a responder may begin anew or go on.
        if self.asked[sequence] == 1 and packet.starts() != (sequence in self.read_starts):
            self.report(packet, "read-opcode", "the beginning of the answer is not where the request begins")

    def check_msn(self, packet, sequence):
        """At least the messages that this answer says are complete, at most those that were sent; never back."""
        msn = packet.extended["msn"]
        done_before = bisect.bisect_left(self.ends, sequence)
        is_plain_ack = packet.operation == "ACK" and kind_of(packet.extended["syndrome"]) == "ACK"
        least = bisect.bisect_right(self.ends, sequence) if is_plain_ack else done_before
        most = len(self.ends)
        if self.msn_offset is None:  # 0 when the capture saw the beginning
            fits = least <= msn <= most
            self.msn_offset = 0 if fits else (msn - bisect.bisect_right(self.ends, sequence)) % SPACE
        relative = (msn - self.msn_offset) % SPACE
        if not least <= relative <= most:
            self.report(packet, "msn", f"{relative} messages, where {least} to {most} are possible")
        elif self.msn is not None and relative < self.msn:
            self.report(packet, "msn", f"{relative} after {self.msn}")
        else:
            self.msn = relative

    def finish(self, packet):
        if self.options.complete and self.next is not None and self.acked < self.next and not self.dead:
            self.report(packet, "unanswered", f"PSN {self.acked % SPACE:#x} and later were never answered")
