"""Which shape comes out of a module, found without integrating a neuron, and which one a node declares."""

import nir
import numpy as np
from torch import Tensor, nn
from torch.func import functional_call

from snnlib.engine.check import check_fits
from snnlib.module.neuron import Neuron
from snnlib.module.recurrent import RecurrentCell, RecurrentLayer

__all__ = ["check_declared", "declared", "one_step"]


def one_step(module: nn.Module, x: Tensor) -> Tensor:
    """What a module makes of one step ``[B, *features]``; of a neuron only the shape is right.

    Raises:
        ValueError: the shapes do not fit.
    """
    if isinstance(module, RecurrentCell | RecurrentLayer):
        wanted = module.hidden_size if module.input_size is None else module.input_size
        if x.shape[1:] != (wanted,):
            raise ValueError(f"it takes [{wanted}], got shape {list(x.shape[1:])}")
        x = x.new_zeros(len(x), module.hidden_size)
    if isinstance(module, Neuron):
        check_fits("p", module.p, x.shape)
        return x
    try:
        # on the device that has shapes and no memory: a shape may be of any size
        weights = {name: value.detach().to("meta") for name, value in module.state_dict().items()}
        y: Tensor = functional_call(module, weights, x.to("meta"))
    except (IndexError, RuntimeError, ValueError) as error:
        raise ValueError(f"it does not take the shape {list(x.shape[1:])} ({error})") from error
    return y


def declared(node: nir.NIRNode) -> tuple[int, ...] | None:
    """The shape that a node says it takes, None if it says none."""
    shape = (node.input_type or {}).get("input")
    return None if shape is None else tuple(int(size) for size in np.atleast_1d(shape))


def check_declared(node: nir.NIRNode, x: Tensor) -> None:
    """Refuse an input ``[B, *features]`` of another shape than a node declares.

    A declared shape of one value, such as that of a neuron whose parameters are numbers, fits any.

    Raises:
        ValueError: it does not fit.
    """
    shape, features = declared(node), tuple(x.shape[1:])
    if isinstance(node, nir.Conv2d) and shape is not None:  # NIR forgets groups here; torch counts them
        shape = (*features[:1], *shape[1:])
    if shape is not None and np.prod(shape) != 1 and shape != features:
        raise ValueError(f"it takes {list(shape)}, got shape {list(features)}")
