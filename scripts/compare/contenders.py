"""How each contender does an operation here: a method takes sizes and gives {size: value}.

Ranks are pinned one to a CPU, by the same script whoever launches them; with more ranks than CPUs they take turns.
"""

import tempfile

import install
import parse
from runs import Unavailable, run, run_pair

PORT = 19515
SIZES_A_SWEEP = 8  # our sweeps multiply by this


class Host:
    """Everything on one machine: two CPUs, the programs and their versions."""

    def __init__(self, bin_folder, bench_folder, cache, cpus, quick):
        self.bin, self.bench, self.cache, self.cpus, self.quick = bin_folder, bench_folder, cache, cpus, quick
        self.cpu_list = ",".join(map(str, cpus))
        self.pinned = [install.HERE / "pinned", self.cpu_list]

    @property
    def seconds(self):
        return 0.3 if self.quick else 1

    def on(self, which, *words):
        return ["taskset", "-c", self.cpus[which], *words]

    def iterations(self, size, ranks=2):
        usual = 2000 if size <= 32 << 10 else 100 if size <= 2 << 20 else 20
        return max(usual // (10 if self.quick else 1) // (20 if ranks > len(self.cpus) else 1), 3)

    # --- Ours

    def sumac_all_reduce(self, ranks, sizes, buffers="registered"):
        found = {}
        for first, last, iterations in sweeps(sizes, lambda size: self.iterations(size, ranks)):
            found.update(parse.all_reduce_perf(run(
                [self.bin / "sumac", "run", "-n", ranks, "--no-tag-output", "--", *self.pinned, self.bin / "all_reduce_perf",
                 "-b", first, "-e", last, "-f", SIZES_A_SWEEP, "-n", iterations, "-w", max(iterations // 10, 1), "--buffers", buffers, "--json"])))
        return found

    def sumac_perf(self, test, sizes, *options):
        found = {}
        for size in sizes:
            iterations = self.iterations(size) * (5 if size <= 65536 else 1)
            # Bandwidth by time: at the speed of memory, some hundred iterations are over while the peers still meet.
            length = ["-D", self.seconds] if test.endswith("_bw") else ["-n", max(iterations, 20)]
            found.update(parse.sumac_perf(run(
                [self.bin / "sumac", "run", "-n", 2, "--no-tag-output", "--", *self.pinned, self.bin / "sumac", "perf", test,
                 "-s", size, *length, "--json", *options])))
        return found

    def stock_write_bw(self, sizes):
        found = {}
        for size in sizes:
            words = [self.bin / "sumac", "soft", "--", "ib_write_bw", "-d", "soft0", "-x", "0", "-F", "-p", PORT, "-s", size,
                     "-D", 1, "-f", 0]
            found.update(parse.perftest_bandwidth(run_pair(self.on(1, *words), self.on(0, *words, "127.0.0.1"))))
        return found

    def machine(self):
        return parse.sumac_perf_machine(run([self.bin / "sumac", "perf", "put_lat", "--local", "-n", 5, "--json"]))

    # --- Limits

    def memcpy(self, sizes):
        program = self.bench / "memory_limits_benchmark"
        if not program.exists():
            raise Unavailable(f"{program.name} is not built")
        pattern = "^BenchMemcpy/bytes:(" + "|".join(map(str, sizes)) + ")$"
        return parse.google_benchmark(run(self.on(0, program, f"--benchmark_filter={pattern}", "--benchmark_format=json",
                                                  "--benchmark_min_time=0.1")))

    def host_limit(self, ranks, column, sizes):
        """What the machine allows an allreduce: with shared buffers ("ideal"), with private ones ("floor")."""
        program = self.bench / "host_allreduce_limits"
        if not program.exists():
            raise Unavailable(f"{program.name} is not built")
        found = {}
        for size in sizes:
            found.update(parse.host_limits(run(
                [self.bin / "sumac", "run", "-n", ranks, "--no-tag-output", "--", *self.pinned, program, 3, size, size]), column))
        return found

    # --- MPI

    # By hand, for one host: data go through shared memory without the kernel's help, and the heap keeps what was freed.
    TUNED = {"OMPI_MCA_btl_vader_single_copy_mechanism": "none", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_MMAP_MAX_": "0"}

    def mpi(self, library, operation, ranks, sizes, fabric="", tuned=False):
        compiler, launcher = f"mpicc.{library}", "mpirun.openmpi" if library == "openmpi" else "mpiexec.mpich"
        program = install.build(self.cache, compiler, "mpi_peer.c", f"mpi_peer.{library}")
        if program is None:
            raise Unavailable(f"{compiler} is not installed")
        words = [launcher, "-n", ranks]
        env = {}
        if library == "openmpi":
            env = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
            words += ["--oversubscribe", "--bind-to", "none", "--mca", "btl", "self," + (fabric or "vader"), "--mca", "pml", "ob1"]
            if operation == "put":
                words += ["--mca", "osc", "^ucx"]
            if fabric == "tcp":
                words += ["--mca", "btl_tcp_if_include", "lo"]
            if tuned:
                env |= self.TUNED
        pairs = [f"{size}:{self.iterations(size, ranks)}" for size in sizes]
        return parse.lines_of_three(run([*words, *self.pinned, program, operation, *pairs], env))

    def gloo(self, ranks, sizes):
        if not install.is_there("/usr/include/gloo/allreduce.h"):
            raise Unavailable("libgloo-dev is not installed")
        program = install.build(self.cache, "c++", "gloo_peer.cc", "gloo_peer", "-lgloo", "-lpthread")
        if program is None:
            raise Unavailable("there is no C++ compiler")
        pairs = [f"{size}:{max(self.iterations(size, ranks) // 4, 3)}" for size in sizes]
        with tempfile.TemporaryDirectory() as meeting:
            return parse.lines_of_three(run([self.bin / "sumac", "run", "-n", ranks, "--no-tag-output", "--", *self.pinned, program,
                                             meeting, *pairs]))

    # --- UCX

    def ucx(self, test, sizes):
        program = install.ucx_perftest(self.cache)
        if program is None:
            raise Unavailable("ucx_perftest is not installed")
        env = {"UCX_TLS": "posix", "UCX_WARN_UNUSED_ENV_VARS": "n"}
        if program.parent.parent.name == "libucx":
            lib = program.parent.parent / "lib"
            env.update({"LD_LIBRARY_PATH": str(lib), "UCX_MODULE_DIR": str(lib / "ucx")})
        found = {}
        for size in sizes:
            iterations = max(self.iterations(size) * 10, 100)
            words = [program, "-p", PORT]
            text = run_pair(self.on(1, *words), self.on(0, *words, "127.0.0.1", "-t", test, "-s", size, "-n", iterations,
                                                        "-w", iterations // 10, "-f", "-v"), env)
            found[size] = parse.ucx_perftest(text, bandwidth=test.endswith("_bw"))
        return found

    def versions(self):
        ucx = install.ucx_perftest(self.cache)
        marker = ucx.parent.parent / "UCX_WHEEL_VERSION.txt" if ucx else None
        found = {
            "Open MPI": install.version_of("mpirun.openmpi", "--version"),
            "MPICH": install.version_of("mpichversion"),
            "UCX": (marker.read_text().strip() + " (PyPI)" if marker and marker.exists() else "the distribution's") if ucx else "",
            "iperf3": install.version_of("iperf3", "--version"),
        }
        return {name: version for name, version in found.items() if version}


def sweeps(sizes, iterations_of):
    """(first, last, iterations) of runs that together measure `sizes`, each multiplying by SIZES_A_SWEEP."""
    found = []
    for size in sizes:
        iterations = iterations_of(size)
        if found and found[-1][1] * SIZES_A_SWEEP == size and found[-1][2] == iterations:
            found[-1] = (found[-1][0], size, iterations)
        else:
            found.append((size, size, iterations))
    return found
