"""A result as text and as Markdown. Pure, but for writing into files."""

import datetime
import pathlib
import re

import figures
import plot
import quiet

BEGIN, END = "<!-- compare_peers: begin -->", "<!-- compare_peers: end -->"


def describe_machine(result):
    machine = result["machine"]
    versions = "; ".join(f"{name} {version}" for name, version in result.get("versions", {}).items())
    return f"{machine['cpu_model']}, {machine['cpus']} CPUs, {machine['kernel']}. {versions}".strip()


def describe_rounds(row, name, indices):
    """Of which rounds a table is."""
    stamps = [row["rounds"][index] for index in indices]
    distances = [stamp[name] for stamp in stamps for name in ("core_one_way_ns", "core_one_way_ns_after") if stamp[name] is not None]
    distance = f"{min(distances):.0f}-{max(distances):.0f} ns" if distances else "not measured"
    changing = ", changing meanwhile" if name == "mixed" else ""
    busy = max(stamp.get("others_busy", 0) for stamp in stamps)
    disturbed = f", others busy up to {busy:.0%}" if busy > quiet.QUIET_SHARE else ""
    return f"{len(indices)} of {len(row['rounds'])} rounds, core to core {distance}{changing}{disturbed}"


def as_text(cells):
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths)) for line in cells)


def as_markdown(cells):
    heading, *lines = cells
    return "\n".join("| " + " | ".join(line) + " |" for line in [heading, ["---", *["---:"] * (len(heading) - 1)], *lines])


def row_tables(row, draw):
    """A table for each core distance that there was, the commonest first; mixed rounds only where there are no others."""
    parts = []
    classes = figures.rounds_by_class(row)
    for name, indices in classes.items():
        cells = figures.table(row, indices)
        if len(cells[0]) > 1 and (name != "mixed" or len(classes) == 1):
            parts += [f"{row['title']} ({describe_rounds(row, name, indices)}):", draw(cells)]
    return parts


def body(result, draw):
    parts = [part for row in result["rows"] for part in row_tables(row, draw)]
    if result["skipped"]:
        parts.append("Not measured, or not in every round:")
        parts.append("\n".join(f"- {name}: {reason}" for name, reason in result["skipped"].items()))
    return "\n\n".join(parts)


HOW_TO_READ = ("A figure is the median of the rounds. A ratio says how many times as fast as the other Sumac is (less than 1: slower): "
               "the median of the rounds' own ratios, in brackets the least and the greatest.")


def text(result):
    return f"{describe_machine(result)}\n{HOW_TO_READ}\n\n{body(result, as_text)}\n"


def markdown(result, svg_name=None, today=None):
    today = today or datetime.date.today().isoformat()
    lines = [f"Measured {today} by `scripts/compare_peers` on {describe_machine(result)}", "", HOW_TO_READ, ""]
    if svg_name:
        lines += [f"![Sumac beside other libraries]({svg_name})", ""]
    return "\n".join(lines) + "\n" + body(result, as_markdown) + "\n"


def write_markdown(path, result, svg_name=None):
    """Between the marks of a file that has them, else as the whole file."""
    path = pathlib.Path(path)
    new = f"{BEGIN}\n{markdown(result, svg_name)}{END}"
    old = path.read_text() if path.exists() else ""
    if BEGIN in old and END in old:
        new = re.sub(re.escape(BEGIN) + ".*?" + re.escape(END), lambda _: new, old, count=1, flags=re.DOTALL)
    else:
        new += "\n"
    path.write_text(new)


def write_svg(path, result):
    pathlib.Path(path).write_text(plot.svg(result))
