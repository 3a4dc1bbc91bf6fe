#!/usr/bin/env python3
"""The folder of Sumac's libibverbs.so.1 on LD_LIBRARY_PATH, without a preload: for programs that load it by name (NCCL does).

Usage: drop_in_test.py --sumac SUMAC. Exit code 77: skipped, and why.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys

# What NCCL does first: load by name, look symbols up under their versions, list, open, ask.
LOAD_BY_NAME = r"""
import ctypes
verbs = ctypes.CDLL("libibverbs.so.1", use_errno=True)
libc = ctypes.CDLL(None)
libc.dlvsym.restype = ctypes.c_void_p
def symbol(name, result, *arguments, version=b"IBVERBS_1.1"):
    address = libc.dlvsym(ctypes.c_void_p(verbs._handle), name.encode(), version)
    assert address, f"no {name}@{version.decode()}"
    return ctypes.CFUNCTYPE(result, *arguments)(address)
pointer = ctypes.c_void_p
names = symbol("ibv_get_device_name", ctypes.c_char_p, pointer)
count = ctypes.c_int(0)
devices = symbol("ibv_get_device_list", ctypes.POINTER(pointer), ctypes.POINTER(ctypes.c_int))(ctypes.byref(count))
found = {names(devices[i]): devices[i] for i in range(count.value)}
assert b"soft0" in found, found
context = symbol("ibv_open_device", pointer, pointer)(found[b"soft0"])
assert context, ctypes.get_errno()
gid = ctypes.create_string_buffer(16)
assert symbol("ibv_query_gid", ctypes.c_int, pointer, ctypes.c_uint8, ctypes.c_int, pointer)(context, 1, 0, gid) == 0
domain = symbol("ibv_alloc_pd", pointer, pointer)(context)
buffer = ctypes.create_string_buffer(4096)
region = symbol("ibv_reg_mr", pointer, pointer, pointer, ctypes.c_size_t, ctypes.c_int)(domain, buffer, 4096, 7)
assert domain and region
assert symbol("ibv_reg_mr_iova2", pointer, pointer, pointer, ctypes.c_size_t, ctypes.c_uint64, ctypes.c_uint, version=b"IBVERBS_1.8")
assert symbol("ibv_dereg_mr", ctypes.c_int, pointer)(region) == 0
assert symbol("ibv_dealloc_pd", ctypes.c_int, pointer)(domain) == 0
assert symbol("ibv_close_device", ctypes.c_int, pointer)(context) == 0
print("opened soft0 at", gid.raw.hex())
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sumac", required=True)
    options = parser.parse_args()
    if shutil.which("ibv_devices") is None:
        print("skipped: ibv_devices is not installed (scripts/setup)")
        return 77
    preload = subprocess.run([options.sumac, "soft", "--print-preload"], check=True, capture_output=True, text=True).stdout
    folder = str(pathlib.Path(preload.split(":")[0]).parent)
    environment = {**os.environ, "LD_LIBRARY_PATH": folder}
    environment.pop("LD_PRELOAD", None)
    for command, expected in ((["ibv_devices"], "soft0"), ([sys.executable, "-c", LOAD_BY_NAME], "ffff7f000001")):
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        print(result.stdout + result.stderr)
        if result.returncode != 0 or expected not in result.stdout:
            print(f"failed: {command[0]}: exit code {result.returncode}, no {expected!r}")
            return 1
    return 0


sys.exit(main())
