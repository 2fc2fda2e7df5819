"""Files from strangers: each ends in one sentence, nothing in it runs, and nothing is changed or left over.

What is read is made by the modules beside this one, which say what is wrong with it.
"""

import hashlib
import resource
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import h5py
import pytest

from snnlib import from_nir
from snnlib.dataset import DataError, load_images, load_speech
from tests.hostile import arrays, checkpoints, flag_files, graphs, speech
from tests.hostile.damage import TRIPWIRE, damaged, trap
from tests.task.command import inside, run
from tests.task.test_flags import module_of

TINY = ("--fast", "--noplot", "--epochs=1", "--seq_length=2", "--channels=2", "--hidden_size=4")
RUNS = {
    "mnist": (*TINY, "--checkpoint_every=1"),
    "mnist_pl": TINY,
    "cartpole": ("--fast", "--noplot", "--episodes=4", "--seq_length=2", "--hidden_size=4"),
    "correlation": (
        *("--fast", "--noplot", "--epochs=1", "--train_episodes=2", "--seq_length=30", "--test_episodes=4"),
        *("--channels=8", "--subset=2", "--hidden_size=2"),
    ),
}
"""Tasks whose checkpoints are attacked: those without Lightning, and one with it."""
LONGER = {"cartpole": "--episodes=8"}
MOST_BYTES = 3 * 2**30
"""Memory that the process may take on top of what it has; nothing here needs a tenth of it."""


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """What takes gigabytes fails, and not with a sentence."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MOST_BYTES, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def told(read: Callable[[], Any], kind: type[Exception]) -> str | None:
    """What a reader says of its input in one line, or None where it takes it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read()
    except kind as error:
        said = str(error)
    else:
        return None
    assert len(said.strip().splitlines()) == 1, said
    return said


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Attack:
    """Cases one after another in a folder; all that went wrong with one of them is an entry of ``wrong``."""

    def __init__(self, root: Path) -> None:
        self.root, self.count, self.wrong = root, 0, list[str]()

    def case(self, name: str, read: Callable[[], str | None], may_pass: bool = False, kept: str = "*") -> None:
        before = files_in(self.root)
        self.count += 1
        try:
            with chdir(self.root):
                said = read()
            if said is None and not may_pass:
                self.wrong.append(f"{name}: was taken")
        except Exception as error:
            self.wrong.append(f"{name}: {type(error).__name__}: {error!s:.200}")
            said = None
        if (self.root / TRIPWIRE).exists():
            self.wrong.append(f"{name}: code in it ran")
            (self.root / TRIPWIRE).unlink()
        after = files_in(self.root)
        changed = [path for path in before | after if before.get(path) != after.get(path)]
        if changed and not (said is None and may_pass):
            self.wrong.append(f"{name}: changed {changed}")

    def end(self, least: int) -> None:
        assert not self.wrong, "\n".join(self.wrong)
        assert self.count >= least


def ended(task: str, root: Path, capsys: pytest.CaptureFixture[str], *flags: str, code: int = 1) -> str | None:
    """What a task says in its one line on standard error, or None if it runs to its end."""
    capsys.readouterr()
    try:
        inside(module_of(task), task, *flags, cwd=root)
    except SystemExit as stopped:
        found = stopped.code
    else:
        return None
    said = capsys.readouterr().err
    assert found == code, said
    assert said.startswith("error: "), said
    assert len(said.strip().splitlines()) == 1, said
    assert "another process" not in said
    return said


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a short run of a task."""
    folders: dict[str, Path] = {}

    def once(task: str) -> Path:
        if task not in folders:
            root = tmp_path_factory.mktemp(task)
            folders[task] = inside(module_of(task), task, *RUNS[task], cwd=root)["run"]
        return folders[task]

    return once


def resumed(
    task: str, whole: Path, root: Path, capsys: pytest.CaptureFixture[str], **files: bytes
) -> Callable[[], str | None]:
    """Resume a copy of a run, ``run``, with other files in it; what the task says of it."""
    folder = root / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in ("flags.txt", "last.pt", "best.pt", "metrics.jsonl"):
        shutil.copyfile(whole / name, folder / name)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_bytes(content)

    def read() -> str | None:
        flags = (folder / "flags.txt").read_bytes()
        try:
            return ended(task, root, capsys, f"--resume={folder}", LONGER.get(task, "--epochs=2"))
        finally:
            (folder / "flags.txt").write_bytes(flags)  # may have been written anew, with --epochs=2

    return read


@pytest.mark.parametrize(
    ("task", "every"), [("mnist", 2), ("mnist_pl", 8), ("cartpole", 4), ("correlation", 4)]
)
def test_checkpoints(
    made: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str, every: int
):
    """Not every one of every task: they share the code."""
    attack, whole = Attack(tmp_path), made(task)
    cases = list(checkpoints.checkpoints((whole / "last.pt").read_bytes()))
    for name, content in cases[::every]:
        attack.case(name, resumed(task, whole, tmp_path, capsys, last__pt=content))
    attack.end(len(cases) // every)


def test_checkpoints_with_bits_turned(
    made: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Some bits mean nothing; and there is no checksum of a weight that is wrong."""
    attack, whole = Attack(tmp_path), made("mnist")
    for name, content in damaged((whole / "last.pt").read_bytes(), 7, cuts=0, flips=25):
        attack.case(name, resumed("mnist", whole, tmp_path, capsys, last__pt=content), may_pass=True)
    attack.end(25)


