"""How kernels are launched on GPUs that are not here."""

import pytest
import torch

from snnlib.engine.plan import plan


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("processors", [6, 20, 108, 132])
def test_programs_that_wait_for_each_other_all_run_at_once(processors: int, dtype: torch.dtype):
    """One that waits for another which never begins would wait for ever."""
    for size in (129, 200, 300, 513, 1100, 2000, 5000):
        for samples in (1, 3, 8, 64, 1000):
            form = plan(torch.Size((7, samples, size)), True, dtype, processors, 10)
            of, (groups, side) = form.constants, form.grid
            assert form.shared
            assert groups * of["COLUMNS"] >= size
            if of["CHUNKS"]:
                assert groups * side <= processors
                assert form.at_once == side * of["SAMPLES"]
                assert of["CHUNKS"] * of["DEEP"] >= size
                assert of["COLUMNS"] * of["CHUNKS"] * of["DEEP"] * dtype.itemsize <= 128 * 1024
            else:
                assert form.at_once == samples <= side * of["SAMPLES"]
