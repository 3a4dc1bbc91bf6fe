#!/usr/bin/env python3
"""Which clause of the specification is covered by which case, as docs/conformance.md.

Usage: report.py [--check | --write]     without either: prints it

Reads clauses.txt, rxe_differences.txt and the scripts beside this file. --check: says what differs from the committed page and
fails. A clause that no case covers and that gives no reason is an error, and so is a case that covers a
clause, or pins down an exception, that clauses.txt does not know.
"""

import collections
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs" / "conformance.md"

RXE = HERE / "rxe_differences.txt"

HEAD = """# Conformance

What the engine does is held to the InfiniBand specification by scripts of packets ([tests/conformance](../tests/conformance/README.md)):
`ctest --test-dir build -L conformance` plays them in virtual time, and again in real time over the UDP link; `-R rxe_conformance`
plays them against kernel rxe. This page says which clause is covered by which case, and where the engine and rxe differ.
`tests/conformance/report.py --write` makes it from the scripts, `clauses.txt` and `rxe_differences.txt`; a test checks that it
is what they say, and the other tests that the devices do it.

Numbers are those of volume 1 and its annex A17, as the code cites them; titles are ours. The specification is not part
of this tree: a number that your release gives to another clause is a bug of this page.
"""


class Wrong(Exception):
    pass