def test_the_best_checkpoint_of_a_run_that_is_finished(
    made: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    attack = Attack(tmp_path)
    for task in ("mnist", "mnist_pl"):
        whole, net = made(task), "net." if task == "mnist" else "state_dict."
        for name, content in list(checkpoints.checkpoints((whole / "best.pt").read_bytes()))[::2]:
            if name.startswith(("cut", "pickle", "code", "a_", "task", net, "at.epoch", "figures_")):
                resumed(task, whole, tmp_path, capsys, best__pt=content)
                attack.case(name, lambda task=task: ended(task, tmp_path, capsys, "--resume=run"))
    attack.end(30)


def test_checkpoints_of_others(made: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    attack = Attack(tmp_path)
    for task in RUNS:
        for other in RUNS:
            if task != other:
                last = (made(other) / "last.pt").read_bytes()
                attack.case(f"{other}_as_{task}", resumed(task, made(task), tmp_path, capsys, last__pt=last))
        wider = ("--hidden_size=6", f"--output_dir={tmp_path / 'wider'}")
        folder = inside(module_of(task), task, *RUNS[task], *wider, cwd=tmp_path)["run"]
        last = (folder / "last.pt").read_bytes()
        attack.case(f"wider_{task}", resumed(task, made(task), tmp_path, capsys, last__pt=last))
    attack.end(16)


def test_lines_of_figures(made: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    attack, whole = Attack(tmp_path), made("mnist")
    for name, content in checkpoints.metrics_files((whole / "metrics.jsonl").read_bytes()):
        attack.case(name, resumed("mnist", whole, tmp_path, capsys, metrics__jsonl=content))
    attack.end(16)


def test_files_of_flags(made: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    attack, whole = Attack(tmp_path), made("mnist")
    for name, content in flag_files.flag_files():
        code = 1 if name == "a_null" else 2
        (tmp_path / "flags.txt").write_bytes(content)
        given = ("--fast", "--noplot", "--flagfile=flags.txt")
        attack.case(name, lambda given=given, code=code: ended("mnist", tmp_path, capsys, *given, code=code))
        (tmp_path / "flags.txt").unlink()
        resumed("mnist", whole, tmp_path, capsys, flags__txt=content.replace(b"=flags", b"=run/flags"))
        attack.case(
            f"{name}_of_a_run",
            lambda code=code: ended("mnist", tmp_path, capsys, "--resume=run", code=code),
        )
    attack.end(40)


def test_a_file_of_flags_imports_nothing(
    made: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
):
    """An environment's name may have a module before it, which may lie beside the file."""
    attack, whole = Attack(tmp_path), made("cartpole")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "stranger.py").write_text(f"open({TRIPWIRE!r}, 'w')")
    named = b"--environment=stranger:Cart-v0\n"
    (tmp_path / "flags.txt").write_bytes(named)
    attack.case("flagfile", lambda: ended("cartpole", tmp_path, capsys, "--flagfile=flags.txt", code=2))
    text = (whole / "flags.txt").read_bytes()
    resumed("cartpole", whole, tmp_path, capsys, flags__txt=text + named)
    attack.case("resume", lambda: ended("cartpole", tmp_path, capsys, "--resume=run", code=2))
    attack.end(2)


def test_arrays_of_images(tmp_path: Path):
    attack, path = Attack(tmp_path), tmp_path / "images.npz"
    for name, content in arrays.npz_files():
        path.write_bytes(content)
        attack.case(name, lambda: told(lambda: load_images(str(path), ""), DataError))
    for name, content in damaged(arrays.npz(), 8, cuts=0, flips=60):
        path.write_bytes(content)
        attack.case(name, lambda: told(lambda: load_images(str(path), ""), DataError), may_pass=True)
    attack.end(180)


def test_the_files_of_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With the checksum of what is read in the place of the published one."""
    from torchvision.datasets import MNIST

    attack, raw, whole = Attack(tmp_path), tmp_path / "MNIST" / "raw", arrays.whole_idx()
    raw.mkdir(parents=True)

    def write(**other: bytes) -> None:
        resources = []
        for name, _ in MNIST.resources:
            content = next(c for begin, c in (whole | other).items() if name.startswith(begin))
            (raw / name).write_bytes(content)
            resources.append((name, hashlib.md5(content).hexdigest()))
        monkeypatch.setattr(MNIST, "resources", resources)

    write()
    assert len(load_images("mnist", tmp_path).y_test) == 30
    for name, content in arrays.idx_files():
        for part in ("train-labels", "t10k-images"):
            write(**{part: content})
            attack.case(f"{name}_{part}", lambda: told(lambda: load_images("mnist", tmp_path), DataError))
    write()
    (raw / "t10k-labels-idx1-ubyte.gz").write_bytes(trap())
    attack.case("a_checksum", lambda: told(lambda: load_images("mnist", tmp_path), DataError))
    attack.end(45)


def test_archives_of_clips(tmp_path: Path):
    attack, path = Attack(tmp_path), tmp_path / "clips.tar"
    path.write_bytes(speech.packed(speech.tree()))
    assert len(load_speech(str(path), tmp_path / "whole", 35).y_train) == 2
    shutil.rmtree(tmp_path / "whole")
    for name, content in speech.archives():
        path.write_bytes(content)
        attack.case(name, lambda: told(lambda: load_speech(str(path), tmp_path / "cache"), DataError))
    attack.end(35)


def test_clips_and_lists(tmp_path: Path):
    attack = Attack(tmp_path)
    for name, content in speech.tree().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    replaced = {"bed/00000000_nohash_0.wav": speech.clips, "_background_noise_/hiss.wav": speech.clips}
    for place, cases in {**replaced, "testing_list.txt": speech.lists}.items():
        path = tmp_path / speech.FOLDER / place
        whole = path.read_bytes()
        for name, content in cases():
            path.write_bytes(content)
            read = lambda: told(lambda: load_speech("speech_commands", tmp_path, 35), DataError)  # noqa: E731
            attack.case(f"{place}_{name}", read)
        path.write_bytes(whole)
    attack.end(60)


def test_headers_of_clips_that_say_another_length(tmp_path: Path):
    """The library that reads them takes what is there."""
    attack = Attack(tmp_path)
    for name, content in speech.tree().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    for says in (
        {"riff": 2**32 - 1},
        {"riff": 0},
        {"data": 2**32 - 1},
        {"data": 2**31},
        {"data": 0},
        {"data": 7},
    ):
        (tmp_path / speech.FOLDER / "bed/00000000_nohash_0.wav").write_bytes(speech.wav(200, **says))
        read = lambda: told(lambda: load_speech("speech_commands", tmp_path, 35), DataError)  # noqa: E731
        attack.case(str(says), read, may_pass=True)
    attack.end(6)


def test_graphs(tmp_path: Path):
    attack, path = Attack(tmp_path), tmp_path / "net.nir"
    whole = graphs.whole_graph(tmp_path / "whole.nir").read_bytes()
    from_nir(tmp_path / "whole.nir")
    for name, change in graphs.changes():
        path.write_bytes(whole)
        with h5py.File(path, "a") as file:
            change(file)
        attack.case(name, lambda: told(lambda: from_nir(path), ValueError))
    for name, content in graphs.graph_files(whole):
        path.write_bytes(content)
        attack.case(name, lambda: told(lambda: from_nir(path), ValueError))
    for name, content in damaged(whole, 9, cuts=0, flips=60):
        path.write_bytes(content)
        attack.case(name, lambda: told(lambda: from_nir(path), ValueError), may_pass=True)
    attack.end(190)


@pytest.mark.parametrize("attacked", ["last.pt", "metrics.jsonl", "flags.txt", "npz"])
def test_as_a_process(made: Callable[[str], Path], tmp_path: Path, attacked: str):
    folder = Path(shutil.copytree(made("mnist"), tmp_path / "run"))
    if attacked == "npz":
        flags = ("--nofast", "--dataset=images.npz")
        (tmp_path / "images.npz").write_bytes(trap())
    else:
        flags = ("--resume=run", "--epochs=2")
        (folder / attacked).write_bytes(trap())
    before = {name: (folder / name).read_bytes() for name in ("last.pt", "best.pt", "metrics.jsonl")}
    done = run("mnist", *flags, cwd=tmp_path)
    assert done.returncode == (2 if attacked == "flags.txt" else 1)
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert before == {name: (folder / name).read_bytes() for name in before}
    assert not list(tmp_path.rglob(TRIPWIRE))
