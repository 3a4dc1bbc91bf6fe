#!/usr/bin/env python3
"""The programs as a user meets them: exit codes, messages, tables, and what happens when a rank dies."""
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import unittest

BIN = pathlib.Path(sys.argv.pop(1))
DEADLINE_S = 60


def run(*command, env=None, stdin=None):
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=DEADLINE_S,
                          env={**os.environ, **(env or {})}, stdin=stdin)


def launch(ranks, *command, options=(), env=None):
    return run(BIN / "sumac", "run", "-n", ranks, "--timeout", 50, *options, "--", *command, env=env)


class Launcher(unittest.TestCase):
    def test_prefixes_lines_and_keeps_streams_apart(self):
        result = launch(2, "sh", "-c", "echo out $SUMAC_RANK of $SUMAC_SIZE; echo err >&2; printf partial")
        self.assertEqual(result.returncode, 0)
        self.assertEqual(sorted(result.stdout.splitlines()),
                         ["[0] out 0 of 2", "[0] partial", "[1] out 1 of 2", "[1] partial"])
        self.assertEqual(sorted(result.stderr.splitlines()), ["[0] err", "[1] err"])

    def test_one_rank_is_not_prefixed(self):
        self.assertEqual(launch(1, "echo", "x").stdout, "x\n")

    def test_worst_exit_code_and_name_of_the_dead(self):
        result = launch(3, "sh", "-c", "[ $SUMAC_RANK = 1 ] && exit 7; exit 0")
        self.assertEqual(result.returncode, 7)
        self.assertIn("rank 1 (pid ", result.stderr)
        self.assertIn("exit code 7", result.stderr)

    def test_signal_is_named_and_survivors_end(self):
        start = time.monotonic()
        result = launch(2, "sh", "-c", "[ $SUMAC_RANK = 1 ] && kill -9 $$; exec sleep 40")
        self.assertEqual(result.returncode, 128 + 9)
        self.assertIn("killed by signal 9", result.stderr)
        self.assertLess(time.monotonic() - start, 30)

    def test_interrupt_ends_all_with_their_children(self):
        launcher = subprocess.Popen([BIN / "sumac", "run", "-n", "2", "--", "sh", "-c", "echo up; sleep 47.25; true"],
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2):
            self.assertIn("up", launcher.stdout.readline())
        launcher.send_signal(signal.SIGINT)
        self.assertEqual(launcher.wait(timeout=DEADLINE_S), 130)
        launcher.communicate()
        left = run("pgrep", "-f", "sleep 47.25").stdout.split()
        self.assertEqual(left, [])

    def test_timeout(self):
        result = run(BIN / "sumac", "run", "-n", 2, "--timeout", 1, "--", "sleep", 40)
        self.assertEqual(result.returncode, 124)

    def test_bad_calls_name_what_is_wrong(self):
        for arguments, named in [(["-n", "0", "--", "true"], "--ranks"), (["-n", "x", "--", "true"], "--ranks"),
                                 (["-n", "99999", "--", "true"], "--ranks"), (["-n", "2"], "command"),
                                 (["-n", "2", "--", "/no/such"], "/no/such"), (["-n", "2", "--", "/etc/passwd"], "executable"),
                                 (["-n", "2", "--env", "X", "--", "true"], "NAME=value"), (["--", "true"], "--ranks")]:
            result = run(BIN / "sumac", "run", *arguments)
            self.assertEqual(result.returncode, 2, arguments)
            self.assertIn(named, result.stderr, arguments)


