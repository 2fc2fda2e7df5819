"""Any value of any flag: a task runs, or ends with a sentence that names the flag; never with a traceback.

Hypothesis draws one flag of a task and a value within its bounds, at them, beyond them, or of another kind. It
draws the same every time (``derandomize``); ``--flag_draws=N`` draws N times for each task.
"""

import io
import re
import resource
import shutil
import signal
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import pytest
from absl import flags
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from snnlib.task import _command
from tests.task.command import clear, inside
from tests.task.test_flags import TASKS, module_of

QUICK = ("--fast", "--noplot", "--seq_length=2")
SMALL: dict[str, tuple[str, ...]] = {
    "cartpole": (*QUICK, "--episodes=1", "--num_envs=1", "--hidden_size=4", "--episode_steps=2", "--passes=1"),
    "cifar10": (*QUICK, "--epochs=1", "--width=2", "--limit_train_batches=2", "--batch_size=4"),
    "correlation": (
        *("--fast", "--noplot", "--seq_length=26", "--epochs=1", "--train_episodes=2", "--test_episodes=4"),
        *("--channels=8", "--subset=2", "--hidden_size=2"),
    ),
    "memory": (
        *("--fast", "--noplot", "--epochs=1", "--batches=1", "--batch_size=2", "--hidden_size=4"),
        *("--population_size=2", "--period=0.005", "--seq_periods=4", "--expected_delay=2"),
    ),
    "mnist": (*QUICK, "--epochs=1", "--channels=2", "--hidden_size=4"),
    "mnist_pl": (*QUICK, "--epochs=1", "--channels=2", "--hidden_size=4", "--limit_train_batches=2"),
    "speech_commands": (
        *("--fast", "--noplot", "--epochs=1", "--hidden_size=4", "--layers=1", "--limit_train_batches=1"),
        *("--batch_size=4",),
    ),
}
"""Each task: a run in which as little happens as can."""
SIZES = {
    **dict.fromkeys(("epochs", "episodes", "batches", "passes", "seq_length", "seq_periods"), 30),
    **dict.fromkeys(("seq_repetitions", "train_episodes", "test_episodes", "num_envs", "layers"), 10),
    **dict.fromkeys(("hidden_size", "population_size", "width", "channels", "episode_steps"), 40),
}
"""What takes time or memory in proportion: the largest value that is drawn and is to run."""
PLACES = ("data_dir", "output_dir", "resume", "dataset", "environment")
"""Flags that name a file, a folder or a thing: any text is refused, or taken as a name of what is not there."""
LEFT_OUT = {
    *("help", "h", "fast", "plot"),
    *(
        "accelerator",
        "device",
        "devices",
        "num_nodes",
        "strategy",
    ),  # Lightning starts processes for some of them
    *("render", "video"),  # a screen
    "find_learning_rate",
}
# fmt: off
TEXTS = [
    "", " ", "nan", "inf", "-inf", "text", "1,2", "1e300", "1e5000", "-1", "0", "1e-5000", "0x10", "9" * 12,
    "9" * 5000, "None", "true", "\x00", "\udcff", "ä" * 300, "../..", "/dev/null", "1\n2", "%s{}", "--seed=1",
]
# fmt: on


def values_of(name: str, flag: Any) -> st.SearchStrategy[str]:
    """Texts for a flag: what it may be, what lies at and beyond its bounds, and what is none of its kind."""
    parser = flag.parser
    if isinstance(parser, flags.IntegerParser):
        low = parser.lower_bound if parser.lower_bound is not None else 0
        high = parser.upper_bound if parser.upper_bound is not None else low + SIZES.get(name, 5000)
        inside_, beyond = (
            st.integers(low, high),
            [low - 1, -(2**63), -1, *([high + 1, 2**63] if parser.upper_bound else [])],
        )
        return (inside_ | st.sampled_from([low, high, *beyond])).map(str) | st.sampled_from(TEXTS)
    if isinstance(parser, flags.FloatParser):
        low = parser.lower_bound if parser.lower_bound is not None else 0.0
        high = parser.upper_bound if parser.upper_bound is not None else 0.05 if name == "period" else 1e4
        edges = [
            low,
            high,
            low - 1e-9,
            5e-324,
            1e-30,
            1e30,
            1e300,
            *([high + 1e-6] if parser.upper_bound else []),
        ]
        return (st.floats(low, high) | st.sampled_from(edges)).map(repr) | st.sampled_from(TEXTS)
    if isinstance(parser, flags.EnumParser):
        # kernels are interpreted on a machine without a GPU, for minutes
        return st.sampled_from([value for value in parser.enum_values if value != "gpu"]) | st.sampled_from(
            TEXTS
        )
    if isinstance(parser, flags.BooleanParser):
        return st.sampled_from(["true", "false", "1", "0"]) | st.sampled_from(TEXTS)
    return st.sampled_from(TEXTS)


