"""Two network namespaces joined by a veth pair, for tests whose processes are to be on different hosts."""

import os
import pathlib
import subprocess
import sys
import time

INTERFACE = "sumac0"
ADDRESSES = ["10.77.0.1", "10.77.0.2"]


class Failed(Exception):
    pass


def skip(why):
    print(f"skipped: {why}")
    sys.exit(77)


class Namespace:
    """A network namespace that lives as long as its `cat`, which ends when our end of its pipe closes."""

    def __init__(self):
        self.holder = subprocess.Popen(
            ["unshare", "--net", "--", "cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        deadline = time.monotonic() + 20
        ours = os.readlink("/proc/self/ns/net")
        while True:
            if self.holder.poll() is not None:
                skip("can't make a network namespace: " + self.holder.stderr.read().decode().strip())
            try:
                made = os.readlink(f"/proc/{self.holder.pid}/ns/net") != ours
                if made and pathlib.Path(f"/proc/{self.holder.pid}/comm").read_text().strip() == "cat":
                    return
            except OSError:
                pass
            if time.monotonic() > deadline:
                raise Failed("unshare does nothing")
            time.sleep(0.01)

    def command(self, *words):
        # What runs here dies with us, also when we are killed.
        return ["setpriv", "--pdeathsig", "KILL", "nsenter", f"--net=/proc/{self.holder.pid}/ns/net", "--", *map(str, words)]

    def run(self, *words):
        done = subprocess.run(self.command(*words), capture_output=True, text=True)
        if done.returncode != 0:
            raise Failed(f"{' '.join(map(str, words))}: {done.stderr.strip()}")

    def close(self):
        self.holder.stdin.close()
        self.holder.wait()


def join_by_veth(near, far, mtu, whole_batches):
    # One segment at most: batches are cut before the veth, so that the capture sees packets.
    cut = [] if whole_batches else ["gso_max_segs", 1]
    near.run("ip", "link", "add", INTERFACE, "type", "veth", "peer", "name", INTERFACE, "netns", far.holder.pid)
    for space, address in zip((near, far), ADDRESSES):
        space.run("ip", "link", "set", "lo", "up")
        space.run("ip", "link", "set", INTERFACE, "mtu", mtu, *cut, "up")
        space.run("ip", "addr", "add", f"{address}/24", "dev", INTERFACE)
