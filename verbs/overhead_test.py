#!/usr/bin/env python3
"""The verbs floor costs nothing on the data path: its post and poll have no more instructions than raw verbs calls.

Usage: overhead_test.py OBJECT, of overhead_functions.cc. Counts what objdump shows; padding and landing marks do not count.
"""
import re
import subprocess
import sys
import unittest

OBJECT = sys.argv.pop(1)
FUNCTION = re.compile(r"^[0-9a-f]+ <(.+)>:$")
INSTRUCTION = re.compile(r"^\s*[0-9a-f]+:\s+(\S+)(.*)$")
NOT_COUNTED = re.compile(r"^(nop\w*|endbr64|data16|cs|bti|udf|int3)$")


def disassemble():
    text = subprocess.run(["objdump", "-d", "--no-show-raw-insn", OBJECT], check=True, capture_output=True, text=True).stdout
    functions = {}
    current = None
    for line in text.splitlines():
        if match := FUNCTION.match(line):
            current = functions.setdefault(match.group(1), [])
        elif current is not None and (match := INSTRUCTION.match(line)) and not NOT_COUNTED.match(match.group(1)):
            if match.groups() not in (("xchg", "   %ax,%ax"), ("xchg", "   %eax,%eax")):
                current.append((match.group(1) + match.group(2)).strip())
    return functions


class Overhead(unittest.TestCase):
    def test_no_instruction_more_than_raw_calls(self):
        functions = disassemble()
        for call in ("post_send", "post_receive", "poll", "poll_one"):
            raw, ours = functions[f"raw_{call}"], functions[f"ours_{call}"]
            self.assertGreater(len(raw), 2, call)
            print(f"{call}: {len(raw)} instructions raw, {len(ours)} through the floor")
            listing = "\n".join(["raw:", *raw, "", "ours:", *ours])
            self.assertLessEqual(len(ours), len(raw), f"{call}:\n{listing}")


if __name__ == "__main__":
    unittest.main()
