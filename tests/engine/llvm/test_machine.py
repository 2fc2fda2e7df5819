"""Machine code on disk: a later process does not compile it, and takes none that is not made for it."""

import inspect
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import snnlib
from snnlib import LIFParameters, LIFRecurrent, UntraceableError, lif_feed_forward_step
from snnlib.engine import cache, cpu, fused, kernel, scan
from snnlib.engine.llvm import machine
from snnlib.engine.trace import trace
from tests.neurons import NEURONS, draw_input, draw_parameters, generator

SOURCE = """
def times(a, out, active, start, stop, c0):
    for j in range(start, stop):
        out[j] = a[j] * c0
        active[j] += 1
"""

WHOLE = """
import sys, torch, snnlib
print("ready", flush=True)
input()
torch.manual_seed(0)
for net in (snnlib.LIF(), snnlib.LIFRecurrent(3, 3)):
    x = torch.linspace(0, 3, 50 * 2 * 3).reshape(50, 2, 3).requires_grad_()
    (net(x)[0] * torch.linspace(1, 2, 3)).sum().backward()
    print(x.grad.double().sum().item())
print("snnlib.engine.llvm.compiler" in sys.modules)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    machine._target.cache_clear()
    yield tmp_path
    machine._target.cache_clear()


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.bin"))


def times_three(loop: machine.Loop) -> list[float]:
    a, out = torch.arange(5.0), torch.full((5,), -1.0)
    loop([(value, value.shape) for value in (a, out, torch.zeros(5, dtype=torch.int64))], 1, 4)
    return out.tolist()


def fresh() -> machine.Loop:
    """A loop that this process has not linked yet."""
    machine._ADDRESSES.clear()
    return machine.Loop(SOURCE, "times", torch.float32, (3.0,))


RIGHT = [-1.0, 3.0, 6.0, 9.0, -1.0]


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was compiled since the test began."""
    found: list[str] = []
    original = machine.Loop._compile

    def compile_and_note(self: machine.Loop, kinds: machine._Kinds, integers: int) -> bytes:
        found.append(self._name)
        return original(self, kinds, integers)

    monkeypatch.setattr(machine.Loop, "_compile", compile_and_note)
    return found


def run(code: str, folder: Path) -> "subprocess.Popen[str]":
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def let_go(*processes: "subprocess.Popen[str]") -> None:
    """Let these begin, at once, when each of them has imported what it needs."""
    for process in processes:
        assert "ready\n" in iter(process.stdout.readline, "")
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()


def finished(process: "subprocess.Popen[str]") -> tuple[list[str], bool]:
    """The sums that it printed, and whether it has imported the compiler."""
    said, _ = process.communicate()
    assert process.returncode == 0, said
    *sums, imported = said.split()
    return sums, imported == "True"


def test_a_later_process_does_not_compile(tmp_path: Path):
    first = [run(WHOLE, tmp_path) for _ in range(2)]  # at once, into one empty cache
    let_go(*first)
    said = [finished(process) for process in first]
    sums, _ = said[0]
    assert said == [(sums, True)] * 2
    assert len(files(tmp_path)) == len([*("forward", "backward") * 2, "multiply", "push", "grow", "probe"])
    later = run(WHOLE, tmp_path)
    let_go(later)
    assert finished(later) == (sums, False)


def test_a_loop_is_compiled_once(folder: Path, compiled: list[str]):
    assert times_three(fresh()) == RIGHT
    assert times_three(fresh()) == RIGHT
    assert compiled == ["times"]


