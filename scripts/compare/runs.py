"""One run of a program with a deadline, and two that meet. Every process that is started here ends here."""

import os
import signal
import subprocess
import time

PATIENCE_S = 120
PROGRAMS = {"sumac", "all_reduce_perf", "ib_write_bw", "mpirun.openmpi", "mpiexec.mpich", "ucx_perftest", "iperf3", "udp_peer",
            "gloo_peer"}


class Unavailable(Exception):
    """This contender can't run here; the reason."""


def run(words, env=None, timeout=PATIENCE_S):
    """Its standard output. Unavailable when it fails, with its last words."""
    process = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})}, start_new_session=True)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        end(process)
        raise Unavailable(f"{short(words)} did not end in {timeout} s") from None
    if process.returncode != 0:
        raise Unavailable(f"{short(words)} ended with {process.returncode}: {last_line(err) or last_line(out)}")
    return out


def end(process):
    """The process and what it has started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.communicate()


def run_pair(server, client, env=None, timeout=PATIENCE_S, tries=40):
    """The client's output. It is tried again for a while: the server may not be up yet."""
    there = subprocess.Popen([str(word) for word in server], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})}, start_new_session=True)
    try:
        for attempt in range(tries):
            try:
                time.sleep(0.05)
                return run(client, env, timeout)
            except Unavailable as reason:
                # A server that has ended met a client, or failed.
                if there.poll() is not None or attempt == tries - 1 or "did not end" in str(reason):
                    raise
                time.sleep(0.1)
    finally:
        end(there)
    raise Unavailable(f"{short(client)} found no server")


def short(words):
    """The program, without the words that only say where it runs."""
    names = [str(word).rsplit("/", 1)[-1] for word in words]
    return next((name for name in names if name in PROGRAMS), names[0])


def last_line(text):
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
