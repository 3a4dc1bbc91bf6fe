"""Two network namespaces joined by a veth pair with large frames: two hosts, as far as the programs can tell.

Made when the first contender needs them, gone when this process is. Needs root (or a user who may make namespaces).
"""

import pathlib
import sys

import install
import parse
from runs import Unavailable, run, run_pair

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests" / "interop"))
import namespaces  # noqa: E402  (beside the tests that use it, too)

MTU = 9000
NEAR, FAR = namespaces.ADDRESSES
NEAR6, FAR6 = "fd77::1", "fd77::2"
PORT = 18600
USUAL_BATCH, BIG_BATCH = 65536, 185000


class Wire:
    def __init__(self, host):
        self.host = host
        self.spaces = None

    def open(self):
        if self.spaces is not None:
            return
        try:
            near, far = namespaces.Namespace(), namespaces.Namespace()
            namespaces.join_by_veth(near, far, MTU, whole_batches=True)
            for space, address in ((near, NEAR6), (far, FAR6)):
                space.run("ip", "addr", "add", f"{address}/64", "dev", namespaces.INTERFACE, "nodad")
        except SystemExit:
            raise Unavailable("can't make a network namespace") from None
        except (namespaces.Failed, OSError) as reason:
            raise Unavailable(f"no veth pair: {reason}") from None
        self.spaces = (near, far)

    def close(self):
        for space in self.spaces or ():
            space.close()
        self.spaces = None

    def on(self, which, *words, env=()):
        """Runs on host 0 or 1, pinned to its CPU."""
        return self.spaces[which].command("env", *env, "taskset", "-c", self.host.cpus[which], *words)

    # Memory is not shared between hosts.
    SOFT = (f"SUMAC_SOFT_INTERFACE={namespaces.INTERFACE}", "SUMAC_HOST_MEMORY=0", "SUMAC_SOFT_LOCAL=0")

    def sumac_perf(self, test, size, *options):
        self.open()
        words = [self.host.bin / "sumac", "perf", test, "-s", size, "-p", PORT, *options]
        if test.endswith("_bw"):
            words += ["-D", self.host.seconds]
        return parse.sumac_perf(run_pair(self.on(1, *words, "--listen", FAR, env=self.SOFT),
                                         self.on(0, *words, "--json", FAR, env=self.SOFT)))

    def stock_write_bw(self, size):
        self.open()
        iterations = 500 if self.host.quick else 2000
        words = [self.host.bin / "sumac", "soft", "--interface", namespaces.INTERFACE, "--", "ib_write_bw", "-d", "soft0", "-x", "0",
                 "-F", "-p", PORT, "-s", size, "-n", iterations]
        return parse.perftest_bandwidth(run_pair(self.on(1, *words), self.on(0, *words, FAR)))

    def tcp(self, size, big):
        self.open()
        self.batches(BIG_BATCH if big else USUAL_BATCH)
        try:
            # BIG TCP goes over IPv6 here: older iproute2 has no switch for IPv4.
            client = ["iperf3", "-c", FAR6 if big else FAR, "-t", 1, "-l", "1M", "-J", "-p", PORT]
            return {size: parse.iperf3(run_pair(self.on(1, "iperf3", "-s", "-1", "-p", PORT), self.on(0, *client)))}
        finally:
            self.batches(USUAL_BATCH)

    def batches(self, size):
        for space in self.spaces:
            try:
                space.run("ip", "link", "set", namespaces.INTERFACE, "gso_max_size", size, "gro_max_size", size)
            except namespaces.Failed as reason:
                if size != USUAL_BATCH:
                    raise Unavailable(f"no BIG TCP here: {reason}") from None

    def udp(self):
        self.open()
        program = install.build(self.host.cache, "cc", "udp_peer.c", "udp_peer")
        if program is None:
            raise Unavailable("there is no C compiler")
        iterations = 2000 if self.host.quick else 20000
        return parse.lines_of_three(run_pair(self.on(1, program, "serve", FAR, PORT), self.on(0, program, FAR, PORT, iterations)))

    def sumac_all_reduce(self, sizes):
        """Ranks of one job, on two hosts."""
        self.open()
        import contenders
        found = {}
        for first, last, iterations in contenders.sweeps(sizes, self.host.iterations):
            words = [self.host.bin / "all_reduce_perf", "-b", first, "-e", last, "-f", contenders.SIZES_A_SWEEP, "-n", iterations,
                     "-w", max(iterations // 10, 1), "--json"]
            job = [*self.SOFT, "SUMAC_SIZE=2", f"SUMAC_BOOTSTRAP={NEAR}:{PORT}", "SUMAC_BOOTSTRAP_SERVE=1", "SUMAC_LOCAL_RANK=0",
                   "SUMAC_LOCAL_SIZE=1"]
            found.update(parse.all_reduce_perf(run_pair(self.on(1, *words, env=[*job, "SUMAC_RANK=1"]),
                                                        self.on(0, *words, env=[*job, "SUMAC_RANK=0"]), tries=1)))
        return found

    def mpich_all_reduce(self, sizes):
        """MPICH's ranks meet over descriptors that they inherit, so each can be moved to a host of its own."""
        self.open()
        program = install.build(self.host.cache, "mpicc.mpich", "mpi_peer.c", "mpi_peer.mpich")
        if program is None:
            raise Unavailable("mpicc.mpich is not installed")
        near, far = (space.holder.pid for space in self.spaces)
        # UCX looks for interfaces in /sys, which shows those of the namespace that mounted it.
        script = (f'[ "$PMI_RANK" = 0 ] && to={near} cpu={self.host.cpus[0]} || to={far} cpu={self.host.cpus[1]}; exec nsenter --net=/proc/$to/ns/net -- '
                  "unshare --mount sh -c 'mount -t sysfs sysfs /sys && exec taskset -c \"$@\"' sh $cpu \"$@\"")
        env = {"MPIR_CVAR_NOLOCAL": "1", "FI_PROVIDER": "tcp", "FI_TCP_IFACE": namespaces.INTERFACE,
               "UCX_TLS": "tcp", "UCX_NET_DEVICES": namespaces.INTERFACE}
        pairs = [f"{size}:{self.host.iterations(size)}" for size in sizes]
        return parse.lines_of_three(run(["mpiexec.mpich", "-n", 2, "sh", "-c", script, "sh", program, "allreduce", *pairs], env, 60))


