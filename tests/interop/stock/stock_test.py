#!/usr/bin/env python3
"""Stock verbs programs, as Debian ships them, on the soft NIC.

Usage: stock_test.py --sumac SUMAC --where loopback|netns --port PORT GROUP...

Runs each program of the groups under `sumac soft`: those with two ends as two processes, on loopback or in two network
namespaces joined by a veth pair. Checks exit statuses and what the programs print. Exit code 77: skipped, and why.
"""

import argparse
import contextlib
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from namespaces import ADDRESSES, INTERFACE, Failed, Namespace, join_by_veth, skip  # noqa: E402
from programs import GROUPS  # noqa: E402

PATIENCE_S = 60
LISTENING = "0A"  # of /proc/net/tcp


class Host:
    """Where a process runs: this machine, or a namespace with the soft NIC on its veth."""

    def __init__(self, sumac, address, space=None):
        self.address = address
        self.space = space
        self.soft = [sumac, "soft", *(["--interface", INTERFACE] if space else []), "--"]

    def start(self, words, output, environment):
        command = ["env", *(f"{name}={value}" for name, value in environment.items()), *self.soft, *map(str, words)]
        if self.space:
            command = self.space.command(*command)
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)


def listens(process, port):
    with contextlib.suppress(OSError):  # on the soft NIC's connection manager
        names = pathlib.Path(f"/proc/{process.pid}/net/unix").read_text()
        if re.search(rf"@sumac/soft-nic/.*/cm/1[01][16]/{port}/listens$", names, re.MULTILINE):
            return True
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in pathlib.Path(f"/proc/{process.pid}/net/{table}").read_text().splitlines()[1:]:
                _, local, _, state = line.split()[:4]
                if state == LISTENING and int(local.rsplit(":", 1)[1], 16) == port:
                    return True
    return False


def await_listening(process, port, deadline):
    while not listens(process, port):
        if process.poll() is not None or time.monotonic() > deadline:
            return
        time.sleep(0.01)


def end(process):
    if process.poll() is None:
        process.kill()
    process.wait()


def run(program, hosts, port):
    """What the last process of the program printed."""
    deadline = time.monotonic() + PATIENCE_S
    processes = []
    with tempfile.TemporaryFile("w+") as first, tempfile.TemporaryFile("w+") as second:
        outputs = [first, second]
        try:
            words = program.words(port)
            processes.append(hosts[0].start(words, first, program.environment))
            if program.ends == 2:
                await_listening(processes[0], program.fixed_port or port, deadline)
                processes.append(hosts[1].start(program.words(port, hosts[0].address), second, program.environment))
            codes = []
            if program.endless_server:
                codes.append(processes[1].wait(max(0.1, deadline - time.monotonic())))
                end(processes.pop(0))
            # The one that connects first: it knows best what went wrong.
            for process in reversed(processes[len(codes) :]):
                try:
                    codes.insert(0, process.wait(max(0.1, deadline - time.monotonic())))
                except subprocess.TimeoutExpired:
                    codes.insert(0, f"none in {PATIENCE_S} s")
        finally:
            for process in processes:
                end(process)
        texts = []
        for output in outputs[: program.ends]:
            output.seek(0)
            texts.append(output.read())
    said = "\n".join(f"--- end {i}, exit code {code}\n{text}" for i, (code, text) in enumerate(zip(codes, texts)))
    if any(code != 0 for code in codes):
        raise Failed(f"{' '.join(map(str, words))}\n{said}")
    for pattern in program.expect:
        if not re.search(pattern, texts[-1], re.MULTILINE):
            raise Failed(f"{' '.join(map(str, words))} does not print /{pattern}/\n{said}")
    for pattern in program.served_expect:
        if not re.search(pattern, texts[0], re.MULTILINE):
            raise Failed(f"{' '.join(map(str, words))}: the end that listens does not print /{pattern}/\n{said}")
    lines = [line.strip() for line in texts[-1].splitlines() if re.match(r"\s*(\d|Final)", line)]
    return lines[-1] if lines else ""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sumac", required=True)
    parser.add_argument("--where", choices=["loopback", "netns"], required=True)
    parser.add_argument("--port", type=int, required=True, help="TCP port at which programs meet; the next ones, too")
    parser.add_argument("group", nargs="+", choices=sorted(GROUPS))
    options = parser.parse_args()
    spaces = []
    try:
        if options.where == "loopback":
            hosts = [Host(options.sumac, "127.0.0.1")] * 2
        else:
            spaces = [Namespace(), Namespace()]
            join_by_veth(*spaces, 9000, True)
            hosts = [Host(options.sumac, address, space) for address, space in zip(ADDRESSES, spaces)]
        port = options.port
        for group in options.group:
            for program in GROUPS[group]:
                if shutil.which(program.name) is None:
                    skip(f"{program.name} is not installed (scripts/setup)")
                began = time.monotonic()
                last = run(program, hosts, port)
                print(f"{' '.join(map(str, program.words(port)))}: {time.monotonic() - began:.1f} s  {last}", flush=True)
                port += 1
    finally:
        for space in spaces:
            space.close()


try:
    main()
except Failed as failure:
    print(f"failed: {failure}")
    sys.exit(1)
