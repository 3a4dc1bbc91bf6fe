"""The stock programs, how they are called, and what they print when all is well."""

import dataclasses

DEVICE = "soft0"
NUMBER = r"\d+\.\d+"


@dataclasses.dataclass
class Program:
    command: str
    expect: list  # patterns, each somewhere in what the program prints (of two ends, the one that connects)
    ends: int = 2
    environment: dict = dataclasses.field(default_factory=dict)
    serve: str = ""  # what the end that listens is told besides
    connect: str = "{address}"  # and the one that connects
    served_expect: list = dataclasses.field(default_factory=list)  # patterns, in what the other end prints
    endless_server: bool = False
    fixed_port: int = 0  # where it listens if it can't be told

    @property
    def name(self):
        return self.command.split()[0]

    def words(self, port, address=None):
        return f"{self.command} {self.connect if address else self.serve}".format(port=port, address=address).split()


def pingpong(kind, options=""):
    # With one GID the index is 0; -c has the program check what it receives.
    return Program(f"ibv_{kind}_pingpong -d {DEVICE} -g 0 -p {{port}} {options}", [r"^\d+ iters in .* usec/iter"])


def xrc_pingpong(options=""):
    return Program(f"ibv_xsrq_pingpong -d {DEVICE} -g 0 -p {{port}} {options}", [r"^success$"])


def perftest(name, options="", also=()):
    kind = name.rsplit("_", 1)[1]
    columns = 7 if kind == "lat" and "-e" not in options.split() else 3
    row = r"^ \d+ +\d+" + rf"\s+{NUMBER}" * min(columns, 3)
    rows = [row] if "-a" not in options.split() else [rf"^ {2 ** power} +\d+\s+{NUMBER}" for power in range(1, 24)]
    return Program(f"ib_{name} -d {DEVICE} -x 0 -F -p {{port}} {options}", rows + list(also))


def ucx(test, transport, options=""):
    environment = {"UCX_TLS": f"{transport},self", "UCX_NET_DEVICES": f"{DEVICE}:1", "UCX_LOG_LEVEL": "warn"}
    return Program(f"ucx_perftest -p {{port}} -t {test} {options}", [r"^Final:"], environment=environment)


def by_packets(program):
    """Without the way that needs none, between processes of one host."""
    return dataclasses.replace(program, environment={**program.environment, "SUMAC_SOFT_LOCAL": "0"})


def on_ipv6(program):
    return dataclasses.replace(program, environment={**program.environment, "SUMAC_SOFT_ADDRESS": "::1"})


def rdma_cm(command, serve="", connect="-s {address}", expect=(r"^return status 0",), **more):
    """A program of librdmacm; `serve` is what only the end that listens is told."""
    return Program(command, list(expect), connect=connect, serve=serve, **more)


