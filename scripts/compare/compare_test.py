#!/usr/bin/env python3
"""The parsers, the statistics, the tables and the plot of compare_peers on canned outputs; and a run of our own side.

Usage: compare_test.py BUILD [unittest arguments].
"""
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

HERE = pathlib.Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE))
BUILD = pathlib.Path(sys.argv.pop(1)).resolve()

import contenders  # noqa: E402
import figures  # noqa: E402
import parse  # noqa: E402
import plot  # noqa: E402
import quiet  # noqa: E402
import report  # noqa: E402
import rows  # noqa: E402
import runs  # noqa: E402

NEAR, FAR, MIXED = {"core_one_way_ns": 62, "core_one_way_ns_after": 70}, {"core_one_way_ns": 280, "core_one_way_ns_after": 275}, \
    {"core_one_way_ns": 62, "core_one_way_ns_after": 280}


def canned_row(**changes):
    return {"name": "r", "title": "A <title>", "unit": "us", "sizes": [8, 65536], "rounds": [NEAR, FAR, NEAR, MIXED, NEAR],
            "values": {"Sumac": {8: [1.0, 9.0, 2.0, 9.0, 4.0], 65536: [10.0] * 5},
                       "Peer & Co": {8: [2.0, 9.0, 1.0, 9.0, 4.0], 65536: [None, None, 20.0, None, 30.0]}}, **changes}


def canned_result():
    return {"machine": {"cpu_model": "CPU", "cpus": 2, "kernel": "Linux 6"}, "rows": [canned_row()],
            "versions": {"Open MPI": "4.1"}, "skipped": {"r: Third": "not installed"}}


class Figures(unittest.TestCase):
    def test_rounds_are_told_apart_by_distance(self):
        self.assertEqual(figures.rounds_by_class(canned_row()), {"near": [0, 2, 4], "far": [1], "mixed": [3]})
        unknown = {"core_one_way_ns": None, "core_one_way_ns_after": None}
        self.assertEqual(figures.rounds_by_class(canned_row(rounds=[unknown])), {"unknown": [0]})
        self.assertEqual(list(figures.rounds_by_class(canned_row(rounds=[MIXED, MIXED, FAR]))), ["far", "mixed"])

    def test_a_ratio_is_of_one_round_and_more_than_one_is_better(self):
        found = figures.ratios(canned_row(), "Peer & Co", 8, [0, 2, 4])
        self.assertEqual((found.median, found.least, found.most, found.count), (1.0, 0.5, 2.0, 3))
        self.assertEqual(figures.ratio("GB/s", 4, 2), 2)
        self.assertIsNone(figures.ratio("us", None, 2))
        self.assertIsNone(figures.ratio("us", 0, 2))

    def test_missing_values_are_left_out(self):
        found = figures.ratios(canned_row(), "Peer & Co", 65536, [0, 2, 4])
        self.assertEqual((found.median, found.count), (2.5, 2))
        self.assertIsNone(figures.ratios(canned_row(), "Peer & Co", 65536, [0]))
        self.assertIsNone(figures.summarize([None]))

    def test_table(self):
        cells = figures.table(canned_row(), [0, 2, 4])
        self.assertEqual(cells[0], ["size", "Sumac, us", "Peer & Co, us", "Peer & Co / ours"])
        self.assertEqual(cells[1], ["8 B", "2", "2", "1 (0.5 - 2)"])
        self.assertEqual(cells[2][0], "64 KiB")

    def test_who_never_ran_is_in_no_table(self):
        row = canned_row()
        row["values"]["Absent"] = {8: [None] * 5, 65536: [None] * 5}
        self.assertNotIn("Absent", " ".join(figures.table(row, [0, 2, 4])[0]))


class Parsers(unittest.TestCase):
    def test_our_peers_for_mpi_and_udp(self):
        self.assertEqual(parse.lines_of_three("warning: x\n8 0.19 0\n64 1.5 0\n"), {8: 0.19, 64: 1.5})
        with self.assertRaises(parse.WrongData):
            parse.lines_of_three("8 0.19 1\n")

    def test_ours(self):
        text = '{"results": [{"bytes": 8, "t_typical_us": 1.5, "wrong": 0}, {"bytes": 16, "bw_average_mib_per_s": 1000, "wrong": 0}]}'
        self.assertEqual(parse.sumac_perf(text), {8: 1.5, 16: 1.048576})
        with self.assertRaises(parse.WrongData):
            parse.sumac_perf('{"results": [{"bytes": 8, "iterations": 5, "wrong": 3}]}')
        text = '{"results": [{"size": 8, "out_of_place": {"time": 2.5, "wrong": 0}}]}'
        self.assertEqual(parse.all_reduce_perf(text), {8: 2.5})
        with self.assertRaises(parse.WrongData):
            parse.all_reduce_perf(text.replace('"wrong": 0', '"wrong": 1'))

    def test_perftest(self):
        text = " #bytes     #iterations    BW peak[MB/sec]    BW average[MB/sec]   MsgRate[Mpps]\n 65536      5000   4000.00  2000.00  0.032\n---\n"
        self.assertAlmostEqual(parse.perftest_bandwidth(text)[65536], 2.097152)

    def test_ucx(self):
        text = ("iterations,50.0_percentile_lat,avg_lat,overall_lat,avg_bw,overall_bw,avg_mr,overall_mr\n"
                "100000,0.255,3.132,6.050,2.44,1.26,319264,165302\n")
        self.assertEqual(parse.ucx_perftest(text, bandwidth=False), 0.255)
        self.assertAlmostEqual(parse.ucx_perftest(text, bandwidth=True), 2.44 * parse.MIB / 1e9)

    def test_iperf3_and_google_benchmark(self):
        self.assertEqual(parse.iperf3('{"end": {"sum_received": {"bits_per_second": 16e9}}}'), 2)
        text = ('{"benchmarks": [{"name": "BenchMemcpy/bytes:1048576", "bytes_per_second": 5e9}, {"name": "Other", "real_time": 1},'
                '{"name": "BenchTwoThreadCopy/bytes:64/real_time", "bytes_per_second": 1e9}]}')
        self.assertEqual(parse.google_benchmark(text), {1048576: 5.0, 64: 1.0})

    def test_sweeps_cover_every_size_once(self):
        self.assertEqual(contenders.sweeps([8, 64, 512, 2048, 4096], lambda size: 5), [(8, 512, 5), (2048, 2048, 5), (4096, 4096, 5)])
        self.assertEqual(contenders.sweeps([8, 64], lambda size: size), [(8, 8, 8), (64, 64, 64)])


