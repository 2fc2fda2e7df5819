"""The benchmark runs as its user starts it, and refuses what it must not measure. No test looks at a speed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from snnlib.benchmark import child, gate, measure, peers, report
from snnlib.benchmark.__main__ import FLAGS
from snnlib.benchmark.cases import build
from snnlib.benchmark.workloads import PEERS, WORKLOADS, Spec, tables
from snnlib.engine import fused
from snnlib.task import _command

ROOT = Path(__file__).parents[2]
TINY = (
    "--seq_length=6",
    "--batch_size=2",
    "--features=8",
    "--repeats=2",
    "--seconds=0",
    "--warmup=1",
    "--threads=1",
)


def spec(**changes: Any) -> Spec:
    """A row of a size that takes no time."""
    row = Spec("snnlib-cpu", "", "layer", "LIF", "snnlib-cpu", seq_length=40, batch_size=3, features=20)
    return row._replace(**changes)


def run(*flags: str, cwd: Path, first: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Start the command; modules in the folder ``first`` are found before all others."""
    path = os.pathsep.join(str(folder) for folder in (first, ROOT) if folder)
    return subprocess.run(
        [sys.executable, "-m", "snnlib.benchmark", *flags],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )


def result(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("result: "), done.stderr
    return json.loads(last.removeprefix("result: "))


def rows(done: subprocess.CompletedProcess[str], cwd: Path) -> dict[str, dict[str, Any]]:
    """What benchmark.json says about the rows of a run's only table."""
    (table,) = json.loads((cwd / result(done)["run"] / "benchmark.json").read_text())["tables"]
    return {row["row"]: row for row in table["rows"]}


def test_a_run_prints_a_table_and_writes_the_same_figures(tmp_path: Path):
    pytest.importorskip("matplotlib")
    done = run(*TINY, "--one_process", "--workloads=lif", "--peers=floor,snnlib-auto", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / result(done)["run"]
    assert sorted(p.name for p in folder.iterdir()) == ["benchmark.json", "benchmark.md", "benchmark.png"]
    assert [p.name for p in tmp_path.iterdir()] == ["runs"]
    found = rows(done, tmp_path)
    assert list(found) == ["copy of the tensor", "snnlib-auto"]
    printed = dict(re.findall(r"^(copy of the tensor|snnlib-\w+) +(.*)$", done.stdout, re.MULTILINE))
    written = dict(
        re.findall(
            r"^\| (copy of the tensor|snnlib-\w+) \| (.*)$", (folder / "benchmark.md").read_text(), re.MULTILINE
        )
    )
    for name, row in found.items():
        assert row["total_ms"]["q1"] <= row["total_ms"]["median"] <= row["total_ms"]["q3"]
        forward = row["forward_ms"]["median"]
        for shown in (printed[name].split()[0], written[name].split(" | ")[0]):
            assert float(shown.replace(",", "")) == pytest.approx(forward, rel=0.02, abs=0.006)
        assert row["x_snnlib"] == row["total_ms"]["median"] / found["snnlib-auto"]["total_ms"]["median"]
    machine = json.loads((folder / "benchmark.json").read_text())
    assert torch.__version__.startswith(machine["versions"]["torch"])
    assert machine["threads"] == 1


def test_rows_without_figures_say_why(tmp_path: Path):
    """A peer that is missing, one whose process dies, a backend that gives other spikes; one row is well."""
    first = tmp_path / "first"
    first.mkdir()
    (first / "norse.py").write_text("raise ModuleNotFoundError(\"No module named 'norse'\")")
    (first / "snntorch.py").write_text("import os; os._exit(7)")
    (first / "sitecustomize.py").write_text(
        "from snnlib.engine import fused\n"
        "right = fused.attempt\n"
        "def attempt(*arguments):\n"
        "    (output, state), reason = right(*arguments)\n"
        "    return (1 - output, state), reason\n"
        "fused.attempt = attempt\n"
    )
    flags = (*TINY, "--workloads=lif", "--peers=floor,snntorch,norse,snnlib-cpu", "--noplot")
    done = run(*flags, cwd=tmp_path, first=first)
    assert done.returncode == 1
    found = rows(done, tmp_path)
    assert list(found) == ["copy of the tensor", "snnlib-cpu", "norse", "snntorch"]
    assert found["copy of the tensor"]["total_ms"]["median"] > 0
    assert found["norse"]["reason"] == "No module named 'norse': pip install 'snnlib[benchmark]'"
    assert "code 7" in found["snntorch"]["reason"]
    assert "differs from the reference, no speed" in found["snnlib-cpu"]["reason"]
    assert "spikes flipped" in found["snnlib-cpu"]["reason"]
    for name in ("snnlib-cpu", "norse", "snntorch"):
        assert found[name]["reason"] in done.stdout
        assert not any(key.endswith("_ms") for key in found[name])
    assert result(done)["refused"] == ["lif, LIF, T=6 B=2 N=8: snnlib-cpu"]
    assert result(done)["without_figures"] == 3


@pytest.mark.parametrize(
    ("failure", "timeout", "words"),
    [
        ("raise RuntimeError('it broke')", 100, "RuntimeError: it broke"),
        ("os.kill(os.getpid(), 9)", 100, "its process ended with code -9"),
        ("time.sleep(600)", 3, "no answer in 3 s"),
    ],
)
def test_a_backend_that_fails_in_the_gate_is_refused(failure: str, timeout: int, words: str, tmp_path: Path):
    first = tmp_path / "first"
    first.mkdir()
    (first / "sitecustomize.py").write_text(
        "import os, time\n"
        "from snnlib.engine import fused\n"
        f"def attempt(*arguments):\n    {failure}\n"
        "fused.attempt = attempt\n"
    )
    flags = (*TINY, "--workloads=lif", "--peers=snnlib-cpu", f"--timeout={timeout}", "--noplot")
    done = run(*flags, cwd=tmp_path, first=first)
    assert done.returncode == 1
    row = rows(done, tmp_path)["snnlib-cpu"]
    assert row["reason"].startswith(f"not compared with the reference, no speed: {words}")
    assert row["reason"] in done.stdout
    assert result(done)["refused"] == ["lif, LIF, T=6 B=2 N=8: snnlib-cpu"]


@pytest.mark.parametrize("net", ["layer", "linear", "conv"])
def test_the_gate_lets_what_is_equal_pass(net: str):
    found = gate.check(gate.smaller(spec(net=net, seq_length=6 if net == "conv" else 40)))
    assert found["refused"] == ""
    assert found["flips"] == 0


@pytest.mark.parametrize("neuron", ["LSNN", "LIFAdEx", "Izhikevich", "own step"])
def test_the_gate_knows_every_neuron(neuron: str):
    assert gate.check(spec(neuron=neuron))["refused"] == ""


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda output, state: (output, state._replace(v=state.v * (1 + 1e-6))), "final state 0"),
        (lambda output, state: (2 * output - output.detach(), state), "gradient of input"),
        (lambda output, state: (output.roll(1, 0), state), "flipped"),
        (lambda output, state: (output * float("nan"), state), "flipped"),
        (lambda output, state: (output[:1], state), "output has shape [1, 3, 20], not [20, 3, 20], in float64"),
        (lambda output, state: (output, state._replace(i=state.i[:1])), "final state 1 has shape [1, 20]"),
    ],
)
def test_the_gate_refuses_what_differs(monkeypatch: pytest.MonkeyPatch, wrong: Any, words: str):
    right = fused.attempt
    monkeypatch.setattr(fused, "attempt", lambda *arguments: (wrong(*right(*arguments)[0]), ""))
    assert words in gate.check(spec())["refused"]


