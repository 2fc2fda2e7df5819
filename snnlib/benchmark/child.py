"""One row; as a process of its own it reads what to measure from its argument, and prints one line of JSON."""

import json
import sys
import warnings
from typing import Any

import torch

from snnlib._words import first_line
from snnlib.benchmark import gate, measure
from snnlib.benchmark.peers import NotOfferedError
from snnlib.benchmark.workloads import Spec
from snnlib.engine.memory import keep_memory
from snnlib.engine.step import UntraceableError

__all__ = ["PREFIX", "main"]

PREFIX = "row: "
"""What the line of JSON begins with; a peer may print lines of its own."""


def main(spec: Spec) -> dict[str, Any]:
    """The figures of a row, or the ``reason`` why there are none; ``failed`` where it could have had some."""
    if spec.keep_memory:
        keep_memory()
    if spec.threads:
        torch.set_num_threads(spec.threads)
    kinds = {"gate": gate.check, "start": measure.start, "memory": measure.memory, "time": measure.timing}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return kinds[spec.measure](spec)
    except ImportError as error:
        return {"reason": f"{first_line(error)}: pip install 'snnlib[benchmark]'"}
    except (NotOfferedError, UntraceableError) as error:
        return {"reason": first_line(error)}
    except Exception as error:  # a peer's failure is its row, not the end of the run
        return {"reason": f"{type(error).__name__}: {first_line(error)}", "failed": True}


if __name__ == "__main__":
    print(PREFIX + json.dumps(main(Spec(**json.loads(sys.argv[1])))), flush=True)
