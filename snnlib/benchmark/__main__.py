"""snnlib and its peers side by side, each row in a process of its own unless asked otherwise.

A peer that is missing or fails has a row that says so. Before a backend of snnlib's is measured, its outputs
and gradients are compared with the reference's; where they differ, or the comparison fails, its row shows no
speed, and the exit code is 1. Times are right on a machine that does nothing else; a row that was disturbed
says so.

    python -m snnlib.benchmark --workloads=lif,linear_lif
    python -m snnlib.benchmark --workloads=recurrent --batch_size=8 --features=64
    python -m snnlib.benchmark --one_process --workloads=recurrent --features=256 --batch_size=128
"""

import json
import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from absl import flags

from snnlib.benchmark import child, report
from snnlib.benchmark.gate import smaller
from snnlib.benchmark.workloads import PEERS, SNNLIB, WORKLOADS, Spec, Table, tables
from snnlib.task import _command, _error, _files, _flags, _train
from snnlib.task._flags import at_least, between, define
from snnlib.task._launch import process_seconds

__all__ = ["FLAGS", "main"]

FLAGS = _flags.shared(device="auto", seed=0, output_dir="runs", plot=True)
_CHOICES = {"workloads": tuple(WORKLOADS), "peers": ("snnlib", *PEERS)}
# fmt: off
define(FLAGS, {
    "workloads": (list(WORKLOADS), f"Which, with commas between: {', '.join(_CHOICES['workloads'])}."),
    "peers": (["snnlib", *(peer for peer in PEERS if peer not in SNNLIB)],
        f"Which, with commas between: {', '.join(_CHOICES['peers'])}."),
    "seq_length": (None, "Time steps; each workload's own if not given.", at_least(1)),
    "batch_size": (None, "Sequences side by side; each workload's own if not given.", at_least(1)),
    "features": (None,
        "Neurons of a layer, in conv of the linear one; each workload's own if not given.", at_least(1)),
    "repeats": (10, "Passes of a row at least; three where they take more than a minute.", at_least(1)),
    "warmup": (2, "Passes before those that are timed.", at_least(1)),
    "threads": (None, "Threads of torch and of snnlib; as many as torch takes if not given.", between(1, 1024)),
    "timeout": (900, "Seconds after which a row is given up.", at_least(1)),
    "keep_memory": (False,
        "Every row's process, peers too, keeps the memory that it frees, as tasks do "
        "(snnlib.engine.keep_memory)."),
    "one_process": (False,
        "Rows are timed in this process, one after the other and without --timeout: where a process takes long "
        "to start, on a GPU say."),
    "seconds": (5.0, "Seconds of a row's passes at least.", at_least(0.0)),
})
# fmt: on
for _name, _choices in _CHOICES.items():
    flags.register_validator(
        _name,
        lambda given, choices=_choices: bool(given) and set(given) <= set(choices),
        f"must be some of {', '.join(_choices)}",
        flag_values=FLAGS,
    )
flags.register_validator("seconds", math.isfinite, "must be finite", flag_values=FLAGS)

Result = tuple[Table, list[dict[str, Any]]]
"""A table and the figures of its rows."""

_DISTURBED = 0.15
"""Cores that others may keep busy while a row runs before the row says so."""


def main() -> int:
    """Run what the flags ask for; the exit code."""
    _command.parse(FLAGS, __doc__ or "")
    if FLAGS.plot:
        _need_matplotlib()
    # a row that is running ends with this process
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        device = _train.device(FLAGS).type
        folder = _files.new_folder(Path(FLAGS.output_dir) / "benchmark")
        results = _measure_all(folder, device)
        if FLAGS.plot:
            report.draw(folder / "benchmark.png", results)
    except KeyboardInterrupt:
        print("interrupted; the tables that were done are kept", file=sys.stderr)
        return 130
    except _error.RunError as error:
        _flags.fail(str(error))
    except OSError as error:
        _flags.fail(f"{error.strerror or error}: {error.filename or 'writing the run'}")
    figures = _summary(results)
    print("result: " + json.dumps({**figures, "run": str(folder)}), flush=True)
    return 1 if figures["refused"] else 0


def _summary(results: list[Result]) -> dict[str, Any]:
    """The figures of the result line."""
    rows = [(table.title, row) for table, found in results for row in found]
    return {
        "task": "benchmark",
        "tables": len(results),
        "rows": len(rows),
        "without_figures": sum("reason" in row for _, row in rows),
        "refused": [f"{title}: {row['row']}" for title, row in rows if row.get("refused")],
        "disturbed": sum(row.get("disturbed", False) for _, row in rows),
        "seconds": round(process_seconds(), 1),
        "seed": FLAGS.seed,
    }


def _need_matplotlib() -> None:
    try:
        import matplotlib
    except ImportError:
        _flags.fail("the figure needs matplotlib: pip install 'snnlib[benchmark]' (or --noplot)")
    matplotlib.use("Agg")