@pytest.mark.parametrize("damage", ["empty", "half", "one byte", "seal"])
def test_a_damaged_file_is_compiled_again(folder: Path, compiled: list[str], damage: str):
    times_three(fresh())
    (path,) = files(folder)
    whole = path.read_bytes()
    changed = whole[:-1] + bytes([whole[-1] ^ 1])
    parts = {"empty": b"", "half": whole[: len(whole) // 2], "one byte": changed, "seal": whole[:32]}
    path.write_bytes(parts[damage])
    assert times_three(fresh()) == RIGHT
    assert compiled == ["times"] * 2
    assert path.read_bytes() != parts[damage]
    assert times_three(fresh()) == RIGHT
    assert compiled == ["times"] * 2


def test_machine_code_of_another_cpu_is_not_taken(
    folder: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
):
    times_three(fresh())
    (mine,) = files(folder)
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_name", lambda: "another")
    machine._target.cache_clear()
    assert times_three(fresh()) == RIGHT
    assert compiled == ["times"] * 2
    (other,) = set(files(folder)) - {mine}
    mine.write_bytes(other.read_bytes())  # nor under a name that is right
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    machine._target.cache_clear()
    kinds = ((torch.float32, 1), (torch.float32, 1), (torch.int64, 1))
    assert cache._place(fresh()._key(kinds, 2), machine._compiler()) == mine
    assert cache.kept(fresh()._key(kinds, 2), machine._compiler()) is None


@pytest.mark.parametrize("home", ["in the way", "/proc/nowhere", None])
def test_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str | None):
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    if home is None:
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setattr(Path, "home", homeless)
    else:
        (tmp_path / "in the way").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / home))
    assert times_three(fresh()) == RIGHT
    cache.keep("key", "compiler", b"value")
    assert cache.kept("key", "compiler") is None


def object_code(text: str) -> bytes:
    import llvmlite.binding as llvm

    machine._initialize()
    target = llvm.Target.from_default_triple().create_target_machine(reloc="pic", codemodel="small")
    return bytes(target.emit_object(llvm.parse_assembly(text, llvm.create_context())))


MISSING = "declare void @snnlib_nowhere()\ndefine void @times() {\n call void @snnlib_nowhere()\n ret void\n}"


@pytest.mark.parametrize("what", ["a missing symbol", "nonsense"])
def test_what_cannot_be_loaded_is_compiled_again(folder: Path, compiled: list[str], what: str):
    """Another C library wrote it, say."""
    kinds = ((torch.float32, 1), (torch.float32, 1), (torch.int64, 1))
    stored = object_code(MISSING) if what == "a missing symbol" else b"nonsense"
    assert machine._link("times", stored) is None
    cache.keep(fresh()._key(kinds, 2), machine._compiler(), stored)
    assert times_three(fresh()) == RIGHT
    assert compiled == ["times"]
    assert times_three(fresh()) == RIGHT
    assert compiled == ["times"]


def test_what_can_never_be_loaded_is_an_error_with_a_way_out(folder: Path, monkeypatch: pytest.MonkeyPatch):
    stored = object_code(MISSING)
    monkeypatch.setattr(machine.Loop, "_compile", lambda *_: stored)
    with pytest.raises(RuntimeError, match="its code of times; backend='reference' needs none"):
        times_three(fresh())


def test_where_nothing_can_be_compiled_it_says_why(monkeypatch: pytest.MonkeyPatch, folder: Path):
    def fail(*_: object) -> bytes:
        raise OSError("no such CPU")

    machine.unavailable.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(machine.Loop, "_compile", fail)
        assert machine.unavailable() == "OSError: no such CPU"
    machine.unavailable.cache_clear()
    assert machine.unavailable() == ""


def test_without_source_everything_runs_in_the_plain_loop_and_says_so(monkeypatch: pytest.MonkeyPatch):
    """As where only .pyc files were installed."""

    def fail(*_: object) -> str:
        raise OSError("could not get source code")

    known = machine.without_source, machine.unavailable, fused._compiled
    for cached in known:
        cached.cache_clear()
    layer, x = LIFRecurrent(3, 3, LIFParameters(v_leak=0.011)), torch.rand(5, 2, 3, generator=generator(0))
    with monkeypatch.context() as patched:
        patched.setattr(inspect, "getsource", fail)
        with pytest.warns(UserWarning, match=r"runs in the plain loop.* only \.pyc files"):
            assert layer(x)[0].shape == (5, 2, 3)
        with pytest.raises(UntraceableError, match=r"only \.pyc files"):
            scan(lif_feed_forward_step, x, backend="gpu")
    for cached in known:
        cached.cache_clear()
    assert machine.unavailable() == ""