class Devices(unittest.TestCase):
    def test_soft_nic_is_listed(self):
        self.assertRegex(run(BIN / "sumac", "devices").stdout, r"soft0 +soft +1 +ACTIVE")
        devices = json.loads(run(BIN / "sumac", "devices", "--json").stdout)
        soft = [d for d in devices if d["name"] == "soft0"][0]
        self.assertEqual(soft["ports"][0]["gids"][0]["type"], "RoCE v2")

    def test_describes_ports_limits_and_what_is_in_use(self):
        soft = [d for d in json.loads(run(BIN / "sumac", "devices", "--json").stdout) if d["name"] == "soft0"][0]
        self.assertRegex(soft["node_guid"], "^0x[0-9a-f]{16}$")
        self.assertGreater(soft["limits"]["queue_pairs"], 0)
        port = soft["ports"][0]
        self.assertEqual((port["physical_state"], port["link_layer"], port["mtu_max"]), ("LINK_UP", "Ethernet", 4096))
        self.assertIn("interface", port["gids"][0])
        verbose = run(BIN / "sumac", "devices", "-v", env={"NCCL_IB_TC": "106"}).stdout
        self.assertIn("traffic_class 106 (NCCL_IB_TC)", verbose)
        self.assertRegex(verbose, r"node_guid +0x")

    def test_bad_settings_are_named_and_the_list_is_still_there(self):
        for name, value in [("SUMAC_DEVICE", "soft0,,x"), ("SUMAC_TRAFFIC_CLASS", "300"), ("NCCL_IB_HCA", "=none0")]:
            result = run(BIN / "sumac", "devices", env={name: value})
            self.assertEqual(result.returncode, 1)
            self.assertIn(f"{name}='{value}'", result.stderr)
            self.assertRegex(result.stdout, r"soft0 +soft +1 +ACTIVE")

    def test_bad_address_is_an_error(self):
        result = run(BIN / "sumac", "devices", env={"SUMAC_SOFT_ADDRESS": "nonsense"})
        self.assertEqual(result.returncode, 1)
        self.assertIn("SUMAC_SOFT_ADDRESS=nonsense", result.stderr)


def session(pid):
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


class Counters(unittest.TestCase):
    def read(self):
        ports = json.loads(run(BIN / "sumac", "devices", "--counters", "--json").stdout)
        return [p for p in ports if p["device"] == "soft0"][0]

    def test_every_counter_has_a_name_also_when_nobody_runs(self):
        port = self.read()
        self.assertEqual(port["port"], 1)
        self.assertIn("port_xmit_data", port["counters"])
        self.assertIn("out_of_sequence", port["hw_counters"])
        table = run(BIN / "sumac", "devices", "--counters", "-v").stdout
        self.assertRegex(table, r"(?m)^soft0 +1 +counters/symbol_error +0$")

    def test_running_programs_are_in_the_sum_until_they_end(self):
        job = subprocess.Popen([BIN / "sumac", "run", "-n", "2", "--", BIN / "all_reduce_perf", "-b", "1M", "-e", "1M", "-n", "1000000"],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
                               env={**os.environ, "SUMAC_HOST_MEMORY": "0", "SUMAC_SOFT_LOCAL": "0"})  # packets are what is counted
        try:
            def of_job(port):
                return [pid for pid in port["processes"] if session(pid) == job.pid]
            deadline = time.monotonic() + DEADLINE_S
            while True:
                port = self.read()
                if len(of_job(port)) == 2 and port["counters"]["port_xmit_data"] > 1 << 20:
                    break
                self.assertLess(time.monotonic(), deadline, port)
        finally:
            os.killpg(job.pid, signal.SIGTERM)
            job.wait(DEADLINE_S)