def _measure_all(folder: Path, device: str) -> list[Result]:
    """Run every table, and write what there is after each."""
    names = ("threads", "seed", "repeats", "warmup", "seconds", "keep_memory")
    common = {"device": device, **{name: FLAGS[name].value for name in names}}
    size = (FLAGS.seq_length, FLAGS.batch_size, FLAGS.features)
    machine = report.machine(device, FLAGS.threads)
    gates: dict[Spec, dict[str, Any]] = {}
    results: list[Result] = []
    for table in tables(FLAGS.workloads, FLAGS.peers, size, common):
        rows = []
        for spec in table.rows:
            print(f"{table.title}: {spec.row}", file=sys.stderr, flush=True)
            rows.append({"row": spec.row, "base": spec.base, **_row(spec, gates)})
        report.compare(table, rows)
        results.append((table, rows))
        print(report.text(table, rows), end="\n\n", flush=True)
        _write(folder, machine, results)
    return results


def _write(folder: Path, machine: dict[str, Any], results: list[Result]) -> None:
    found = [
        {
            "workload": table.workload,
            "title": table.title,
            "measure": table.measure,
            "size": dict(zip("TBN", table.rows[0][5:8], strict=True)) if table.rows else {},
            "base": table.base,
            "notes": table.notes,
            "rows": rows,
        }
        for table, rows in results
    ]
    whole = {**machine, "seed": FLAGS.seed, "command": sys.argv[1:], "tables": found}
    _files.write(folder / "benchmark.json", (json.dumps(whole, indent=1) + "\n").encode())
    words = [f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads of torch"]
    words += [f"{name} {version}" for name, version in machine["versions"].items() if version]
    parts = [", ".join(words) + "\n", *(report.markdown(*result) for result in results)]
    _files.write(folder / "benchmark.md", "\n".join(parts).encode())


def _row(spec: Spec, gates: dict[Spec, dict[str, Any]]) -> dict[str, Any]:
    """The figures of a row, or its reason; a backend of snnlib's passes the gate first."""
    checked: dict[str, Any] = {}
    if spec.backend not in ("", "reference"):
        key = smaller(spec)._replace(row=spec.peer, base="")
        if key not in gates:
            gates[key] = _child(key)
        checked = gates[key]
        if checked.get("failed"):
            reason = f"not compared with the reference, no speed: {checked['reason']}"
            return {"reason": reason, "refused": True}
        if checked.get("reason"):
            return checked
        if checked["refused"]:
            reason = f"differs from the reference, no speed: {checked['refused']}"
            return {"reason": reason, "refused": True, "flips": checked["flips"]}
    found = _start(spec) if spec.measure == "start" else _child(spec)
    return {**found, **{name: checked[name] for name in ("flips", "outputs") if name in checked}}


def _start(spec: Spec) -> dict[str, Any]:
    """Two processes after each other, of which the first finds empty caches."""
    with tempfile.TemporaryDirectory() as folder:
        caches = ("XDG_CACHE_HOME", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
        environment = {**os.environ, **dict.fromkeys(caches, folder)}
        found = _child(spec, environment)
        again = found if found.get("reason") else _child(spec, environment)
    if again.get("reason"):
        return again
    return {**found, **{f"cached_{name}": again[name] for name in ("first_s", "first_forward_s", "given_s")}}


def _child(spec: Spec, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """Run one row; what it says, or the reason why it says nothing."""
    before = _busy()
    here = FLAGS.one_process and spec.measure in ("time", "gate")
    found = child.main(spec) if here else _process(spec, environment)
    if spec.measure not in ("time", "start") or "reason" in found:
        return found
    others = _others(before, _busy())
    return {**found, "others": others, "disturbed": others > _DISTURBED}


def _process(spec: Spec, environment: dict[str, str] | None) -> dict[str, Any]:
    command = [sys.executable, "-m", "snnlib.benchmark.child", json.dumps(spec._asdict())]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=FLAGS.timeout)
    except subprocess.TimeoutExpired:
        return {"reason": f"no answer in {FLAGS.timeout} s", "failed": True}
    lines = [line for line in done.stdout.splitlines() if line.startswith(child.PREFIX)]
    if not lines:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"reason": f"its process ended with code {done.returncode}: {said}", "failed": True}
    found: dict[str, Any] = json.loads(lines[-1].removeprefix(child.PREFIX))
    return found


def _busy() -> tuple[float, float, float]:
    """The clock, the seconds that all cores together worked, and those among them for this run."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    own = sum(usage.ru_utime + usage.ru_stime for usage in used)
    try:
        ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except OSError:  # not Linux: nobody can tell, so nobody disturbs
        return time.monotonic(), own, own
    user, nice, system, _idle, _waiting, *rest = ticks
    return time.monotonic(), (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK"), own


def _others(before: tuple[float, float, float], after: tuple[float, float, float]) -> float:
    """Cores that other processes kept busy in between, on average."""
    elapsed, worked, own = (b - a for a, b in zip(before, after, strict=True))
    return max(0.0, (worked - own) / elapsed)


if __name__ == "__main__":
    sys.exit(main())
