"""Functions in the language of snnlib.engine.llvm.compiler, compiled to be called by tests."""

import ctypes
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from snnlib.engine.llvm import machine
from snnlib.engine.llvm.entry import Target, compiled


def integers(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def ready(
    function: Callable[..., None], like: Sequence[Tensor], target: Target | None = None
) -> Callable[..., None]:
    """A function of arrays alone, to be called with arrays like these.

    Parameters:
        target: what its code is made for, this machine if None.
    """
    machine._initialize()
    kinds = [(array.dtype, array.dim()) for array in like]
    code = compiled(function, "tested", kinds, 0, 0, target or machine._target(), machine._model())
    address = machine._link("tested", code)
    assert address is not None

    def run(*arrays: Tensor) -> None:
        assert [(array.dtype, array.dim()) for array in arrays] == kinds
        assert all(array.is_contiguous() for array in arrays)
        sizes = [size for array in arrays for size in array.shape]
        places = (ctypes.c_void_p * len(arrays))(*[array.data_ptr() for array in arrays])
        machine.SIGNATURE(address)(places, (ctypes.c_int64 * len(sizes))(*sizes), None)

    return run


def target_with(cpu: str, features: str) -> Target:
    """This machine as a CPU of another name, with these features alone."""
    triple, _, _ = machine._target()
    return triple, cpu, features