GROUPS = {
    "devices": [
        Program("ibv_devices", [rf"^\s+{DEVICE}\s+[0-9a-f]{{16}}$"], ends=1),
        Program(f"ibv_devinfo -v -d {DEVICE}", [r"state:\s+PORT_ACTIVE", r"GID\[\s*0\]:.*RoCE v2", r"link_layer:\s+Ethernet"], ends=1),
        Program("ls /sys/class/infiniband/soft0/ports/1/hw_counters", [r"^retransmitted_packets$"], ends=1),
        Program("cat /sys/class/infiniband/soft0/ports/1/counters/port_rcv_data", [r"^\d+$"], ends=1),
    ],
    "pingpong": [
        pingpong("rc", "-c"),
        pingpong("rc", "-c -e"),
        pingpong("rc", "-c -m 256 -s 100000 -n 200"),
        pingpong("rc", "-c -e -m 4096 -s 1000000 -n 50 -r 20"),
        # What UC and UD lose is lost: short enough to fit the receiver's socket.
        pingpong("uc", "-c"),
        pingpong("uc", "-c -e"),
        pingpong("ud", "-c -s 1024"),
        pingpong("ud", "-c -e -s 1024"),
        pingpong("srq", "-c -q 8"),
        pingpong("srq", "-c -e -q 8"),
        # One client: several of one host count on sharing their XRC domain.
        xrc_pingpong(),
        xrc_pingpong("-e"),
        xrc_pingpong("-o -s 100000 -m 4096 -n 100"),
    ],
    "ipv6": [
        Program(f"ibv_devinfo -v -d {DEVICE}", [r"GID\[\s*0\]:\s+::1, RoCE v2"], ends=1, environment={"SUMAC_SOFT_ADDRESS": "::1"}),
        on_ipv6(pingpong("rc", "-c -e")),
        on_ipv6(pingpong("uc", "-c")),
        on_ipv6(pingpong("ud", "-c -s 1024")),
        on_ipv6(perftest("write_bw", "-a -n 20")),
        on_ipv6(perftest("send_lat", "-c UD -n 500")),
    ],
    "perftest_rc": [
        *(perftest(f"{verb}_{kind}", "-n 500") for verb in ("write", "read", "send", "atomic") for kind in ("bw", "lat")),
        perftest("write_bw", "-a -n 20"),
        perftest("read_bw", "-a -n 20"),
        perftest("send_bw", "-a -n 20"),
        perftest("write_bw", "-q 8 -n 500 --report_gbits"),
        perftest("read_bw", "-q 8 -n 500 --report_gbits"),
        perftest("send_bw", "-e -n 500"),
        perftest("send_lat", "-e -n 500"),
        perftest("read_lat", "-e -n 500"),
        perftest("write_bw", "-b -n 500"),
        # 500 x 64 KiB are 8000 packets, at the path MTU of loopback; what it reads of counters is what has changed.
        by_packets(perftest("write_bw", "-n 500 -m 4096 -W counters/port_xmit_packets,hw_counters/dropped_unknown_qpn",
                            also=[r"counters/port_xmit_packets=[1-9]\d+", r"hw_counters/dropped_unknown_qpn=0"])),
        *(by_packets(perftest(f"{verb}_{kind}", "-n 500")) for verb in ("write", "read", "atomic") for kind in ("bw", "lat")),
    ],
    "perftest_uc_ud": [
        perftest("write_bw", "-c UC -n 500 -s 4096"),
        perftest("write_lat", "-c UC -n 500"),
        perftest("send_lat", "-c UC -n 500"),
        perftest("send_lat", "-c UD -n 500"),
        perftest("send_lat", "-c UD -e -n 500"),
        # What gets lost is waited for in vain: as much as a socket holds.
        perftest("send_bw", "-c UD -n 100 -s 1024"),
        perftest("send_bw", "-c UC -n 100 -s 1024"),
    ],
    "ucx": [
        Program("ucx_info -d", [r"Transport: rc_verbs", r"Transport: ud_verbs", rf"Device: {DEVICE}:1"], ends=1),
        # rc_v is rc_verbs, with ud_verbs to connect by.
        *(
            ucx(test, transport, options)
            for transport in ("rc_v", "ud_v")
            for test, options in (("tag_lat", "-n 1000"), ("tag_bw", "-s 100000 -n 300"), ("ucp_get", "-s 20000 -n 300"))
        ),
        ucx("ucp_put_lat", "rc_v", "-n 1000"),
        ucx("ucp_add", "rc_v", "-n 300"),
        ucx("am_lat", "rc_verbs", "-d soft0:1 -x rc_verbs -n 1000"),
        ucx("am_bw", "ud_verbs", "-d soft0:1 -x ud_verbs -D bcopy -s 2000 -n 1000"),
    ],
    # Through librdmacm: the kernel's rdma_cm device is ours.
    "rdma_cm": [
        rdma_cm(
            "rping -v -V -C 30 -S 5000 -p {port}",
            serve="-s",
            connect="-c -a {address}",
            expect=[r"^ping data: rdma-ping-29:"],
            served_expect=[r"^server ping data: rdma-ping-29:"],
        ),
        rdma_cm("ucmatose -p {port} -c 8 -C 20 -S 3000", served_expect=[r"^return status 0"]),
        rdma_cm("ucmatose -p {port} -t 104 -C 10", served_expect=[r"^return status 0"]),
        rdma_cm("udaddy -c 4 -C 20 -S 1000", fixed_port=7174, served_expect=[r"^return status 0"]),
        rdma_cm("cmtime -p {port} -c 300", expect=[r"^disconnect +: +\d"], endless_server=True),
        # rsockets
        rdma_cm("rstream -p {port} -S 20000 -I 50 -C 20 -T v", expect=[rf"^custom +19k.*{NUMBER}"]),
        rdma_cm("riostream -p {port} -S 1000 -I 10 -C 5 -T v", expect=[rf"^custom +1000.*{NUMBER}"]),
        rdma_cm("rstream -p {port} -S 3000 -I 100 -C 5 -T n -T v", expect=[rf"^custom +2.9k.*{NUMBER}"]),
        perftest("write_bw", "-R -n 500"),
        perftest("read_lat", "-R -n 500"),
        perftest("send_bw", "-R -n 500 -q 4"),
        perftest("send_lat", "-R -c UD -n 200"),
    ],
}