class TooLongError(BaseException):
    """No error that a task would take for its own."""


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """A run that takes longer is no error of the flag's: it would go on."""

    def late(number: int, frame: Any) -> None:
        raise TooLongError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def ends_well(task: str, name: str, value: str) -> None:
    """Run a task with one flag more; it ends with its result, or with a sentence."""
    said, root = io.StringIO(), Path(tempfile.mkdtemp())
    given_flags = [*SMALL[task], f"--{name}={value}"]
    try:
        with within(20), redirect_stderr(said), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            figures = inside(module_of(task), task, *given_flags, cwd=root)
        code = 0 if figures["task"] == task else None
    except TooLongError:
        raise AssertionError("it takes more than 20 s") from None
    except SystemExit as stopped:
        code = stopped.code
    finally:
        shutil.rmtree(root, ignore_errors=True)
    told = said.getvalue()
    assert code in (0, 1, 2), told
    if code:
        assert told.startswith("error: "), told
        assert len(told.strip().splitlines()) == 1, told
        numbers_ran_off = re.search(r"\b(nan|inf)\b", told)
        assert name in told or numbers_ran_off or (name in PLACES and value.strip()[:40] in told), told


def draws(task: str) -> st.SearchStrategy[tuple[str, str]]:
    """A flag and a value of it."""
    values = module_of(task).FLAGS
    names = [name for name in values if name not in LEFT_OUT]
    return st.sampled_from(names).flatmap(lambda name: st.tuples(st.just(name), values_of(name, values[name])))


@pytest.mark.parametrize("task", TASKS)
def test_any_value_of_any_flag(task: str, pytestconfig: pytest.Config):
    wrong: list[str] = []

    def tried(flag: tuple[str, str]) -> None:
        try:
            ends_well(task, *flag)
        except Exception as error:
            told = " ".join(str(error).split())
            wrong.append(f"--{flag[0]}={flag[1]!r:.60}: {type(error).__name__}: {told:.400}")

    options = {"deadline": None, "database": None, "derandomize": True, "phases": [Phase.generate]}
    count = pytestconfig.getoption("--flag_draws")
    check = settings(max_examples=count, suppress_health_check=list(HealthCheck), **options)
    check(given(draws(task))(tried))()
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("task", TASKS)
def test_no_text_ends_with_a_traceback(task: str, monkeypatch: pytest.MonkeyPatch):
    """Every flag is given every text, as far as the command line is read."""
    module, wrong = module_of(task), list[str]()
    for name in set(module.FLAGS) - {"help", "h", "resume", "device"}:
        for value in TEXTS:
            clear(module)
            said = io.StringIO()
            monkeypatch.setattr("sys.argv", [task, f"--{name}={value}"])
            try:
                with redirect_stderr(said):
                    _command.parse(module.FLAGS, "usage")
            except SystemExit as stopped:
                if stopped.code != 2 or name not in said.getvalue() or said.getvalue().count("\n") != 1:
                    wrong.append(f"--{name}={value!r:.60}: {said.getvalue()!r:.300}")
            except Exception as error:
                wrong.append(f"--{name}={value!r:.60}: {error!r:.300}")
    clear(module)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("task", "flag"), [("mnist", "--channels=99999999"), ("memory", "--hidden_size=90000000")]
)
def test_sizes_for_which_there_is_no_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str, flag: str
):
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, before[1]))
    try:
        with pytest.raises(SystemExit) as stopped:
            inside(module_of(task), task, *SMALL[task], flag, cwd=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert stopped.value.code == 1
    assert re.match(f"error: there is not enough memory for {flag}[^\n]*\n$", capsys.readouterr().err)
