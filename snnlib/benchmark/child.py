"""The process of one row: reads what to measure from its argument, prints one line of JSON."""

import time

_BEGAN = time.perf_counter()

import json  # noqa: E402
import sys  # noqa: E402
import warnings  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402

from snnlib.benchmark import gate, measure  # noqa: E402
from snnlib.benchmark.peers import NotOfferedError  # noqa: E402
from snnlib.benchmark.workloads import Spec  # noqa: E402
from snnlib.engine.step import UntraceableError  # noqa: E402

__all__ = ["PREFIX", "main"]

PREFIX = "row: "
"""What the line of JSON begins with; a peer may print lines of its own."""


def main(spec: Spec) -> dict[str, Any]:
    """The figures of a row, or the ``reason`` why there are none."""
    if spec.threads:
        torch.set_num_threads(spec.threads)
    try:
        if spec.measure == "gate":
            return gate.check(spec)
        if spec.measure == "start":
            return measure.start(spec, _BEGAN)
        return measure.memory(spec) if spec.measure == "memory" else measure.timing(spec)
    except ImportError as error:
        return {"reason": f"not installed: {_line(error)}"}
    except (NotOfferedError, UntraceableError) as error:
        return {"reason": _line(error)}
    except Exception as error:  # a peer's failure is its row, not the end of the run
        return {"reason": f"{type(error).__name__}: {_line(error)}"}


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(PREFIX + json.dumps(main(Spec(**json.loads(sys.argv[1])))), flush=True)