def read_clauses():
    clauses, reasons, exceptions = {}, {}, {}
    table = {"clause": clauses, "none": reasons, "exception": exceptions}
    for number, line in enumerate((HERE / "clauses.txt").read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        kind, name, text = (line.split(None, 2) + ["", ""])[:3]
        if kind not in table or not text:
            raise Wrong(f"clauses.txt:{number}: clause, none or exception; a name; a text")
        if name in table[kind]:
            raise Wrong(f"clauses.txt:{number}: {name} twice")
        table[kind][name] = text.strip()
    return clauses, reasons, exceptions


# Which opcodes a transport has, as scripts name them; and the situations, which are names of scripts.
SENDS_AND_WRITES = ["SEND_FIRST", "SEND_MIDDLE", "SEND_LAST", "SEND_LAST_IMM", "SEND_ONLY", "SEND_ONLY_IMM", "WRITE_FIRST",
                    "WRITE_MIDDLE", "WRITE_LAST", "WRITE_LAST_IMM", "WRITE_ONLY", "WRITE_ONLY_IMM"]
OPCODES = {
    "rc": SENDS_AND_WRITES + ["SEND_LAST_INV", "SEND_ONLY_INV", "READ_REQUEST", "CMP_SWAP", "FETCH_ADD"],
    "uc": SENDS_AND_WRITES,
    "ud": ["SEND_ONLY", "SEND_ONLY_IMM"],
}
SITUATIONS = {
    "in order": ["in_order", "send", "write", "read", "atomic", "acknowledge"],
    "gap": ["gap"],
    "duplicate": ["duplicate", "read", "atomic"],
    "wrong length": ["length"],
    "opcode order": ["opcode_order"],
    "bad key": ["key"],
    "no buffer": ["rnr", "no_receive"],
    "PSN wrap": ["psn_wrap"],
}


def opcode_tables(cases):
    """Which opcode the peer sends in how many cases of each situation."""
    counts = collections.Counter()
    for script, name, _, _, opcodes in cases:
        transport, stem = script.removesuffix(".rdma").split("/")
        for situation, stems in SITUATIONS.items():
            if stem not in stems or (situation == "duplicate" and stem != "duplicate" and "again" not in name):
                continue
            counts.update((transport, opcode, situation) for opcode in opcodes)
    lines = ["## Opcodes and situations", "", "In how many cases of a situation the peer sends a packet of that opcode. What the device itself sends, and how it takes",
             "answers, is in `request`, `answer`, `implied_nak`, `retry`, `rnr_retry` and `probe`. Only what starts a SEND or ends a WRITE with",
             "immediate asks for a buffer, and UC's SENDs have no key.", ""]
    for transport, opcodes in OPCODES.items():
        lines += [f"| {transport.upper()} | " + " | ".join(SITUATIONS) + " |", "|---" * (len(SITUATIONS) + 1) + "|"]
        for opcode in opcodes:
            cells = [str(counts[transport, opcode, situation] or "–") for situation in SITUATIONS]
            lines.append(f"| {opcode} | " + " | ".join(cells) + " |")
        lines.append("")
    return lines


# What a device behind verbs can't be asked (setup.cc, verbs_device.cc); player_test.py checks that the player agrees.
BEYOND_VERBS = {"tail_probe_us", "window", "read_chunk", "ack_interval"}
SECONDS = {"s": 1, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
REAL_TIME_SECONDS_MAX = 2


def seconds(word):
    number = word.rstrip("nmus")
    return float(number) * SECONDS[word[len(number):]]


def needs_virtual_time(lines):
    """Whether a case with these lines can be played against the engine only."""
    for words in lines:
        if words[0] == "link" or (words[0] == "with" and BEYOND_VERBS & set(words)):
            return True
        for word, time in zip(words, words[1:]):
            if words[0] == "expect" and word in ("after", "between") and seconds(time) > REAL_TIME_SECONDS_MAX:
                return True
    return False


def not_applicable():
    """(script, case) of every case that a device behind verbs can't play."""
    found = []
    for script in sorted(HERE.glob("*/*.rdma")):
        head, name, lines = [], None, []
        for line in script.read_text().splitlines() + ["case"]:
            words = line.split("#")[0].split()
            if words[:1] == ["case"]:
                if name and needs_virtual_time(head + lines):
                    found.append((script.relative_to(HERE).as_posix(), name))
                name, lines = line.split("case", 1)[1].strip(), []
            elif words:
                (lines if name else head).append(words)
    return found


def read_differences():
    """(kind, script, case, why) of every known difference of rxe."""
    found = []
    for line in RXE.read_text().splitlines():
        line = line.split("#")[0].strip()
        if line:
            name, case, why = (part.strip() for part in line.split("|", 2))
            kind, script = name.split()
            found.append((kind, script, case, why))
    return found


def devices(cases):
    """Where the cases were played, and how rxe fares there."""
    apart = not_applicable()
    differences = read_differences()
    known = {(script, name) for script, name, *_ in cases}
    for _, script, name, _ in differences:
        if (script, name) not in known or (script, name) in apart:
            raise Wrong(f"{RXE.name}: no such case to play: {script}: {name}")
    columns = ("engine", "UDP link", "rxe")
    lines = ["| cases | " + " | ".join(columns) + " |", "|---" * 4 + "|"]
    for transport in OPCODES:
        of = lambda rows, at=0: sum(row[at].startswith(transport + "/") for row in rows)  # noqa: E731
        played = of(cases) - of(apart)
        lines.append(f"| {transport.upper()} | {of(cases)} | {played} | {played - of(differences, 1)} of {played} |")
    lines.append(f"| all | {len(cases)} | {len(cases) - len(apart)} | {len(cases) - len(apart) - len(differences)} of {len(cases) - len(apart)} |")
    lines += ["", f"The engine plays in virtual time. {len(apart)} cases need a link that can be held, options that verbs don't have, or hours; a",
              "device behind verbs can't play them. Over UDP the soft NIC passes all the others; what rxe (kernel 6.1) does instead is below."]
    why = collections.defaultdict(list)
    for kind, script, name, text in differences:
        why[text].append(f"“{name}” ([{script.removesuffix('.rdma')}](../tests/conformance/{script})" + ("" if kind == "differs" else f", {kind}") + ")")
    table = ["## Where rxe differs", "", "| what it does | cases |", "|---|---|"]
    table += [f"| {text} | {'; '.join(names[:3])}{f'; {len(names) - 3} more' if len(names) > 3 else ''} |" for text, names in why.items()]
    return lines, table + [""]


def read_cases():
    """(script, case, clauses, exceptions, opcodes that the peer sends) of every case."""
    cases = []
    for script in sorted(HERE.glob("*/*.rdma")):
        for line in script.read_text().splitlines():
            words = line.split("#")[0].split()
            if not words:
                continue
            if words[0] == "case":
                cases.append((script.relative_to(HERE).as_posix(), line.split("case", 1)[1].strip(), [], [], set()))
            elif words[0] == "covers":
                cases[-1][2].extend(words[1:])
            elif words[0] == "differs":
                cases[-1][3].extend(words[1:])
            elif words[0] == "peer":
                cases[-1][4].add(words[1])
    return cases


def clause_order(name):
    # A17 after the numbers.
    return [int(part) if part.isdigit() else 1000 for part in name.split(".")]


def page():
    clauses, reasons, exceptions = read_clauses()
    cases = read_cases()
    covered = collections.defaultdict(lambda: collections.defaultdict(list))
    pinned = collections.defaultdict(list)
    for script, name, covers, differs, _ in cases:
        for clause in covers:
            if clause not in clauses:
                raise Wrong(f"{script}: '{name}' covers {clause}, which clauses.txt does not know")
            covered[clause][script].append(name)
        for exception in differs:
            if exception not in exceptions:
                raise Wrong(f"{script}: '{name}' differs by {exception}, which clauses.txt does not know")
            pinned[exception].append((script, name))
    for clause in clauses:
        if (clause in covered) == (clause in reasons):
            raise Wrong(f"{clause}: " + ("covered, but a reason says that it is not" if clause in reasons else "no case and no reason"))
    lines = [HEAD]
    scripts = len({case[0] for case in cases})
    played, rxe = devices(cases)
    lines += [f"{len(cases)} cases in {scripts} scripts.", ""] + played + ["", "## Clauses", "", "| clause | what it is about | cases |", "|---|---|---|"]
    for clause in sorted(clauses, key=clause_order):
        where = ", ".join(f"[{s.removesuffix('.rdma')}](../tests/conformance/{s}) {len(n)}" for s, n in sorted(covered[clause].items()))
        lines.append(f"| {clause} | {clauses[clause]} | {where or 'none: ' + reasons[clause]} |")
    lines += [""] + opcode_tables(cases) + ["## Where the engine differs", ""]
    for exception, text in exceptions.items():
        shown = "; ".join(f"“{name}” ([{script.removesuffix('.rdma')}](../tests/conformance/{script}))" for script, name in pinned[exception][:3])
        more = len(pinned[exception]) - 3
        if more > 0:
            shown += f"; {more} more"
        lines.append(f"- **{exception}**: {text}" + (f" Held by {shown}." if shown else ""))
    lines += [""] + rxe + ["## Cases", ""]
    by_script = collections.defaultdict(list)
    for script, name, covers, _, _ in cases:
        by_script[script].append((name, covers))
    for script, named in by_script.items():
        lines += [f"### {script}", ""]
        lines += [f"- {name} ({', '.join(covers)})" for name, covers in named]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def main():
    words = sys.argv[1:]
    if words not in ([], ["--check"], ["--write"]):
        sys.exit(__doc__)
    text = page()
    if not words:
        print(text, end="")
    elif words == ["--write"]:
        PAGE.write_text(text)
    elif not PAGE.exists() or PAGE.read_text() != text:
        sys.exit(f"{PAGE.name} is not what the scripts say: run {pathlib.Path(__file__).name} --write")


if __name__ == "__main__":
    try:
        main()
    except Wrong as wrong:
        sys.exit(str(wrong))
