"""What a run prints and keeps: tables, their Markdown, a figure, and what the machine is."""

import importlib.metadata
import math
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from snnlib.benchmark.workloads import OURS, Table

__all__ = ["compare", "draw", "machine", "markdown", "text"]

_PACKAGES = (
    *("snnlib", "torch", "numpy", "llvmlite", "triton"),
    *("norse", "snntorch", "spikingjelly", "sinabs"),
)

_FAR = 50
"""The ratio of the longest bar to the shortest from which an axis is logarithmic."""

Row = dict[str, Any]

# what a table shows: heading -> the cell of a row
_COLUMNS: dict[str, dict[str, Callable[[Row], str]]] = {
    "time": {
        "forward ms": lambda row: _number(row["forward_ms"]["median"]),
        "backward ms": lambda row: _number(row["backward_ms"]["median"]),
        "both ms": lambda row: _number(row["total_ms"]["median"]),
        "quartiles ms": lambda row: " to ".join(_number(row["total_ms"][q]) for q in ("q1", "q3")),
        "x base": lambda row: _ratio(row, "x_base"),
        "x snnlib": lambda row: _ratio(row, "x_snnlib"),
        "passes": lambda row: str(row["passes"]),
    },
    "memory": {
        "saved": lambda row: f"{row['saved']:.2f}",
        "held": lambda row: f"{row['held']:.2f}",
        "peak": lambda row: f"{row['peak']:.2f}",
        "held MB": lambda row: f"{row['held_mb']:.1f}",
        "peak MB": lambda row: f"{row['peak_mb']:.1f}",
        "x base": lambda row: _ratio(row, "x_base"),
        "x snnlib": lambda row: _ratio(row, "x_snnlib"),
    },
    "start": {
        "before s": lambda row: f"{row['import_s']:.2f}",
        "first call, no cache, s": lambda row: f"{row['first_s']:.2f}",
        "first call, cache, s": lambda row: f"{row['cached_first_s']:.2f}",
        "its forward s": lambda row: f"{row['cached_first_forward_s']:.2f}",
        "first given gradient, cache, s": lambda row: f"{row['cached_given_s']:.2f}",
        "later call s": lambda row: f"{row['later_s']:.3f}",
    },
}

_FIGURE = {
    "time": lambda row: row["total_ms"]["median"],
    "memory": lambda row: row["peak"],
    "start": lambda row: row["first_s"],
}
"""The figure of a row that ratios are formed of."""

_LEGEND = {
    "memory": "Floats a neuron and step: saved by autograd beside input, output and weights; held between "
    "forward and backward, with the output; at the peak, with the output and the input's gradient.",
    "start": "Before the first call: imports, the net and its input. Calls are forward and backward, the first "
    "from a loss, as in training; the next from a gradient that is given, for which torch imports sympy.",
}