def test_one_flip_in_float32_is_counted_and_not_refused(monkeypatch: pytest.MonkeyPatch):
    right = fused.attempt

    def flip(*arguments: Any) -> Any:
        (output, state), _ = right(*arguments)
        if output.dtype == torch.float32:
            mask = torch.zeros_like(output)
            mask.flatten()[0] = 1.0
            output = output + mask * (1 - 2 * output)
        return (output, state), ""

    monkeypatch.setattr(fused, "attempt", flip)
    found = gate.check(spec(seq_length=64, features=128))
    assert found["refused"] == ""
    assert 1 <= found["flips"] <= 2


def test_what_cannot_run_says_so(monkeypatch: pytest.MonkeyPatch):
    found = child.main(spec(peer="sinabs", net="conv"))
    assert found == {"reason": "the net of this workload is Norse's; nobody else has it"}
    monkeypatch.setattr(fused, "attempt", lambda *_: (None, "it may not"))
    found = child.main(spec(measure="gate"))
    assert found == {"reason": "lif_feed_forward_step cannot be fused: it may not"}


def test_memory_counts_what_autograd_keeps():
    kept = {}
    for peer in ("floor", "snnlib-cpu", "snnlib-reference"):
        found = measure.memory(spec(peer=peer, seq_length=500, batch_size=16, features=64))
        kept[peer] = found["saved"]
        assert found["peak"] >= found["held"] > 0.5
    assert kept["floor"] == 0.0
    assert kept["snnlib-cpu"] == 1.0  # the voltage before the reset
    assert kept["snnlib-reference"] > 1.5


