"""Networks written for other programs, and read from them.

NIR, the Neuromorphic Intermediate Representation (Pedersen et al. 2024, Nature Communications 15), describes a
network by a graph of equations in continuous time; simulators and neuromorphic chips read it. What stands for
what, and where other libraries compute something else, is in ``docs/nir.md``.

The package ``nir`` is imported when one of the two functions is called, not before.
"""

from os import PathLike
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from snnlib.module.sequential import SequentialState

if TYPE_CHECKING:
    import nir

__all__ = ["from_nir", "to_nir"]


def to_nir(model: nn.Module, sample: Tensor) -> "nir.NIRGraph":
    """Write a network as a graph of NIR.

    ::

        graph = to_nir(net, sample)
        nir.write("net.nir", graph)

    The time step stands in the graph's metadata, a neuron's surrogate in those of its node: NIR has no field
    for them.

    Parameters:
        model: a :class:`.SequentialState`, or one of the modules that it may hold: ``nn.Linear``,
            ``nn.Conv2d``, ``SpikeLinear``, ``SpikeConv2d``, ``nn.Flatten``, ``nn.AvgPool2d``, ``LI``, ``LIF``,
            ``LIFBox``, ``IAF``, their cells, and recurrent layers of the last three. ``nn.Identity``, and
            ``nn.Dropout`` in evaluation, are left out.
        sample: an input of the model, ``[T, B, *features]`` or for cells ``[B, *features]``; its shape counts,
            and that it is where the model is.

    Returns:
        A graph with one input, one output, and a node for each module; a recurrent layer is a graph in its own.

    Raises:
        ImportError: nir is not installed.
        ValueError: NIR cannot express a module, which is named, or the sample does not fit.
    """
    _require_nir()
    from snnlib.exchange.write import write

    return write(model, sample)


def from_nir(
    graph: "nir.NIRGraph | str | PathLike[str]", dt: float | None = None, dtype: torch.dtype = torch.float32
) -> SequentialState:
    """Read a network from a graph of NIR.

    ::

        net = from_nir("net.nir")
        output, state = net(input)                                        input [T, B, *features]

    Parameters:
        graph: a chain of nodes from one input to one output, or a file that holds one. A neuron and a Linear or
            Affine that leads from it back to it are a recurrent layer, in a graph of their own or not.
        dt: time step in s in which the equations are integrated; None takes that of the graph's metadata, where
            :func:`to_nir` writes it. snnTorch and SpikingJelly write graphs for dt = 1e-4.
        dtype: of weights and parameters.

    Returns:
        Modules over time, named as the nodes, with "_" for ".". A gain (r and w_in) other than that of snnlib's
        own neuron is divided out of the voltages of a neuron that spikes, and stands before one that does not.

    Raises:
        ImportError: nir is not installed.
        ValueError: a node, which is named, has no counterpart here or a shape that does not fit; the graph is
            no chain; or the time step is unknown.
    """
    _require_nir()
    from snnlib.exchange.read import read

    return read(graph, dt, dtype)


def _require_nir() -> None:
    try:
        import nir  # noqa: F401
    except ImportError as error:
        raise ImportError(f"graphs of NIR need nir ({error}): pip install 'snnlib[nir]'") from error