def test_from_a_zip_file_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """There are no files that would tell one version's machine code from another's."""
    package = Path(snnlib.__file__).parent
    monkeypatch.setenv(
        "PYTHONPATH", shutil.make_archive(str(tmp_path / "lib"), "zip", package.parent, "snnlib")
    )
    monkeypatch.chdir(tmp_path)
    process = run(f"{WHOLE}\nprint(snnlib.__file__, file=open('where', 'w'))", tmp_path)
    let_go(process)
    _, compiled = finished(process)
    assert compiled
    assert "lib.zip" in (tmp_path / "where").read_text()
    assert not files(tmp_path)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[None]:
    """What is done on other systems than Linux on x86-64."""
    monkeypatch.setattr(machine, "_is_known_platform", lambda: False)
    for made in (machine._linker, cpu._product):
        made.cache_clear()
    yield
    for made in (machine._linker, cpu._product):
        made.cache_clear()


@pytest.mark.parametrize("recurrent", [False, True])
def test_on_other_systems_it_is_the_same(elsewhere: None, recurrent: bool):
    x = torch.randn(30, 3, 40, generator=generator(0))
    w = torch.randn(40, 40, generator=generator(1)) / 10 if recurrent else None
    wanted, _ = scan(lif_feed_forward_step, x, recurrent_weights=w, backend="reference")
    traced = trace(lif_feed_forward_step, LIFParameters(), (), (), 0.001, torch.float32)
    built = cpu.build(traced, "lif", torch.float32, recurrent)
    states = [torch.zeros(3, 40) for _ in range(2 + recurrent)]
    assert torch.equal(built.forward(x, states, [], [] if w is None else [w])[0], wanted)


def test_a_loop_with_many_arguments_is_kept_too(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Recurrent, with every parameter learned, by the adjoint, which makes the longest list of arguments."""
    monkeypatch.setattr(kernel, "KERNELS", {})
    fused._compiled.cache_clear()
    cpu._product.cache_clear()
    neuron = next(neuron for neuron in NEURONS if neuron.name == "lif_adex")
    p = draw_parameters(neuron, generator(0), (4,))._replace(method="adjoint")
    p = p._replace(**{name: getattr(p, name).requires_grad_() for name in neuron.ranges})
    x, w = draw_input(neuron, generator(1), (9, 2, 4)), torch.zeros(4, 4, dtype=torch.float64)
    scan(neuron.step, x, None, p, recurrent_weights=w, backend="cpu")[0].sum().backward()
    assert len(files(folder)) == 5  # both ways, and what they call: multiply, push, grow
    fused._compiled.cache_clear()


def test_an_array_with_gaps_or_on_another_device_is_refused():
    arrays = torch.ones(5, 2)[:, 0], torch.ones(5), torch.zeros(5, dtype=torch.int64)
    with pytest.raises(ValueError, match="strides"):
        fresh()([(value, value.shape) for value in arrays], 1, 4)
    with pytest.raises(ValueError, match="on meta"):
        fresh()([(value, value.shape) for value in (arrays[1].to("meta"), *arrays[1:])], 1, 4)
    with pytest.raises(ValueError, match=r"array \[5\] .* takes it for \[6\]"):
        fresh()([(value, (6,)) for value in (arrays[1], *arrays[1:])], 1, 4)


def test_a_process_forked_while_another_thread_compiles_can_compile(folder: Path):
    with machine._LOCK:
        child = os.fork()
        if child == 0:
            os._exit(0 if times_three(fresh()) == RIGHT else 1)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_forked_process_calls_what_its_parent_loaded():
    loop = fresh()
    assert times_three(loop) == RIGHT
    child = os.fork()
    if child == 0:
        os._exit(0 if times_three(loop) == RIGHT else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
