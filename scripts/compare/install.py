"""The peers: which there are, and how they come here. Nothing is installed without being asked for.

Debian's packages come by apt-get (as root); the newest UCX comes from PyPI into the cache folder of the user, and nowhere
else. Our own small programs for the peers are compiled there, too.
"""

import os
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent

# package | the program or file of it by which it is found | why
PACKAGES = [
    ("openmpi-bin", "mpirun.openmpi", "Open MPI's launcher"),
    ("libopenmpi-dev", "mpicc.openmpi", "builds the benchmark for it"),
    ("mpich", "mpiexec.mpich", "MPICH's launcher"),
    ("libmpich-dev", "mpicc.mpich", "builds the benchmark for it"),
    ("libgloo-dev", "/usr/include/gloo/allreduce.h", "Gloo, and what builds the benchmark for it"),
    ("iperf3", "iperf3", "TCP on the wire"),
    ("perftest", "ib_write_bw", "the stock verbs benchmark, on our soft NIC"),
]
UCX_WHEEL = "libucx-cu12"


def cache_folder():
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "sumac" / "compare"


def is_there(found_by):
    return pathlib.Path(found_by).exists() if found_by.startswith("/") else shutil.which(found_by) is not None


def missing_packages():
    return [(name, why) for name, found_by, why in PACKAGES if not is_there(found_by)]


def ucx_perftest(cache):
    """The newest UCX's, else the distribution's; None."""
    wheel = cache / "ucx" / "libucx" / "bin" / "ucx_perftest"
    if wheel.exists():
        return wheel
    found = shutil.which("ucx_perftest")
    return pathlib.Path(found) if found else None


def wanted(cache):
    """What would be installed: [(what, how, why)]."""
    found = [(name, "apt-get", why) for name, why in missing_packages()]
    if not (cache / "ucx" / "libucx").exists():
        found.append((UCX_WHEEL, f"pip, into {cache / 'ucx'}", "the newest UCX and its ucx_perftest"))
    return found


def install(cache, say):
    """{what: why not} of what could not be had."""
    failed = {}
    packages = [name for name, _ in missing_packages()]
    if packages and os.geteuid() != 0:
        failed.update({name: "needs root: apt-get install " + name for name in packages})
    elif packages:
        say("apt-get install " + " ".join(packages))
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]):
            done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["apt-get failed"])[-1]
            failed.update({name: reason for name, _ in missing_packages()})
    if not (cache / "ucx" / "libucx").exists():
        say(f"pip install --target {cache / 'ucx'} {UCX_WHEEL}")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(cache / "ucx"), UCX_WHEEL]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            failed[UCX_WHEEL] = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
    return failed


def build(cache, compiler, source, name, *libraries):
    """A program of ours for a peer, compiled when it is older than its source. None: there is no such compiler."""
    if shutil.which(compiler) is None:
        return None
    program = cache / "bin" / name
    if program.exists() and program.stat().st_mtime > (HERE / source).stat().st_mtime:
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([compiler, "-O2", "-o", str(program), str(HERE / source), *libraries], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{compiler} {source}: {done.stderr.strip()}")
    return program


def version_of(*command):
    """The version in the first line that the program says of itself."""
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = (done.stdout + done.stderr).strip().splitlines()
    return next((word for word in lines[0].split() if word[0].isdigit()), lines[0].strip()) if lines else ""
