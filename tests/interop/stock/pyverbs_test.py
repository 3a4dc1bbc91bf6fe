#!/usr/bin/env python3
"""The test-suite of rdma-core's pyverbs on the soft NIC.

Usage: pyverbs_test.py --sumac SUMAC --suite FOLDER --table docs/verbs_support.md [--write]

Runs the suite (fetch_pyverbs_tests.sh fetches it) under `sumac soft` and compares with the table between the markers
`<!-- pyverbs -->` of the document: how many pass, and each reason why others are skipped, with their number. A failure that
the table does not name is one here, and so is a change either way. --write puts what came out into the document, and
leaves what the document says about each reason. Exit code 77: skipped, and why.
"""

import argparse
import collections
import pathlib
import re
import subprocess
import sys

PATIENCE_S = 240
BEGIN, END = "<!-- pyverbs -->\n", "<!-- /pyverbs -->\n"
OUTCOME = re.compile(r"^(test_\w+) \([\w.]+\)(?:\n[^\n]*)? \.\.\. .*?\b(ok|FAIL|ERROR|skipped (?:'.*'|\".*\"))$", re.M)


def run_suite(sumac, suite):
    """{test name: outcome}"""
    # The system's Python, for which the package is made.
    command = [str(pathlib.Path(sumac).resolve()), "soft", "--", "/usr/bin/python3", "tests/run_tests.py", "--dev", "soft0", "-v"]
    done = subprocess.run(command, cwd=suite, capture_output=True, text=True, timeout=PATIENCE_S)
    text = done.stderr
    outcomes = {f"{i} {name}": outcome for i, (name, outcome) in enumerate(OUTCOME.findall(text))}
    total = re.search(r"^Ran (\d+) tests", text, re.M)
    if not total or int(total[1]) != len(outcomes):
        sys.exit(f"{len(outcomes)} outcomes found, {total and total[1]} tests run, exit code {done.returncode}:\n{text[-4000:]}")
    bad = [name for name, outcome in outcomes.items() if outcome in ("FAIL", "ERROR")]
    if bad:
        print(text[text.find("\n====") :])
    return outcomes


def summary(outcomes):
    """Rows of the table, but for the last column: (what, how many)."""
    counts = collections.Counter()
    for name, outcome in outcomes.items():
        if outcome == "ok":
            counts["passed"] += 1
        elif outcome.startswith("skipped"):
            # Numbers of devices and files differ from machine to machine.
            counts["skipped: " + re.sub(r"/dev/\S+", "/dev/…", outcome[9:-1])] += 1
        else:
            counts[f"failed: {name.split()[1]}"] += 1
    return sorted(counts.items(), key=lambda row: (row[0] != "passed", -row[1], row[0]))


def read_table(document):
    text = document.read_text()
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    rows = {}
    for line in text[begin:end].splitlines()[2:]:
        what, count, why = (cell.strip() for cell in line.strip("|").split("|", 2))
        rows[what] = (int(count), why)
    return text[:begin], rows, text[end:]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sumac", required=True)
    parser.add_argument("--suite", required=True)
    parser.add_argument("--table", required=True, type=pathlib.Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if not pathlib.Path(options.suite, "tests", "run_tests.py").exists():
        print(f"skipped: no {options.suite}/tests (scripts/setup fetches it)")
        sys.exit(77)
    if subprocess.run(["/usr/bin/python3", "-c", "import pyverbs"], capture_output=True).returncode != 0:
        print("skipped: python3-pyverbs is not installed (scripts/setup)")
        sys.exit(77)
    rows = summary(run_suite(options.sumac, options.suite))
    for what, count in rows:
        print(f"{count:4} {what}")
    before, expected, after = read_table(options.table)
    if options.write:
        lines = [f"| {what} | {count} | {expected.get(what, (0, ''))[1]} |\n" for what, count in rows]
        options.table.write_text(before + "| outcome | tests | why |\n|---|---|---|\n" + "".join(lines) + after)
        return
    wrong = []
    found = dict(rows)
    for what in sorted(set(found) | set(expected)):
        count, due = found.get(what, 0), expected.get(what, (0, ""))[0]
        # A machine may have what another lacks (huge pages, a GPU): then more pass.
        if what == "passed" and count >= due or what.startswith("skipped") and count < due:
            continue
        if count != due:
            wrong.append(f"{what}: {count}, but the table has {due}")
    if wrong:
        sys.exit("\n".join(wrong))


main()
