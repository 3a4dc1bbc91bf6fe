#!/usr/bin/env python3
"""Writes what makes a shared library stand in for libibverbs.so.1: every symbol, under every version.

  generate_symbols.py REAL_LIBRARY ASSEMBLER_OUT VERSION_SCRIPT_OUT OBJECT...

A symbol of the real library that one of the OBJECTs defines is exported from there, under its default version; all
others, and other versions of the same name, become jumps through a table that real_library.cc fills.
"""
import re
import subprocess
import sys

# Public functions that look into no object of a device. Any other that the OBJECTs lack would crash on ours.
PURE = set("""
ibv_copy_ah_attr_from_kern ibv_copy_path_rec_from_kern ibv_copy_path_rec_to_kern ibv_copy_qp_attr_from_kern
ibv_dofork_range ibv_dontfork_range ibv_fork_init ibv_is_fork_initialized
ibv_event_type_str ibv_node_type_str ibv_port_state_str ibv_wc_status_str ibv_rate_to_mbps ibv_rate_to_mult
ibv_get_sysfs_path ibv_read_sysfs_file ibv_read_ibdev_sysfs_file
ibv_unimport_dm ibv_unimport_mr ibv_unimport_pd
""".split())

JUMPS = {
    "x86_64": "  jmp *sumac_passed_on_target+{offset}(%rip)",
    "aarch64": "  adrp x16, sumac_passed_on_target+{offset}\n"
               "  ldr x16, [x16, #:lo12:sumac_passed_on_target+{offset}]\n  br x16",
}


def nm(*arguments):
    return subprocess.run(["nm", *arguments], check=True, capture_output=True, text=True).stdout.splitlines()


def exported(library):
    """(name, version, is it the default one, is it data) of each symbol; the version nodes in order."""
    symbols, nodes = [], []
    for line in nm("-D", "--defined-only", "--with-symbol-versions", library):
        _, kind, name = line.split()
        if kind == "A":
            nodes.append(name)
            continue
        match = re.fullmatch(r"(\w+)(@@?)(\w[\w.]*)", name)
        if match:
            symbols.append((match[1], match[3], match[2] == "@@", kind not in "TtWi"))
    return symbols, nodes


def node_key(node):
    return [int(part) if part.isdigit() else 10**6 for part in re.split(r"[._]", node)[1:]]


def machine(library):
    header = subprocess.run(["readelf", "-h", library], check=True, capture_output=True, text=True).stdout
    for name, words in (("x86_64", "X86-64"), ("aarch64", "AArch64")):
        if words in header:
            return name
    sys.exit(f"{library}: the interposer knows x86_64 and aarch64 only")


def main():
    library, assembler, script, *objects = sys.argv[1:]
    symbols, nodes = exported(library)
    ours = {line.split()[-1] for path in objects for line in nm("--defined-only", "--extern-only", path) if line}
    jump = JUMPS[machine(library)]
    text, table, public = [], [], {node: [] for node in nodes}
    for name, version, default, is_data in sorted(symbols):
        if default and name in ours:
            public[version].append(name)
            continue
        if is_data:
            sys.exit(f"{library}: {name} is data, which can't be passed on: define it in real_library.cc")
        if default and name.startswith("ibv_") and not name.startswith("ibv_cmd_") and name not in PURE:
            sys.exit(f"{library}: {name}() would be passed on although it may be called for a soft NIC: define it")
        index = len(table)
        stub = f"sumac_stub_{index}"
        table.append((name, version))
        text += [f".globl {stub}", f".type {stub}, %function", f"{stub}:",
                 jump.format(offset=8 * index), f".symver {stub}, {name}{'@@' if default else '@'}{version}"]
    rows = "\n".join(f"  .quad .Lname{i}, .Lversion{i}" for i in range(len(table)))
    strings = "\n".join(f'.Lname{i}: .string "{n}"\n.Lversion{i}: .string "{v}"' for i, (n, v) in enumerate(table))
    with open(assembler, "w") as out:
        out.write(f""".text
{chr(10).join(text)}
.section .rodata.str, "aMS", %progbits, 1
{strings}
.section .data.rel.ro, "aw"
.balign 8
.globl sumac_passed_on
sumac_passed_on:
{rows}
.globl sumac_passed_on_count
sumac_passed_on_count: .quad {len(table)}
.bss
.balign 8
.globl sumac_passed_on_target
sumac_passed_on_target: .skip {8 * len(table)}
.section .note.GNU-stack, "", %progbits
""")
    with open(script, "w") as out:
        before = ""
        for node in sorted(nodes, key=node_key):
            names = "".join(f" {name};" for name in public[node])
            out.write(f"{node} {{{' global:' + names if names else ''} }}{before};\n")
            before = " " + node
        # In a node of its own: `local` would hide the jumps of its node. Global: what our library of files looks for.
        out.write("SUMAC { global: sumac_rdma_cm_*; sumac_soft_port_counter; local: *; };\n")


main()
