#!/usr/bin/env python3
"""The house rules that a program can check: layering, sizes, marks, READMEs, links. Label: tidy.

Usage: tidy_test.py --build BUILD [unittest arguments]. BUILD holds compile_commands.json.
A rule that must bend somewhere bends in one of the tables below, with the reason.
"""

import json
import pathlib
import re
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = None

LINES_MAX = 450

# Floors, bottom first. A file includes its own floor and those below it.
FLOORS = ["verbs", "transport", "runtime", "collectives", "cli", "examples"]

# Inside the soft NIC, and from it to the rest of verbs/: what each folder may include, as path prefixes.
SOFT_NIC = "verbs/soft_nic/"
SOFT_NIC_MAY_INCLUDE = {
    "wire": ["verbs/soft_nic/wire/"],
    "engine": ["verbs/soft_nic/engine/", "verbs/soft_nic/wire/"],
    "link": ["verbs/soft_nic/link/", "verbs/soft_nic/engine/dma.h", "verbs/soft_nic/engine/ports.h", "verbs/soft_nic/wire/", "verbs/log.h"],
    "cm": [
        "verbs/soft_nic/cm/",
        "verbs/soft_nic/engine/ports.h",
        "verbs/soft_nic/link/",
        "verbs/soft_nic/wire/",
        "verbs/log.h",
    ],
    "local": [
        "verbs/soft_nic/local/",
        "verbs/soft_nic/engine/dma.h",
        "verbs/soft_nic/engine/placement.h",
        "verbs/soft_nic/engine/ports.h",
        "verbs/soft_nic/link/",
        "verbs/soft_nic/wire/",
        "verbs/log.h",
    ],
    "device": [
        "verbs/soft_nic/device/",
        "verbs/soft_nic/cm/user_cm.h",
        "verbs/soft_nic/engine/",
        "verbs/soft_nic/link/",
        "verbs/soft_nic/local/",
        "verbs/soft_nic/wire/",
        "verbs/log.h",
        "verbs/port_counters.h",
        "verbs/provider.h",
    ],
    "interpose": ["verbs/soft_nic/interpose/", "verbs/soft_nic/device/control_path.h", "verbs/port_counters.h"],
}

# The engine, the codec and connections are sans-IO: no socket, no clock, no thread, no lock, no environment.
SANS_IO_FOLDERS = ["verbs/soft_nic/wire/", "verbs/soft_nic/engine/", "verbs/soft_nic/cm/connection.", "verbs/soft_nic/cm/queue_pair_attributes."]
SANS_IO_FORBIDDEN = re.compile(
    r"#include <(sys/(?!uio\.h)|netinet/|arpa/|linux/|poll\.h|unistd\.h|thread|mutex|condition_variable)"
    r"|_clock::now|\bgetenv\b|\brandom_device\b|\bclock_gettime\b"
)

# gRPC and its generated messages are the bootstrap's business.
GRPC_FOLDERS = ["transport/"]
GRPC = re.compile(r'#include ["<](grpcpp/|grpc/|google/protobuf/|.*\.pb\.h)')

# Who never sees an ibv_ name.
NO_VERBS_FOLDERS = ["runtime/", "collectives/", "examples/"]
VERBS_NAME = re.compile(r"\bibv_\w+|\bIBV_\w+|#include <(infiniband|rdma)/")

# Where a thread may sleep: path -> why it hides no race.
SLEEPS_ALLOWED = {
    "verbs/soft_nic/link/udp_port_share.cc": "joining polls a name that another process holds or a port that its"
    " owner is closing; neither can be waited for; random back-off, bounded by the join timeout",
    "collectives/executor/domain_transport.cc": "after a failure that another rank's death may explain, looks every"
    " millisecond for half a second whether the news of it has come; a failed communicator has nothing better to do",
    "transport/message_test.cc": "lets the peer leave first, which is the case of interest; the test holds in either order",
    "transport/bootstrap/server.cc": "a server that is going away looks every few milliseconds whether the other ranks"
    " have left, up to its caller's timeout; nothing depends on when it notices",
    "verbs/soft_nic/device/progress_test.cc": "polls so seldom that the polls alone would be no sign; late ones are no"
    " failure",
    "verbs/soft_nic/device/verbs_benchmark.cc": "measures what an idle device uses meanwhile",
}
SLEEP = re.compile(r"\b(sleep_for|sleep_until|usleep|nanosleep|SleepFor)\s*\(|(?<!\w)sleep\s*\(")

# Marks of unfinished work, and paths of somebody's machine; spelt so that this file has none.
MARKS = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
MACHINE_PATHS = re.compile(r"(?<![\w.])/(work|farm|tmp/wt|root|home/\w+)/")

# Files that are other people's or measured data.
DATA_FOLDERS = ("tests/golden/rxe-6.1/", "tests/fuzz/corpus/")


