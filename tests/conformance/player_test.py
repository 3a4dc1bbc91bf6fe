#!/usr/bin/env python3
"""Scripts that must fail: does the player notice, and say where, what was expected and what came?

Usage: player_test.py PLAYER [unittest arguments]
"""

import pathlib
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True  # nothing is left beside the sources
import report  # noqa: E402

PLAYER = None

# Lines of a case -> what the player must say.
MISMATCHES = {
    "  peer WRITE_ONLY psn 0x500 bytes 8 at 0 ack\n  expect memory 0+8 fill 0xab": "x.rdma:end: a: expected no packet; came ACK",
    "  peer WRITE_ONLY psn 0x500 ack\n  expect ACK psn 0x501": "4: a: expected ACK psn 0x501 msn 0; came ACK psn 0x500 msn 1 (psn 0x500)",
    "  peer WRITE_ONLY psn 0x500 ack\n  expect ACK psn 0x500 msn 2": "(msn 1)",
    "  peer WRITE_ONLY psn 0x500 ack\n  expect NAK_SEQUENCE psn 0x500": "came ACK psn 0x500 msn 1 (another packet)",
    "  peer WRITE_ONLY psn 0x500 ack\n  expect nothing": "expected no packet; came ACK",
    "  expect ACK psn 0x500": "came nothing by 0ms",
    "  peer READ_REQUEST psn 0x500 at 0 length 8\n  expect READ_RESPONSE_ONLY psn 0x500 bytes 4": "(bytes 8)",
    "  peer READ_REQUEST psn 0x500 at 0 length 8\n  expect READ_RESPONSE_ONLY psn 0x500 bytes 8 data 1": "(other bytes)",
    "  post SEND id 1 from 0+8\n  expect SEND_ONLY psn 0x100 bytes 8 no_ack": "(ack)",
    "  post SEND id 1 from 0+8\n  expect SEND_ONLY psn 0x100 bytes 8\n  expect SEND_ONLY psn 0x100 bytes 8 within 1ms": "nothing by 1ms",
    "  post SEND id 1 from 0+8\n  expect SEND_ONLY psn 0x100 bytes 8\n  expect SEND_ONLY psn 0x100 bytes 8 after 1s": "no earlier than after 1000ms",
    "  post SEND id 1 from 0+8\n  expect SEND_ONLY psn 0x100 bytes 8\n  peer ACK psn 0x100": "expected no completion; came completed 1 ok",
    "  post SEND id 1 from 0+8\n  expect completed 1 ok": "expected completed 1 ok; came none",
    "  post RECEIVE id 1 into 0+8\n  peer SEND_ONLY_IMM psn 0x500 bytes 8 imm 3\n  expect received 1 ok": "without immediate",
    "  post RECEIVE id 1 into 0+8\n  peer SEND_ONLY psn 0x500 bytes 8\n  expect received 2 ok": "expected received 2 ok",
    "  post RECEIVE id 1 into 0+8\n  peer SEND_ONLY psn 0x500 bytes 8\n  expect received 1 flushed": "came 1 ok bytes 8",
    "  peer WRITE_ONLY psn 0x500 bytes 8 at 0": "x.rdma:end: a: expected byte 0 to be 3; came 171",
    "  peer WRITE_ONLY psn 0x500 bytes 8 at 0\n  expect memory 0+8 unchanged": "expected byte 0 to be 3; came 171",
    "  set word 8 to 5\n  expect word 8 is 6": "expected byte 8 to be 6; came 5",
    "  enter ERR\n  expect state RTS": "expected state RTS; came ERR",
    "  expect counter timeouts 1": "expected timeouts 1; came 0",
    "  with state INIT\n  post SEND id 1 from 0+8": "the post to return 0; came 22",
}

SCRIPT_ERRORS = {
    "  peer SEND_ONLI psn 0x500": "no packet is called 'SEND_ONLI'",
    "  peer SEND_ONLY": "a packet has a psn",
    "  peer SEND_ONLY psn 0x500 byte 8": "what does 'byte' mean here?",
    "  peer SEND_ONLY psn O": "'O' is not a number",
    "  expect ACK psn 1 within 5": "'5' is not a time",
    "  post SEND from 0+8": "posted work has an id",
    "  expect counter nonsense 1": "no counter 'nonsense'",
    "  frobnicate": "no line begins with 'frobnicate'",
    "  wait 1ms\n  with mtu 256": "'with' stands before everything else",
    "  with mut 256": "what does 'mut' mean here?",
}