class Reports(unittest.TestCase):
    def test_markdown_goes_between_its_marks_and_nowhere_else(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "performance.md"
            path.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
            for _ in range(2):
                report.write_markdown(path, canned_result(), "plot.svg")
            text = path.read_text()
            self.assertTrue(text.startswith("before\n") and text.endswith("\nafter\n"))
            self.assertNotIn("old", text)
            self.assertEqual(text.count(report.BEGIN), 1)
            self.assertIn("| 8 B | 2 | 2 | 1 (0.5 - 2) |", text)
            self.assertIn("3 of 5 rounds, core to core 62-70 ns", text)
            self.assertIn("1 of 5 rounds, core to core 275-280 ns", text)
            self.assertIn("- r: Third: not installed", text)

    def test_text(self):
        self.assertIn("Peer & Co / ours", report.text(canned_result()))

    def test_plot_is_xml_with_every_contender_and_both_grounds(self):
        text = plot.svg(canned_result())
        root = xml.etree.ElementTree.fromstring(text)
        words = [element.text for element in root.iter() if element.tag.endswith("text")]
        self.assertIn("Sumac", words)
        self.assertIn("Peer & Co", words)
        self.assertIn("prefers-color-scheme: dark", text)
        self.assertEqual(sum(element.tag.endswith("polyline") for element in root.iter()), 2)

    def test_one_size_is_bars(self):
        row = canned_row(sizes=[8], unit="GB/s")
        root = xml.etree.ElementTree.fromstring(plot.svg({"rows": [row]}))
        self.assertEqual(sum(element.tag.endswith("rect") for element in root.iter()), 2)

    def test_plot_of_nothing_is_still_one(self):
        row = canned_row(values={"Sumac": {8: [None] * 5, 65536: [None] * 5}})
        xml.etree.ElementTree.fromstring(plot.svg({"rows": [row]}))


class Rounds(unittest.TestCase):
    def test_contenders_take_turns_and_failures_are_told(self):
        calls = []

        def contender(name, value):
            def measure(sizes):
                calls.append(name)
                if value is None:
                    raise runs.Unavailable("not here")
                return {size: value for size in sizes}
            return measure
        row = rows.Row("r", "R", "us", [8], {"a": contender("a", 1.0), "b": contender("b", 2.0), "c": contender("c", None)})
        result = rows.run_rounds([row], 3, lambda: {"core_one_way_ns": 60}, lambda: 0.0, lambda text: None)
        self.assertEqual("".join(calls), "abc" "bca" "ab")  # c is given up after its second failure
        self.assertEqual(result["rows"][0]["values"]["b"][8], [2.0, 2.0, 2.0])
        self.assertEqual(result["skipped"], {"r: c": "not here"})

    def test_waits_for_others_within_its_budget(self):
        now = [0.0]
        shares = iter([0.9, 0.5, 0.05, 0.9, 0.9, 0.9, 0.9])

        def sample():
            now[0] += 1
            return next(shares)
        wait = quiet.Quiet(40, sample, lambda: now[0])
        self.assertEqual(wait(), 0.05)  # three seconds
        self.assertEqual(wait(), 0.9)  # four seconds: no call takes more
        wait.left_s = 0
        self.assertEqual(now[0], 7)

    def test_busy_share_is_of_all_cpus(self):
        texts = iter(["cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1", "cpu  150 0 150 750 150 0 0 0 0 0\n"])
        self.assertEqual(quiet.busy_share(lambda: next(texts), lambda _: None), 0.5)

    def test_a_run_has_a_deadline_and_says_why_it_failed(self):
        with self.assertRaisesRegex(runs.Unavailable, "did not end"):
            runs.run(["cat", "/dev/zero"], timeout=0.2)
        with self.assertRaisesRegex(runs.Unavailable, "ended with 3: why"):
            runs.run(["sh", "-c", "echo why >&2; exit 3"])


class Program(unittest.TestCase):
    def compare(self, *arguments):
        return subprocess.run([HERE.parent / "compare_peers", "--build", BUILD, *arguments], capture_output=True, text=True, timeout=100)

    @unittest.skipIf(len(os.sched_getaffinity(0)) < 2, "needs two CPUs")
    def test_our_side_runs(self):
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder)
            done = self.compare("--quick", "--ours", "--rounds", "1", "--only", "put-flush", "--markdown", out / "t.md", "--svg", out / "t.svg")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("64 KiB", done.stdout)
            self.assertIn("Put and flush", (out / "t.md").read_text())
            xml.etree.ElementTree.fromstring((out / "t.svg").read_text())

    @unittest.skipIf(len(os.sched_getaffinity(0)) < 2, "needs two CPUs")
    def test_list_installs_nothing_and_bad_rows_are_named(self):
        self.assertIn("row allreduce-2", self.compare("--list").stdout)
        done = self.compare("--only", "nonsense")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("allreduce-2", done.stderr)


if __name__ == "__main__":
    unittest.main()