@pytest.mark.parametrize("name", ["memory", "start"])
def test_every_kind_of_table_can_be_shown(name: str, tmp_path: Path):
    pytest.importorskip("matplotlib")
    (table,) = tables([name], ["snnlib-reference", "snnlib-cpu"], (20, 2, 3), {})
    rows = [{"row": row.row, "base": row.base, **child.main(row)} for row in table.rows]
    for row in rows:
        if name == "start":
            row |= {f"cached_{figure}": row[figure] for figure in ("first_s", "first_forward_s", "given_s")}
    rows[1] = {"row": rows[1]["row"], "base": rows[1]["base"], "reason": "it would not"}
    report.compare(table, rows)
    for shown in (report.text(table, rows), report.markdown(table, rows)):
        assert table.title in shown
        assert "it would not" in shown
    report.draw(tmp_path / "figure.png", [(table, rows)])
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_sizes_and_peers_that_are_given_replace_the_workloads_own():
    own = tables(["recurrent"], ["snnlib", "floor"], (None, None, None), {})
    assert [table.title for table in own] == [
        "recurrent, LIF, T=1000 B=128 N=128",
        "recurrent, LSNN, T=1000 B=128 N=128",
        "recurrent, LIF, T=1000 B=8 N=64",
        "recurrent, LSNN, T=1000 B=8 N=64",
    ]
    assert [row.peer for row in own[0].rows] == [p for p in PEERS if p == "floor" or p.startswith("snnlib-")]
    given = tables(["recurrent"], ["floor"], (5, 2, 3), {"seed": 4})
    assert [table.title for table in given] == ["recurrent, LIF, T=5 B=2 N=3", "recurrent, LSNN, T=5 B=2 N=3"]
    assert (given[0].rows[0].seq_length, given[0].rows[0].batch_size, given[0].rows[0].features) == (5, 2, 3)
    assert given[0].rows[0].seed == 4
    for table in tables(list(WORKLOADS), list(PEERS), (None, None, None), {}):
        names = [row.row for row in table.rows]
        assert len(set(names)) == len(names)
        assert {row.base for row in table.rows} <= set(names)


def test_a_wrong_flag_ends_with_a_sentence(tmp_path: Path):
    done = run("--workloads=lif,walk", cwd=tmp_path)
    assert done.returncode == 2
    assert "must be some of lif, linear_lif" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--peers=", "must be some of snnlib, floor"),
        ("--repeats=0", "repeats"),
        ("--threads=4294967295", "threads"),
        ("--device=tpu", "device"),
        ("--seconds=nan", "must be finite"),
    ],
)
def test_flags_have_bounds(
    flag: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["benchmark", flag])
    with pytest.raises(SystemExit) as end:
        _command.parse(FLAGS, "")
    FLAGS.unparse_flags()
    assert end.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("net", ["layer", "linear", "recurrent"])
@pytest.mark.parametrize("name", ["norse", "snntorch", "spikingjelly", "sinabs"])
def test_a_peer_simulates_time_and_spikes(name: str, net: str):
    """What it puts out depends on earlier inputs and on no later ones; runs where it is installed."""
    pytest.importorskip(name)
    case = build(spec(peer=name, net=net, seq_length=60, features=16))
    time = 1 if peers.peer_layer(spec(peer=name, net=net, features=16)).batch_first else 0
    output = case.run(case.input)
    assert output.shape == case.input.shape
    assert ((output == 0) | (output == 1)).all()
    assert 0.005 < float(output.detach().mean()) < 0.3
    (gradient,) = torch.autograd.grad(output.select(time, 30).sum(), case.input)
    reached = gradient.abs().movedim(time, 0).flatten(1).sum(1) > 0
    assert reached[:30].any()
    assert not reached[31:].any()