def tracked_files():
    """The tree's files: git's, or in a tree without git all but build folders."""
    git = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    if (ROOT / ".git").exists():
        listed = subprocess.run(git, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    else:
        listed = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*")]
        listed = [name for name in listed if not name.startswith(("build", ".cache/"))]
    names = [name for name in listed if name and (ROOT / name).is_file()]
    return sorted(name for name in names if not name.startswith(DATA_FOLDERS))


FILES = tracked_files()
CODE = [name for name in FILES if name.endswith((".h", ".cc", ".inc"))]
TEXTS = {}
for _name in FILES:
    try:
        TEXTS[_name] = (ROOT / _name).read_text()
    except UnicodeDecodeError:
        pass


def is_test(name):
    return name.startswith("tests/") or re.search(r"_(test|benchmark|test_support|testing)\.(cc|h)$", name) is not None


def strip_comments(text):
    """`text` with comments blanked; lines keep their numbers."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|("(?:\\.|[^"\\\n])*")', re.DOTALL)
    return pattern.sub(lambda m: m.group(1) or "\n" * m.group(0).count("\n"), text)


def lines_with(pattern, text):
    return [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if pattern.search(line)]


def includes(name):
    return re.findall(r'^\s*#\s*include\s+"([^"]+)"', TEXTS[name], re.MULTILINE)


class TidyTest(unittest.TestCase):
    def report(self, rule, found):
        if found:
            self.fail(f"{rule}:\n  " + "\n  ".join(found))

    def test_floors_include_downward_only(self):
        found = []
        for name in CODE:
            floor = name.split("/")[0]
            if floor not in FLOORS:
                continue
            above = FLOORS[FLOORS.index(floor) + 1 :]
            if floor == "cli":
                above = ["examples"]
            for target in includes(name):
                top = target.split("/")[0]
                is_ours = is_test(name) or "/testing/" in name  # testing/: fixtures, linked by tests only
                if top in above or ((top == "tests" or "/testing/" in target) and not is_ours):
                    found.append(f"{name} includes {target}")
        self.report("a floor includes only itself and what is below it; only tests include tests/ and testing/", found)

    def test_soft_nic_layers(self):
        found = []
        for name in CODE:
            if name.startswith(SOFT_NIC) and not is_test(name):
                folder = name[len(SOFT_NIC) :].split("/")[0]
                allowed = SOFT_NIC_MAY_INCLUDE.get(folder)
                if allowed is None:
                    found.append(f"{name}: unknown folder; give it a line in SOFT_NIC_MAY_INCLUDE")
                    continue
                for target in includes(name):
                    if target.split("/")[0] in FLOORS and not target.startswith(tuple(allowed)):
                        found.append(f"{name} includes {target}")
            elif name.startswith("verbs/") and not is_test(name):
                found += [f"{name} includes {t}" for t in includes(name) if t.startswith(SOFT_NIC)]
        self.report("soft NIC: device -> engine, link -> wire; the rest of verbs/ sees only verbs/provider.h", found)

    def test_engine_and_codec_are_sans_io(self):
        found = []
        for name in CODE:
            if name.startswith(tuple(SANS_IO_FOLDERS)) and not is_test(name):
                for number, line in lines_with(SANS_IO_FORBIDDEN, strip_comments(TEXTS[name])):
                    found.append(f"{name}:{number}: {line}")
        self.report("wire/ and engine/ get packets, time and randomness passed in", found)

    def test_grpc_stays_in_transport(self):
        found = []
        for name in CODE:
            if name.startswith(tuple(GRPC_FOLDERS)) or is_test(name):
                continue
            found += [f"{name}:{number}: {line}" for number, line in lines_with(GRPC, TEXTS[name])]
        self.report("gRPC and protobuf headers only under " + ", ".join(GRPC_FOLDERS), found)

    def test_no_grpc_in_transports_public_headers(self):
        found = []
        for name in CODE:
            if name.startswith("transport/") and name.endswith(".h") and not is_test(name):
                public = any(name in includes(other) for other in CODE if not other.startswith("transport/"))
                if public:
                    found += [f"{name}:{number}: {line}" for number, line in lines_with(GRPC, TEXTS[name])]
        self.report("headers that other floors include do not drag gRPC in", found)

    def test_verbs_names_stay_below_runtime(self):
        found = []
        for name in CODE:
            if name.startswith(tuple(NO_VERBS_FOLDERS)):
                text = strip_comments(TEXTS[name])
                found += [f"{name}:{number}: {line}" for number, line in lines_with(VERBS_NAME, text)]
        self.report("no ibv_ name in " + ", ".join(NO_VERBS_FOLDERS), found)

    def test_length(self):
        counts = {name: TEXTS[name].count("\n") for name in CODE}
        counts |= {n: t.count("\n") for n, t in TEXTS.items() if n.startswith("scripts/") or n.endswith(".py")}
        found = [f"{name}: {count} lines" for name, count in counts.items() if count > LINES_MAX]
        self.report(f"at most {LINES_MAX} lines a file: is it still one idea?", found)

    def test_headers_open_with_their_purpose(self):
        found = []
        for name in CODE:
            if name.endswith(".h"):
                text = TEXTS[name]
                if not text.startswith("//"):
                    found.append(f"{name}: no comment at the top")
                if "\n#pragma once\n" not in text:
                    found.append(f"{name}: no #pragma once")
        self.report("a header starts with what it is, and has #pragma once", found)

    def test_no_marks_of_unfinished_work(self):
        found = []
        for name, text in TEXTS.items():
            found += [f"{name}:{number}: {line}" for number, line in lines_with(MARKS, text)]
        self.report("finish it, or open an issue", found)

    def test_no_machine_paths(self):
        found = []
        for name, text in TEXTS.items():
            found += [f"{name}:{number}: {line}" for number, line in lines_with(MACHINE_PATHS, text)]
        self.report("paths of one machine", found)

    def test_sleeps_are_explained(self):
        found = []
        used = set()
        for name in CODE:
            lines = lines_with(SLEEP, strip_comments(TEXTS[name]))
            if name in SLEEPS_ALLOWED:
                used.add(name) if lines else None
            else:
                found += [f"{name}:{number}: {line}" for number, line in lines]
        found += [f"{name}: allowed to sleep, but does not" for name in SLEEPS_ALLOWED.keys() - used]
        self.report("wait for the event, not for a while (or give the reason in SLEEPS_ALLOWED)", found)

    def test_no_asserts_on_what_came_off_the_wire(self):
        found = []
        for name in CODE:
            if name.startswith("verbs/soft_nic/wire/") and not is_test(name):
                text = strip_comments(TEXTS[name])
                found += [f"{name}:{number}: {line}" for number, line in lines_with(re.compile(r"\bassert\s*\("), text)]
        self.report("wire/ says why it refused; it never asserts", found)

    def test_every_source_is_compiled(self):
        entries = json.loads((BUILD / "compile_commands.json").read_text())
        compiled = {pathlib.Path(entry["file"]).resolve() for entry in entries}
        # The outside project of tests/install builds itself; what runs on other libraries is built where they are.
        elsewhere = ("tests/install/", "scripts/compare/")
        expected = [name for name in CODE if name.endswith(".cc") and not name.startswith(elsewhere)]
        found = [name for name in expected if ROOT / name not in compiled]
        self.report("no CMakeLists.txt compiles these", found)

    def test_every_folder_of_code_has_a_readme(self):
        folders = {pathlib.PurePath(name).parent for name in CODE}
        folders |= {pathlib.PurePath(name).parent for name in FILES if name.startswith(("scripts/", "docs/"))}

        def explained(folder):
            # Below a floor or a kind of test, the folder above may speak for it.
            above = [folder] if len(folder.parts) == 1 else [folder, folder.parent]
            return any((ROOT / each / "README.md").is_file() for each in above)

        found = sorted(str(folder) for folder in folders if not explained(folder))
        self.report("a README.md in the folder, or the one above it, says what lives here", found)

    def test_links_in_documents_lead_somewhere(self):
        found = []
        for name, text in TEXTS.items():
            if not name.endswith(".md"):
                continue
            for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
                if "://" not in target and not (ROOT / name).parent.joinpath(target).exists():
                    found.append(f"{name} links to {target}")
        # Comments and documents also name pages of docs/ in full.
        for name, text in TEXTS.items():
            for target in re.findall(r"(?<![\w/])docs/[\w/.-]+\.md", text):
                if not (ROOT / target).exists():
                    found.append(f"{name} names {target}")
        for page in (ROOT / "docs/decisions").glob("0*.md"):
            if page.name not in TEXTS["docs/decisions/README.md"]:
                found.append(f"docs/decisions/README.md does not list {page.name}")
        self.report("broken links", found)

    def test_environment_variables_are_documented(self):
        documented = set(re.findall(r"\bSUMAC_[A-Z0-9_]+", TEXTS.get("docs/environment.md", "")))
        found = []
        for name in CODE:
            if is_test(name):
                continue
            for variable in re.findall(r'"(SUMAC_[A-Z0-9_]+)"', TEXTS[name]):
                if variable not in documented:
                    found.append(f"{name}: {variable}")
        self.report("docs/environment.md lists every SUMAC_ variable that a program reads", found)

    def test_scripts_answer_help(self):
        found = []
        for name in FILES:
            path = ROOT / name
            if name.startswith("scripts/") and name.count("/") == 1 and path.suffix == "":
                if not path.stat().st_mode & 0o100:
                    found.append(f"{name} is not executable")
                    continue
                done = subprocess.run([path, "--help"], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30)
                if done.returncode != 0 or len(done.stdout) < 40:
                    found.append(f"{name} --help: exit code {done.returncode}")
        self.report("every script explains itself", found)


if __name__ == "__main__":
    if "--build" not in sys.argv:
        sys.exit(__doc__)
    at = sys.argv.index("--build")
    BUILD = pathlib.Path(sys.argv[at + 1]).resolve()
    del sys.argv[at : at + 2]
    unittest.main(verbosity=1)
