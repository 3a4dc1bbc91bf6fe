#!/usr/bin/env python3
"""The lab itself: what a command in its guest sees, what comes back of it, and that nothing stays behind."""
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

LAB = None
# Where the labs of this test put their files: other labs may be running.
FOLDER = tempfile.TemporaryDirectory(prefix="rxe_lab_test.")
ENVIRONMENT = {**os.environ, "TMPDIR": FOLDER.name, "GREETING": "a 'b' \"c\" $d"}


def lab(*words):
    return subprocess.run([LAB, *words], capture_output=True, text=True, timeout=240, env=ENVIRONMENT, check=False)


def leftovers():
    return os.listdir(FOLDER.name)


class RxeLabTest(unittest.TestCase):
    def test_a_command_of_this_tree_runs_on_rxe_devices(self):
        marker = pathlib.Path.cwd() / "written_by_the_guest"
        done = lab("--hosts", "3", "--", "bash", "-c",
                   f"echo $SUMAC_DEVICE; pwd; echo $GREETING; rdma link; ulimit -l; touch {marker} && echo wrote;"
                   " echo to the error output >&2; exit 41")
        self.assertEqual(done.returncode, 41, done.stderr)
        lines = done.stdout.splitlines()
        self.assertEqual(lines[:3], ["rxe0,rxe1,rxe2", os.getcwd(), "a 'b' \"c\" $d"])
        for i in range(3):
            self.assertIn(f"link rxe{i}/1 state ACTIVE physical_state LINK_UP netdev host{i}", done.stdout)
        self.assertEqual(lines[-2:], ["unlimited", "wrote"])
        self.assertIn("to the error output", done.stderr)
        self.assertFalse(marker.exists(), "the guest wrote to this machine")
        self.assertEqual(leftovers(), [])

    def test_much_output_comes_whole(self):
        done = lab("--", "seq", "200000")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout, "".join(f"{i}\n" for i in range(1, 200001)))

    def test_a_command_that_does_not_end_is_ended(self):
        done = lab("--timeout", "3", "--", "sleep", "1000")
        self.assertEqual(done.returncode, 124)
        self.assertIn("did not end within 3 s", done.stderr)

    def test_a_guest_that_dies_is_told_from_a_command_that_fails(self):
        done = lab("--", "bash", "-c", "echo c >/proc/sysrq-trigger")
        self.assertEqual(done.returncode, 125)
        self.assertIn("the guest ended before the command did", done.stderr)
        self.assertIn("sysrq", done.stderr.lower())  # the end of what its kernel said

    def test_ending_the_lab_ends_its_guest(self):
        process = subprocess.Popen([LAB, "--", "sleep", "1000"], stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
        self.assertTrue(any("up in" in line for line in process.stderr))
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
        guests = [int(pid) for pid in children.stdout.split()]
        self.assertEqual(len(guests), 1)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(30), 128 + signal.SIGTERM)
        process.stderr.close()
        deadline = time.monotonic() + 30
        while pathlib.Path(f"/proc/{guests[0]}").exists() and time.monotonic() < deadline:
            os.sched_yield()
        self.assertFalse(pathlib.Path(f"/proc/{guests[0]}").exists())
        self.assertEqual(leftovers(), [])

    def test_the_ethernet_carries_the_first_packet(self):
        done = lab("--hosts", "3", "--soft-hosts", "1", "--", "bash", "-c",
                   "for i in 2 3; do busybox ping -c 1 -W 1 -I 10.77.0.$i 10.77.0.1 || exit 1; done;"
                   "ip netns exec soft0 busybox ping -c 1 -W 1 10.77.0.1")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_soft_hosts_share_the_ethernet(self):
        done = lab("--hosts", "1", "--soft-hosts", "1", "--mtu", "1500", "--", "bash", "-c",
                   "ip netns exec soft0 ip -br addr show eth0; cat /sys/class/net/host0/mtu;"
                   " (exec 3<>/dev/tcp/10.77.0.101/9) 2>&1 | grep -o 'Connection refused'")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("10.77.0.101/24", done.stdout)
        self.assertIn("\n1500\n", done.stdout)
        self.assertIn("Connection refused", done.stdout)  # it was reached

    def test_bad_options_are_named(self):
        for words, said in ((["--hosts", "0", "--", "true"], "--hosts"), (["--kernel", "5.4", "--", "true"], "--kernel"),
                            ([], "no command"), (["--mtu", "x", "--", "true"], "--mtu")):
            done = lab(*words)
            self.assertEqual(done.returncode, 2, words)
            self.assertIn(said, done.stderr)
        done = lab("--netem", "nonsense 5", "--", "true")
        self.assertEqual(done.returncode, 125)
        self.assertIn("nonsense", done.stderr)

    def test_a_command_that_is_not_there(self):
        done = lab("--", "no-such-program")
        self.assertEqual(done.returncode, 127)
        self.assertIn("no-such-program", done.stderr)


if __name__ == "__main__":
    LAB = sys.argv.pop(1)
    if lab("--", "true").returncode == 77:
        print(lab("--", "true").stderr)
        sys.exit(77)
    unittest.main()
