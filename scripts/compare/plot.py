"""A plot of a result as SVG: a panel a row, readable on light and dark grounds. Pure."""

import math
from xml.sax.saxutils import escape

from figures import rounds_by_class, summarize, text_of_size, text_of_value

WIDTH, PANEL, LEFT, RIGHT, TOP, BOTTOM, LEGEND_LINE = 760, 240, 64, 16, 46, 30, 16
BAR_LEFT, BAR_RIGHT, BAR_LINE = 200, 80, 24
# Told apart by people who see colours differently, on white and on black (Okabe and Ito).
COLOURS = ["#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #24292f; }
  .title { font-weight: 600; }
  .grid { stroke: #8c959f; stroke-opacity: .35; }
  .range { stroke: #24292f; }
  @media (prefers-color-scheme: dark) { text { fill: #e6edf3; } .grid { stroke: #8b949e; } .range { stroke: #e6edf3; } }
"""


def ticks(least, most):
    """Powers of ten around the values."""
    low, high = math.floor(math.log10(least)), math.ceil(math.log10(most))
    return [10.0**power for power in range(low, max(high, low + 1) + 1)]


def bars(row, top):
    """A row of one size: a bar a contender, from nothing."""
    rounds = next(iter(rounds_by_class(row).values()))
    size = row["sizes"][0]
    found = [(name, summarize([sizes[size][index] for index in rounds])) for name, sizes in row["values"].items() if size in sizes]
    found = [(name, summary) for name, summary in found if summary is not None]
    if not found:
        return [], 0
    most = max(summary.most for _, summary in found)
    room = WIDTH - BAR_LEFT - BAR_RIGHT
    out = [title(row, top)]
    for number, (name, summary) in enumerate(found):
        y = top + 28 + BAR_LINE * number
        colour = COLOURS[number % len(COLOURS)]
        out.append(f'<text x="{BAR_LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>')
        out.append(f'<rect x="{BAR_LEFT}" y="{y}" width="{summary.median / most * room:.1f}" height="16" fill="{colour}"/>')
        out.append(f'<line class="range" x1="{BAR_LEFT + summary.least / most * room:.1f}" x2="{BAR_LEFT + summary.most / most * room:.1f}" '
                   f'y1="{y + 8}" y2="{y + 8}"/>')
        out.append(f'<text x="{BAR_LEFT + summary.most / most * room + 8:.1f}" y="{y + 13}">{text_of_value(summary.median)}</text>')
    return out, 28 + BAR_LINE * len(found) + 8


def title(row, top):
    better = "less is better" if row["unit"] == "us" else "more is better"
    return f'<text class="title" x="{LEFT}" y="{top + 16}">{escape(row["title"])}, {escape(row["unit"])} ({better})</text>'


def lines(row, top):
    """A row of several sizes: a line a contender, both axes logarithmic."""
    rounds = next(iter(rounds_by_class(row).values()))
    series = []
    for name, sizes in row["values"].items():
        points = [(size, summarize([sizes[size][index] for index in rounds])) for size in row["sizes"] if size in sizes]
        points = [(size, summary) for size, summary in points if summary is not None and summary.median > 0]
        if points:
            series.append((name, points))
    if not series:
        return [], 0
    marks = ticks(min(s.least for _, points in series for _, s in points if s.least > 0),
                  max(s.most for _, points in series for _, s in points))
    low, high = math.log10(marks[0]), math.log10(marks[-1])
    legend_top = top + TOP - 16
    plot_top, plot_bottom = top + TOP + 4, top + PANEL - BOTTOM
    width = WIDTH - LEFT - RIGHT

    def x(size):
        step = width / max(len(row["sizes"]), 1)
        return LEFT + step * (row["sizes"].index(size) + 0.5)

    def y(value):
        return plot_bottom - (math.log10(value) - low) / (high - low) * (plot_bottom - plot_top)

    out = [title(row, top)]
    for mark in marks:
        out.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(mark):.1f}" y2="{y(mark):.1f}"/>')
        out.append(f'<text x="{LEFT - 6}" y="{y(mark) + 4:.1f}" text-anchor="end">{text_of_value(mark)}</text>')
    for size in row["sizes"]:
        out.append(f'<text x="{x(size):.1f}" y="{plot_bottom + 18}" text-anchor="middle">{text_of_size(size)}</text>')
    at = LEFT
    for number, (name, points) in enumerate(series):
        colour = COLOURS[number % len(COLOURS)]
        place = " ".join(f"{x(size):.1f},{y(summary.median):.1f}" for size, summary in points)
        thickness = 3 if number == 0 else 1.5
        out.append(f'<polyline points="{place}" fill="none" stroke="{colour}" stroke-width="{thickness}"/>')
        for size, summary in points:
            out.append(f'<line x1="{x(size):.1f}" x2="{x(size):.1f}" y1="{y(max(summary.least, marks[0])):.1f}" '
                       f'y2="{y(summary.most):.1f}" stroke="{colour}" stroke-opacity=".6"/>')
            out.append(f'<circle cx="{x(size):.1f}" cy="{y(summary.median):.1f}" r="3.5" fill="{colour}"/>')
        out.append(f'<circle cx="{at + 5}" cy="{legend_top + LEGEND_LINE - 8}" r="4" fill="{colour}"/>')
        out.append(f'<text x="{at + 14}" y="{legend_top + LEGEND_LINE - 4}">{escape(name)}</text>')
        at += 26 + int(6.6 * len(name))
    return out, PANEL


def svg(result):
    body = []
    top = 0
    for row in result["rows"]:
        drawn, height = (lines if len(row["sizes"]) > 1 else bars)(row, top)
        if drawn:
            body += drawn
            top += height + 12
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {max(top, 1)}" role="img">',
                      "<title>Sumac beside other libraries</title>", f"<style>{STYLE}</style>", *body, "</svg>", ""])
