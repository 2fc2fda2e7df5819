"""What the attacks share."""

import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hostile.runs import RUNS
from tests.task.command import inside
from tests.task.test_flags import module_of

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


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a short run of a task."""
    folders: dict[str, Path] = {}

    def once(task: str) -> Path:
        if task not in folders:
            root = tmp_path_factory.mktemp(task)
            folders[task] = inside(module_of(task), task, *RUNS[task], cwd=root)["run"]
        return folders[task]

    return once