class Perf(unittest.TestCase):
    def test_tables_check_and_parse(self):
        for program, options in [("all_reduce_perf", ["-o", "all", "-d", "all"]), ("all_gather_perf", ["-d", "all"]),
                                 ("reduce_scatter_perf", ["-o", "avg", "-d", "half"]), ("broadcast_perf", ["-r", "2"])]:
            for ranks, buffers, host_memory in [(1, "registered", 1), (1, "registered", 0), (3, "registered", 1),
                                                (3, "malloc", 1), (3, "registered", 0), (3, "malloc", 0)]:
                if program == "broadcast_perf" and ranks == 1:
                    continue
                result = launch(ranks, BIN / program, "-b", 4, "-e", "64K", "-f", 32, "-n", 2, "--buffers", buffers, *options,
                                options=["--no-tag-output"], env={"SUMAC_HOST_MEMORY": str(host_memory)})
                self.assertEqual(result.returncode, 0, f"{program} on {ranks}: {result.stderr}")
                way = "in host memory" if host_memory else "over the device"
                self.assertIn(f"# Path: {way}, buffers: {buffers}\n", result.stdout)
                rows = [line.split() for line in result.stdout.splitlines() if not line.startswith("#")]
                self.assertGreaterEqual(len(rows), 3)
                for row in rows:
                    self.assertEqual(len(row), 13, row)
                    self.assertEqual((row[8], row[12]), ("0", "0"), row)
                self.assertIn("# Out of bounds values : 0 OK", result.stdout)

    def test_sizes_that_do_not_divide(self):
        result = launch(3, BIN / "all_reduce_perf", "-b", 4, "-e", 60, "-i", 4, "-n", 1, options=["--no-tag-output"])
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(sum(not line.startswith("#") for line in result.stdout.splitlines()), 15)

    def test_json(self):
        result = launch(2, BIN / "all_reduce_perf", "-b", 8, "-e", 64, "-f", 8, "-n", 2, "--json",
                        options=["--no-tag-output"])
        report = json.loads(result.stdout)
        self.assertEqual([row["size"] for row in report["results"]], [8, 64])
        self.assertEqual(report["out_of_bounds"], 0)
        self.assertEqual(len(report["ranks"]), 2)

    def test_bad_options_exit_with_2_and_name_themselves(self):
        for options, named in [(["-b", "x"], "--minbytes"), (["-b", "-1"], "--minbytes"), (["-e", "2000G"], "--maxbytes"),
                               (["-b", "1M", "-e", "1K"], "--maxbytes"), (["-f", "1"], "--stepfactor"),
                               (["-n", "0"], "--iters"), (["-d", "int7"], "--datatype"), (["-o", "xor"], "--op"),
                               (["-c", "2"], "--check"), (["-t", "2"], "--nthreads"), (["-a", "9"], "--average"),
                               (["-b", "1", "-e", "2", "-i", "0"], "--stepbytes"), (["--nonsense"], "--nonsense"),
                               (["-b", "99999999999999999999999"], "--minbytes")]:
            result = run(BIN / "all_reduce_perf", *options)
            self.assertEqual(result.returncode, 2, options)
            self.assertIn(named, result.stderr, options)

    def test_path_flags_reach_the_ranks(self):
        result = launch(2, "sh", "-c", "echo $SUMAC_TRAFFIC_CLASS $SUMAC_DEVICE",
                        options=["--traffic-class", "106", "--device", "soft0,soft0", "--no-tag-output"],
                        env={"SUMAC_TRAFFIC_CLASS": "8"})
        self.assertEqual(result.stdout, "106 soft0,soft0\n" * 2)
        result = launch(2, BIN / "all_reduce_perf", "-b", 8, "-n", 1, "--path-mtu", "1024", "--ack-timeout", "16",
                        env={"SUMAC_LOG": "info", "SUMAC_PATH_MTU": "512"})
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("path_mtu_bytes 1024 (SUMAC_PATH_MTU)", result.stderr)
        self.assertIn("timeout 16 (SUMAC_ACK_TIMEOUT)", result.stderr)
        for program in ([BIN / "all_reduce_perf"], [BIN / "sumac", "run", "-n", "1"]):
            result = run(*program, "--path-mtu", "1500", "--", "true")
            self.assertEqual(result.returncode, 2)
            self.assertIn("--path-mtu", result.stderr)

    def test_rdma_cm_on_the_soft_nic_says_what_to_use(self):
        result = launch(2, BIN / "all_reduce_perf", "-b", 8, "--device", "soft0", "--connect", "rdma_cm")
        self.assertEqual(result.returncode, 1)
        self.assertIn("SUMAC_CONNECT=exchange", result.stderr)

    def test_root_outside_the_job(self):
        result = launch(2, BIN / "broadcast_perf", "-b", 8, "-r", 2)
        self.assertEqual(result.returncode, 1)
        self.assertIn("--root 2", result.stderr)

    def test_unknown_device_and_algorithm(self):
        for options, named in [(["--device", "mlx9"], "soft0"), (["--algorithm", "magic"], "magic")]:
            result = launch(2, BIN / "all_reduce_perf", "-b", 8, *options)
            self.assertNotEqual(result.returncode, 0)
            self.assertIn(named, result.stderr)

    def start_ranks(self, names, ranks, extra):
        """As another launcher would: its variables, and nobody watching."""
        return [subprocess.Popen([BIN / "all_reduce_perf", "-b", "8", "-e", "64", "-f", "8", "-n", "2"],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                 env={**os.environ, **extra, names[0]: str(rank), names[1]: str(ranks)})
                for rank in range(ranks)]

    def test_other_launchers_variables(self):
        port = 20000 + os.getpid() % 5000
        cases = [(("RANK", "WORLD_SIZE"), {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}),
                 (("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), {"SUMAC_JOB": f"ompi{port}"}),
                 (("PMI_RANK", "PMI_SIZE"), {"SUMAC_JOB": f"pmi{port}"}),
                 (("SLURM_PROCID", "SLURM_NTASKS"), {"SUMAC_BOOTSTRAP": f"127.0.0.1:{port + 5001}"})]
        for names, extra in cases:
            ranks = self.start_ranks(names, 2, extra)
            outputs = [rank.communicate(timeout=DEADLINE_S) for rank in ranks]
            for rank, (_, err) in zip(ranks, outputs):
                self.assertEqual(rank.returncode, 0, f"{names}: {err}")
            self.assertIn("Out of bounds values : 0 OK", outputs[0][0], names)

    def test_missing_peer_is_an_error_in_time(self):
        result = run(BIN / "all_reduce_perf", "-b", 8,
                     env={"SUMAC_RANK": "0", "SUMAC_SIZE": "2", "SUMAC_BOOTSTRAP": f"127.0.0.1:{31000 + os.getpid() % 900}",
                          "SUMAC_BOOTSTRAP_SERVE": "1"})
        self.assertEqual(result.returncode, 1)
        self.assertIn("missing: 1", result.stderr)

    def test_half_an_environment_names_the_variable(self):
        result = run(BIN / "all_reduce_perf", "-b", 8, env={"SUMAC_RANK": "0"})
        self.assertEqual(result.returncode, 1)
        self.assertIn("SUMAC_SIZE", result.stderr)

    def test_killed_rank_is_named_by_all_others_in_two_seconds(self):
        port = 26000 + os.getpid() % 4000
        names = ("SUMAC_RANK", "SUMAC_SIZE")
        # Rank 0 also runs the bootstrap server.
        for victim, host_memory in ((0, 0), (2, 0), (0, 1), (2, 1)):
            extra = {"SUMAC_BOOTSTRAP": f"127.0.0.1:{port + victim + 4 * host_memory}", "SUMAC_BOOTSTRAP_SERVE": "1",
                     "SUMAC_HOST_MEMORY": str(host_memory)}
            ranks = [subprocess.Popen([BIN / "all_reduce_perf", "-b", "1M", "-n", "100000000"],
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                      env={**os.environ, **extra, names[0]: str(rank), names[1]: "4"})
                     for rank in range(4)]
            for _ in range(11):  # the header is there: the sweep has begun
                ranks[0].stdout.readline()
            ranks[victim].kill()
            start = time.monotonic()
            for index, rank in enumerate(ranks):
                _, err = rank.communicate(timeout=DEADLINE_S)
                if index == victim:
                    continue
                self.assertEqual(rank.returncode, 1)
                self.assertIn(f"failed_rank='{victim}'", err)
            self.assertLess(time.monotonic() - start, 2)


def pair_rows(output):
    """The rows of a `sumac perf` table."""
    return [line.split() for line in output.splitlines() if line.startswith(" ") and line.split()[0].isdigit()]


class PairPerf(unittest.TestCase):
    """Structure and verified data; never a time."""

    def perf(self, *arguments):
        return run(BIN / "sumac", "perf", *arguments)

    def test_every_test_measures_and_verifies(self):
        for test, options, row in [
                ("put_lat", [], "2"), ("put_lat", ["--ping-pong", "-s", "1"], "1"), ("put_lat", ["--signal", "-s", "64"], "64"),
                ("put_lat", ["--passive-target", "-s", "8"], "8"), ("get_lat", ["-s", "4K"], "4096"), ("send_lat", ["-s", "8K"], "8192"),
                ("atomic_lat", ["-A", "CMP_AND_SWAP"], "8"), ("put_bw", ["-s", "64", "-q", "3", "-b"], "64"), ("get_bw", ["-t", "4"], "65536"),
                ("send_bw", ["-s", "1K", "-q", "2"], "1024"), ("send_bw", ["-s", "64K"], "65536"), ("atomic_bw", [], "8"),
                ("put_bw", ["-D", "0.05", "--passive-target"], "65536")]:
            named = f"{test} {options}"
            result = self.perf(test, "--local", *options, *([] if "-D" in options else ["-n", "100"]))
            self.assertEqual(result.returncode, 0, f"{named}: {result.stderr}")
            self.assertRegex(result.stdout, r"Machine +: .*core to core", named)
            rows = pair_rows(result.stdout)
            self.assertEqual([len(each) for each in rows], [9 if test.endswith("_lat") else 5], f"{named}: {result.stdout}")
            self.assertEqual(rows[0][0], row, named)
            self.assertTrue(all(float(each) >= 0 for each in rows[0][:5]), named)

    def test_all_sizes_under_the_launcher_as_json(self):
        result = launch(2, BIN / "sumac", "perf", "put_bw", "-a", "-n", 5, "--json", options=["--no-tag-output"])
        self.assertEqual(result.returncode, 0, result.stderr)
        report = json.loads(result.stdout)
        self.assertEqual([row["bytes"] for row in report["results"]], [2**shift for shift in range(1, 24)])
        self.assertEqual({row["wrong"] for row in report["results"]}, {0})
        self.assertGreater(report["results"][0]["iterations"], 0)
        self.assertIn("core_one_way_ns", report["machine"])
        self.assertEqual([rank["device"] for rank in report["ranks"]], ["soft0", "soft0"])

    def test_percentiles_need_enough_samples(self):
        row = json.loads(self.perf("put_lat", "--local", "-n", 100, "--json").stdout)["results"][0]
        self.assertIsNone(row["p99_9_us"])
        self.assertLessEqual(row["t_min_us"], row["t_typical_us"])
        self.assertLessEqual(row["t_typical_us"], row["p99_us"])
        self.assertLessEqual(row["p99_us"], row["t_max_us"])

    def test_meets_as_perftest_does(self):
        port = 23000 + os.getpid() % 3000
        server = subprocess.Popen([BIN / "sumac", "perf", "put_bw", "-p", str(port)], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True)
        self.assertIn("waiting on 127.0.0.1", server.stderr.readline())
        client = self.perf("put_bw", "-p", port, "-n", 50, "127.0.0.1")
        self.assertEqual(client.returncode, 0, client.stderr)
        self.assertEqual(len(pair_rows(client.stdout)), 1)
        out, err = server.communicate(timeout=DEADLINE_S)
        self.assertEqual((server.returncode, out), (0, ""), err)

    def test_sides_that_differ_are_told(self):
        port = 28000 + os.getpid() % 3000
        server = subprocess.Popen([BIN / "sumac", "perf", "put_bw", "-p", str(port), "-s", "8"], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True)
        self.assertIn("waiting", server.stderr.readline())
        client = self.perf("put_bw", "-p", port, "-s", "16", "127.0.0.1")
        self.assertEqual(client.returncode, 1)
        self.assertIn("different options", client.stderr)
        _, err = server.communicate(timeout=DEADLINE_S)
        self.assertEqual(server.returncode, 1)
        self.assertIn("different options", err)

    def test_bad_calls(self):
        for arguments, code, named in [([], 2, "test"), (["write_bw"], 2, "put_bw"), (["put_bw", "-I", "64"], 2, "--inline_size"),
                                       (["put_lat", "-b"], 2, "--bidirectional"), (["put_lat", "-s", "x", "--local"], 2, "--size"),
                                       (["put_lat", "--local", "--cpus", "0,4000"], 1, "CPU 4000"),
                                       (["put_lat", "--wait", "0.2", "-p", "31999"], 1, "missing")]:
            result = self.perf(*arguments)
            self.assertEqual(result.returncode, code, f"{arguments}: {result.stderr}")
            self.assertIn(named, result.stderr, arguments)
        result = launch(3, BIN / "sumac", "perf", "put_lat")
        self.assertEqual(result.returncode, 1)
        self.assertIn("between two", result.stderr)


if __name__ == "__main__":
    unittest.main()
