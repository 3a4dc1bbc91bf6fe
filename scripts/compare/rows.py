"""What is compared with what: the rows of the report, and the loop that runs them round by round."""

import dataclasses
import time
from typing import Callable

from parse import WrongData
from runs import Unavailable

KIB, MIB = 1 << 10, 1 << 20
GIVE_UP_AFTER = 2  # failures of a contender


@dataclasses.dataclass
class Row:
    name: str
    title: str
    unit: str
    sizes: list
    contenders: dict[str, Callable]  # the first is ours; each takes sizes, gives {size: value}


def make_rows(host, wire, quick):
    all_reduce = [8, 64 * KIB, MIB] if quick else [8, 64, 512, 4 * KIB, 64 * KIB, MIB, 16 * MIB, 64 * MIB]
    large = [size for size in all_reduce if size >= 64 * KIB]
    on_the_wire = [8, 64 * KIB, MIB] if quick else [8, 64 * KIB, MIB, 64 * MIB]
    put = [8, 64 * KIB, MIB]
    rows = []
    for ranks in (2, 4):
        others = {
            "Open MPI, shared memory": lambda sizes, n=ranks: host.mpi("openmpi", "allreduce", n, sizes),
            "Open MPI, tuned": lambda sizes, n=ranks: host.mpi("openmpi", "allreduce", n, sizes, tuned=True),
            "MPICH": lambda sizes, n=ranks: host.mpi("mpich", "allreduce", n, sizes),
        }
        rows.append(Row(f"allreduce-{ranks}", f"Allreduce of floats, {ranks} ranks on 2 cores of one host", "us", all_reduce, {
            "Sumac": lambda sizes, n=ranks: host.sumac_all_reduce(n, sizes),
            "ideal": lambda sizes, n=ranks: host.host_limit(n, "ideal", sizes),
            **others,
            "Open MPI, TCP": lambda sizes, n=ranks: host.mpi("openmpi", "allreduce", n, sizes, "tcp"),
            "Gloo, TCP": lambda sizes, n=ranks: host.gloo(n, sizes),
        }))
        rows.append(Row(f"allreduce-{ranks}-malloc", f"The same, {ranks} ranks, with buffers of the heap", "us", large, {
            "Sumac, malloc": lambda sizes, n=ranks: host.sumac_all_reduce(n, sizes, "malloc"),
            "staged floor": lambda sizes, n=ranks: host.host_limit(n, "floor", sizes),
            **others,
        }))
    rows += [
        Row("put-flush", "Put and flush, one host", "us", put, {
            "Sumac": lambda sizes: host.sumac_perf("put_lat", sizes),
            "Open MPI": lambda sizes: host.mpi("openmpi", "put", 2, sizes),
            "MPICH": lambda sizes: host.mpi("mpich", "put", 2, sizes),
        }),
        Row("put-ping-pong", "Put, until the target sees it (half of a round trip), one host", "us", put, {
            "Sumac": lambda sizes: host.sumac_perf("put_lat", sizes, "--ping-pong"),
            "UCX, posix": lambda sizes: host.ucx("ucp_put_lat", sizes),
        }),
        Row("put-bandwidth", "Puts in flight, one host", "GB/s", [64 * KIB, MIB], {
            "Sumac": lambda sizes: host.sumac_perf("put_bw", sizes),
            "UCX, posix": lambda sizes: host.ucx("ucp_put_bw", sizes),
            "memcpy, one thread": host.memcpy,
        }),
        Row("write-bandwidth", "Stock ib_write_bw on soft0, one host", "GB/s", [64 * KIB, MIB], {
            "ib_write_bw on soft0": host.stock_write_bw,
            "memcpy, one thread": host.memcpy,
        }),
        Row("wire-bandwidth", "Between two network namespaces (veth, MTU 9000)", "GB/s", [MIB], {
            "Sumac, put_bw": lambda sizes: wire.sumac_perf("put_bw", sizes[0]),
            "ib_write_bw on soft0": lambda sizes: wire.stock_write_bw(sizes[0]),
            "TCP, iperf3": lambda sizes: wire.tcp(sizes[0], big=False),
            "BIG TCP, iperf3": lambda sizes: wire.tcp(sizes[0], big=True),
        }),
        Row("wire-latency", "8 bytes one way between two network namespaces", "us", [8], {
            "Sumac, put": lambda sizes: wire.sumac_perf("put_lat", sizes[0], "--ping-pong"),
            "UDP sockets, polling": lambda sizes: wire.udp(),
        }),
        Row("wire-put-flush", "Put and flush, 8 bytes, beside a round trip of the kernel's, two network namespaces", "us", [8], {
            "Sumac, put": lambda sizes: wire.sumac_perf("put_lat", sizes[0]),
            "UDP sockets, polling": lambda sizes: {size: 2 * way for size, way in wire.udp().items()},
        }),
        Row("wire-allreduce", "Allreduce of floats, 2 ranks in two network namespaces", "us", on_the_wire, {
            "Sumac": wire.sumac_all_reduce,
            "MPICH, TCP": wire.mpich_all_reduce,
            "Open MPI, TCP on loopback": lambda sizes: host.mpi("openmpi", "allreduce", 2, sizes, "tcp"),
        }),
    ]
    return rows


def run_rounds(rows, rounds, stamp, quiet, say):
    """The result (figures.py). `stamp`: the machine, as `sumac perf` says it. `quiet`: waits before each run, and says
    how busy others keep the machine (quiet.py). A row's rounds follow each other at once, as the
    core distance seldom stays for long."""
    result = {"machine": stamp(), "rows": [], "skipped": {}}
    for row in rows:
        found = {"name": row.name, "title": row.title, "unit": row.unit, "sizes": row.sizes, "rounds": [],
                 "values": {name: {size: [] for size in row.sizes} for name in row.contenders}}
        failures = {}
        before = stamp()["core_one_way_ns"]
        for index in range(rounds):
            names = list(row.contenders)
            busy = []
            # Who comes first changes from round to round.
            for name in names[index % len(names):] + names[:index % len(names)]:
                busy.append(quiet())
                given_up = failures.get(name, 0) >= GIVE_UP_AFTER
                measured = {} if given_up else run_one(row, name, failures, result["skipped"], say)
                for size in row.sizes:
                    found["values"][name][size].append(measured.get(size))
            after = stamp()["core_one_way_ns"]
            found["rounds"].append({"core_one_way_ns": before, "core_one_way_ns_after": after,
                                    "others_busy": sum(busy) / len(busy)})
            before = after
            say(f"{row.name}: round {index + 1} of {rounds}, core to core {after:.0f} ns, others busy {sum(busy) / len(busy):.0%}"
                if after is not None else f"{row.name}: round {index + 1} of {rounds}")
        result["rows"].append(found)
    return result


def run_one(row, name, failures, skipped, say):
    key = f"{row.name}: {name}"
    started = time.monotonic()
    try:
        measured = row.contenders[name](row.sizes)
    except (Unavailable, WrongData, ValueError, KeyError, IndexError, StopIteration, RuntimeError) as reason:
        failures[name] = failures.get(name, 0) + 1
        skipped[key] = str(reason) or type(reason).__name__
        say(f"  {key}: {skipped[key]}")
        return {}
    say(f"  {key}: {time.monotonic() - started:.1f} s")
    return measured