def machine(device: str, threads: int | None) -> dict[str, Any]:
    """What the figures were measured on."""
    names = [torch.cuda.get_device_name()] if device == "cuda" else []
    return {
        "device": device,
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        **({"gpu": names[0]} if names else {}),
        "threads": threads or torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


def compare(table: Table, rows: Sequence[Row]) -> None:
    """Add to each row with figures its ratio to its base (``x_base``) and to snnlib's (``x_snnlib``)."""
    figure = _FIGURE[table.measure]
    values = {row["row"]: figure(row) for row in rows if not row.get("reason")}
    for row in rows:
        if row["row"] in values:
            for column, other in (("x_base", row["base"]), ("x_snnlib", OURS)):
                if values.get(other):
                    row[column] = values[row["row"]] / values[other]


def _ratio(row: Row, name: str) -> str:
    return f"{row[name]:.2f}" if name in row else ""


def _number(value: float) -> str:
    """Three digits, or all that stand before the point."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _cells(table: Table, rows: Sequence[Row]) -> list[list[str]]:
    """The heading, then a line for each row; a row without figures has its reason in place of the note."""
    columns = dict(_COLUMNS[table.measure])
    if not any("x_snnlib" in row for row in rows):
        columns.pop("x snnlib", None)
    if any(row.get("rate") is not None for row in rows):
        columns["rate"] = lambda row: "" if row.get("rate") is None else f"{row['rate']:.1%}"
    lines = [["", *columns, "note"]]
    for row in rows:
        if row.get("reason"):
            lines.append([row["row"], *([""] * len(columns)), row["reason"]])
        else:
            lines.append([row["row"], *(cell(row) for cell in columns.values()), _remarks(row)])
    return lines


def _remarks(row: Row) -> str:
    said = [row.get("note", "")]
    if row.get("flips"):
        said.append(f"{row['flips']} of {row['outputs']} spikes flipped in the float32 check")
    if row.get("disturbed"):
        said.append(f"disturbed: others kept {row['others']:.1f} cores busy")
    return "; ".join(part for part in said if part)


def _notes(table: Table) -> list[str]:
    notes = [f"x base: {table.base}.", *table.notes]
    if table.measure in _LEGEND:
        notes.insert(0, _LEGEND[table.measure])
    return notes


def text(table: Table, rows: Sequence[Row]) -> str:
    """The table for a terminal."""
    lines = _cells(table, rows)
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]) - 1)]
    shown = []
    for name, *cells, note in lines:
        middle = "  ".join(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        shown.append(f"{name.ljust(widths[0])}  {middle}  {note}".rstrip())
    return "\n".join([table.title, *shown, *_notes(table)])


def markdown(table: Table, rows: Sequence[Row]) -> str:
    """The same table in Markdown."""
    head, *lines = [[cell.replace("|", "\\|") for cell in line] for line in _cells(table, rows)]
    rule = ["---", *(["---:"] * (len(head) - 2)), "---"]
    body = "\n".join(f"| {' | '.join(line)} |" for line in [head, rule, *lines])
    return f"## {table.title}\n\n{body}\n\n" + "\n".join(f"- {note}" for note in _notes(table)) + "\n"


def draw(path: Path, results: Sequence[tuple[Table, Sequence[Row]]]) -> None:
    """Draw a panel of bars for each table: forward and backward with their quartiles, memory, or the start."""
    from matplotlib import pyplot as plt

    shown = [(table, [row for row in rows if not row.get("reason")]) for table, rows in results]
    shown = [(table, rows) for table, rows in shown if rows]
    heights = [1.2 + 0.32 * len(rows) for _, rows in shown] or [1.0]
    figure, axes = plt.subplots(
        *(max(1, len(shown)), 1),
        figsize=(8, sum(heights)),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for axis, (table, rows) in zip(axes[:, 0], shown, strict=False):
        _panel(axis, table, rows)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _panel(axis: Any, table: Table, rows: Sequence[Row]) -> None:
    bars = {
        "time": {"forward": "forward_ms", "backward": "backward_ms"},
        "memory": {"held": "held", "peak": "peak"},
        "start": {"no cache": "first_s", "cache": "cached_first_s"},
    }[table.measure]
    unit = {"time": "ms", "memory": "floats a neuron and step", "start": "s"}[table.measure]
    for index, (label, key) in enumerate(bars.items()):
        places = [position + (index - 0.5) * 0.4 for position in range(len(rows))]
        values = [row[key] for row in rows]
        spread = None
        if table.measure == "time":
            spread = [[v["median"] - v["q1"] for v in values], [v["q3"] - v["median"] for v in values]]
            values = [v["median"] for v in values]
        axis.barh(places, values, 0.4, xerr=spread, label=label)
    axis.set_yticks(range(len(rows)), [row["row"] for row in rows])
    axis.invert_yaxis()
    axis.set(title=table.title, xlabel=unit)
    lengths = [bar.get_width() for bar in axis.patches]
    if 0 < _FAR * min(lengths) < max(lengths):
        # bars begin at a power of ten, and only such numbers stand at the axis
        axis.set(xscale="log", xlim=(10.0 ** math.floor(math.log10(min(lengths))), None))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter("")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize="small")
