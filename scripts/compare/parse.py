"""What programs print, as {size: value}. Pure. Values for wrong data are refused."""

import json

MIB = 1 << 20


class WrongData(Exception):
    pass


def lines_of_three(text):
    """mpi_peer, udp_peer: SIZE MICROSECONDS WRONG."""
    found = {}
    for line in text.splitlines():
        fields = line.split()
        if len(fields) != 3 or not fields[0].isdigit():
            continue
        if int(fields[2]) != 0:
            raise WrongData(f"{fields[2]} wrong of {fields[0]} bytes")
        found[int(fields[0])] = float(fields[1])
    return found


def all_reduce_perf(text):
    """Our nccl-tests-like JSON: microseconds, out of place."""
    found = {}
    for row in json.loads(text)["results"]:
        if row["out_of_place"]["wrong"] != 0:
            raise WrongData(f"{row['out_of_place']['wrong']} wrong of {row['size']} bytes")
        found[row["size"]] = row["out_of_place"]["time"]
    return found


def host_limits(text, column):
    """host_allreduce_limits: the microseconds under one of its headings."""
    found, names = {}, []
    for line in text.splitlines():
        fields = line.split()
        if fields[:1] == ["bytes"]:
            names = fields
        elif names and fields and fields[0].isdigit():
            found[int(fields[0])] = float(fields[names.index(column)])
    return found


def sumac_perf(text):
    """{size: median microseconds}, or GB/s for bandwidth."""
    found = {}
    for row in json.loads(text)["results"]:
        if row["wrong"] != 0:
            raise WrongData(f"{row['wrong']} wrong of {row['bytes']} bytes")
        found[row["bytes"]] = row["t_typical_us"] if "t_typical_us" in row else row["bw_average_mib_per_s"] * MIB / 1e9
    return found


def sumac_perf_machine(text):
    return json.loads(text)["machine"]


def perftest_bandwidth(text):
    """ib_write_bw's table: #bytes #iterations peak average rate, MiB/s -> GB/s."""
    found = {}
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == 5 and fields[0].isdigit() and fields[1].isdigit():
            found[int(fields[0])] = float(fields[3]) * MIB / 1e9
    return found


def ucx_perftest(text, bandwidth):
    """ucx_perftest -f -v: one line of CSV under its headings. Median latency, or average MiB/s -> GB/s."""
    lines = [line for line in text.splitlines() if "," in line]
    headings = lines[0].split(",")
    fields = dict(zip(headings, lines[-1].split(",")))
    if bandwidth:
        return float(fields["avg_bw"]) * MIB / 1e9
    median = next(name for name in headings if name.endswith("percentile_lat"))
    return float(fields[median])


def iperf3(text):
    """iperf3 -J: what the receiver got, GB/s."""
    return json.loads(text)["end"]["sum_received"]["bits_per_second"] / 8e9


def google_benchmark(text):
    """{bytes: GB/s} of benchmarks named NAME/bytes:N."""
    found = {}
    for row in json.loads(text)["benchmarks"]:
        if "bytes_per_second" in row and "/bytes:" in row["name"]:
            found[int(row["name"].split("/bytes:")[1].split("/")[0])] = row["bytes_per_second"] / 1e9
    return found
