"""Figures of rounds, compared like with like. Pure: the tests run it on canned results.

A result is {"machine": {...}, "rows": [ROW], "skipped": {contender: reason}}. A ROW is {"name", "title", "unit": "us" (less
is better) or "GB/s" (more is), "sizes", "rounds": [{"core_one_way_ns": ..., "core_one_way_ns_after": ...}], "values":
{contender: {size: [a value or None a round]}}}; the first contender is ours.
"""

import dataclasses
import statistics

FAR_NS = 100  # CPUs of one core complex are nearer (40-75 seen), those of two, or of one large mesh, further (118-284)


def distance_class(one_way_ns):
    if one_way_ns is None:
        return "unknown"
    return "near" if one_way_ns < FAR_NS else "far"


def rounds_by_class(row):
    """{class: indices of rounds}, the class with the most rounds first; last "mixed": it changed during the round."""
    found = {}
    for index, stamp in enumerate(row["rounds"]):
        first, last = stamp["core_one_way_ns"], stamp["core_one_way_ns_after"]
        same = distance_class(first) == distance_class(last)
        found.setdefault(distance_class(first) if same else "mixed", []).append(index)
    return dict(sorted(found.items(), key=lambda item: (item[0] == "mixed", -len(item[1]))))


@dataclasses.dataclass
class Summary:
    median: float
    least: float
    most: float
    count: int


def summarize(values):
    values = [value for value in values if value is not None]
    return Summary(statistics.median(values), min(values), max(values), len(values)) if values else None


def ratio(unit, ours, theirs):
    """How many times as fast as theirs ours is."""
    if ours is None or theirs is None or ours <= 0 or theirs <= 0:
        return None
    return theirs / ours if unit == "us" else ours / theirs


def ratios(row, peer, size, rounds):
    """Of each round by itself, so that what slows a round down slows both."""
    values = row["values"]
    ours = values[next(iter(values))][size]
    theirs = values[peer][size]
    found = [ratio(row["unit"], ours[index], theirs[index]) for index in rounds]
    return summarize(found)


def text_of_size(size):
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 1 << shift and size % (1 << shift) == 0:
            return f"{size >> shift} {unit}"
    return f"{size} B"


def text_of_value(value):
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def text_of_ratio(value):
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def table(row, rounds):
    """[heading, line ...], each a list of cells."""
    contenders = [name for name, sizes in row["values"].items() if any(v is not None for vs in sizes.values() for v in vs)]
    ours = next(iter(row["values"]))
    lines = [["size", *[f"{name}, {row['unit']}" for name in contenders],
              *[f"{name} / ours" if row["unit"] == "us" else f"ours / {name}" for name in contenders if name != ours]]]
    for size in row["sizes"]:
        line = [text_of_size(size)]
        for name in contenders:
            summary = summarize([row["values"][name].get(size, [None] * (max(rounds) + 1))[index] for index in rounds])
            line.append(text_of_value(summary.median) if summary else "-")
        for name in contenders:
            if name == ours:
                continue
            of_rounds = ratios(row, name, size, rounds) if size in row["values"][name] and size in row["values"][ours] else None
            line.append(f"{text_of_ratio(of_rounds.median)} ({text_of_ratio(of_rounds.least)} - {text_of_ratio(of_rounds.most)})"
                        if of_rounds else "-")
        lines.append(line)
    return lines