class PlayerTest(unittest.TestCase):
    def play(self, text):
        with tempfile.TemporaryDirectory(prefix="sumac-conformance-") as name:
            script = pathlib.Path(name) / "x.rdma"
            script.write_text(text)
            return subprocess.run([PLAYER, script], capture_output=True, text=True, timeout=30)

    def test_mismatches(self):
        for lines, says in MISMATCHES.items():
            with self.subTest(lines):
                done = self.play(f"case a\ncovers 9.2\n{lines}\n")
                self.assertEqual(done.returncode, 1, done.stdout)
                self.assertIn("x.rdma:", done.stdout)
                self.assertIn(says, done.stdout)

    def test_errors_of_scripts(self):
        for lines, says in SCRIPT_ERRORS.items():
            with self.subTest(lines):
                done = self.play(f"case a\ncovers 9.2\n{lines}\n")
                self.assertEqual(done.returncode, 1, done.stdout)
                self.assertIn("script: " + says, done.stdout)

    def play_on_soft_nic(self, *arguments):
        return subprocess.run([PLAYER, "--device", "soft0", *arguments], capture_output=True, text=True, timeout=60)

    def test_a_device_in_real_time_fails_too(self):
        for lines, says in {
            "  peer WRITE_ONLY psn 0x500 ack\n  expect ACK psn 0x500 msn 2": "(msn 1)",
            "  peer WRITE_ONLY psn 0x500 bytes 8 at 0 ack\n  expect memory 0+8 fill 0xab": "expected no packet; came ACK",
            "  peer WRITE_ONLY psn 0x500 bytes 8 at 0": "expected byte 0 to be 3; came 171",
            "  post SEND id 1 from 0+8\n  expect SEND_ONLY psn 0x100 bytes 8\n  peer ACK psn 0x100": "came completed 1 ok",
            "  with timeout 10\n  post SEND id 1 from 0+8\n  expect SEND_ONLY psn 0x100 bytes 8\n"
            "  expect SEND_ONLY psn 0x101 bytes 8": "expected SEND_ONLY psn 0x101",
            "  expect state ERR": "expected state ERR; came RTS",
        }.items():
            with self.subTest(lines), tempfile.TemporaryDirectory(prefix="sumac-conformance-") as name:
                script = pathlib.Path(name) / "x.rdma"
                script.write_text(f"case a\ncovers 9.2\n{lines}\n")
                done = self.play_on_soft_nic(script)
                self.assertEqual(done.returncode, 1, done.stdout)
                self.assertIn(says, done.stdout)

    def test_known_differences(self):
        with tempfile.TemporaryDirectory(prefix="sumac-conformance-") as name:
            folder = pathlib.Path(name) / "rc"
            folder.mkdir()
            script, differences = folder / "x.rdma", folder / "differences.txt"
            script.write_text("case good\ncovers 9.2\n  expect nothing\n\ncase bad\ncovers 9.2\n  expect state ERR\n")
            for text, status, says in (
                ("", 1, "expected state ERR"),
                ("differs rc/x.rdma | bad | why", 0, "1 known to differ"),
                ("varies rc/x.rdma | bad | why\nvaries rc/x.rdma | good | why", 0, "1 known to differ"),
                ("crashes rc/x.rdma | bad | why", 0, "1 known to differ"),
                ("differs rc/x.rdma | bad | why\ndiffers rc/x.rdma | good | why", 1, "passes, though"),
                ("differs rc/x.rdma | bad | why\ndiffers rc/x.rdma | other | why", 1, "no case rc/x.rdma: other"),
                ("differs rc/x.rdma bad why", 2, "differs SCRIPT | CASE | WHY"),
            ):
                with self.subTest(text):
                    differences.write_text(text)
                    done = self.play_on_soft_nic("--tries", "1", "--differences", differences, script)
                    self.assertEqual(done.returncode, status, done.stdout + done.stderr)
                    self.assertIn(says, done.stdout + done.stderr)

    def test_the_page_knows_what_is_not_applicable(self):
        cases = report.not_applicable()
        scripts = sorted({script for script, _ in cases})
        done = self.play_on_soft_nic("--verbose", *(report.HERE / script for script in scripts))
        said = [line.split(": ", 2) for line in done.stdout.splitlines() if line.endswith(": not applicable")]
        found = {(where.rsplit("/conformance/", 1)[1].rsplit(":", 1)[0], name) for where, name in
                 ((words[0], ": ".join(words[1:]).removesuffix(": not applicable")) for words in said)}
        self.assertEqual(found, set(cases))

    def test_one_failure_does_not_hide_the_next_case(self):
        done = self.play("case a\ncovers 9.2\n  expect ACK psn 1\n\ncase b\ncovers 9.2\n  expect nothing\n")
        self.assertIn("2 cases, 1 failed", done.stdout)

    def test_files_without_sense(self):
        for text, says in (
            ("", "no case"),
            ("case a\n  expect nothing\n", "which clauses it covers"),
            ("case a\ncovers 9.2\n\ncase a\ncovers 9.2\n", "two cases of this name"),
            ("case\ncovers 9.2\n", "a case without a name"),
        ):
            with self.subTest(text):
                done = self.play(text)
                self.assertEqual(done.returncode, 2)
                self.assertIn(says, done.stderr)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    PLAYER = sys.argv.pop(1)
    unittest.main()
