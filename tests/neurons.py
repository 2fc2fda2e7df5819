"""The table of neurons that the tests run over, and helpers that several test files share.

Each row names what belongs to a neuron and gives ranges from which a test draws parameters that are not the
defaults and inputs at which the neuron spikes often, but not all the time.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

import snnlib.functional as F
import snnlib.module as M

Range = tuple[float, float]

_SYNAPSE: dict[str, Range] = {"tau_syn_inv": (120.0, 350.0)}
_LEAK: dict[str, Range] = {"tau_mem_inv": (60.0, 180.0), "v_leak": (-0.15, 0.15)}
_SPIKE: dict[str, Range] = {"v_th": (0.4, 0.8), "v_reset": (-0.3, 0.2)}


class Neuron(NamedTuple):
    """What belongs to one neuron."""

    name: str
    step: Callable[..., Any]
    parameters: Any
    state: Any
    cell: Callable[..., Any]
    layer: Callable[..., Any]
    recurrent_cell: Callable[..., Any]
    recurrent_layer: Callable[..., Any]
    weighted_step: Callable[..., Any]
    recurrent_state: Any
    """The state of ``weighted_step``; ``state`` itself where that step has no recurrence."""
    ranges: dict[str, Range]
    """For every number among the parameters but ``alpha``: what to draw it from."""
    start: dict[str, Range]
    """For every field of the state: what to draw it from."""
    input: Range
    """Mean and standard deviation of inputs that make it spike."""
    spikes: bool = True


NEURONS = [
    Neuron(
        name="li",
        step=F.li_feed_forward_step,
        parameters=F.LIParameters,
        state=F.LIState,
        cell=M.LICell,
        layer=M.LI,
        recurrent_cell=partial(M.RecurrentCell, F.li_feed_forward_step),
        recurrent_layer=partial(M.RecurrentLayer, F.li_feed_forward_step),
        weighted_step=F.li_step,
        recurrent_state=F.LIState,
        ranges={**_SYNAPSE, **_LEAK},
        start={"v": (-0.5, 0.5), "i": (-0.5, 0.5)},
        input=(0.5, 1.5),
        spikes=False,
    ),
    Neuron(
        name="li_box",
        step=F.li_box_feed_forward_step,
        parameters=F.LIBoxParameters,
        state=F.LIBoxState,
        cell=M.LIBoxCell,
        layer=M.LIBox,
        recurrent_cell=partial(M.RecurrentCell, F.li_box_feed_forward_step),
        recurrent_layer=partial(M.RecurrentLayer, F.li_box_feed_forward_step),
        weighted_step=F.li_box_step,
        recurrent_state=F.LIBoxState,
        ranges=_LEAK,
        start={"v": (-0.5, 0.5)},
        input=(0.5, 1.5),
        spikes=False,
    ),
    Neuron(
        name="lif",
        step=F.lif_feed_forward_step,
        parameters=F.LIFParameters,
        state=F.LIFFeedForwardState,
        cell=M.LIFCell,
        layer=M.LIF,
        recurrent_cell=M.LIFRecurrentCell,
        recurrent_layer=M.LIFRecurrent,
        weighted_step=F.lif_step,
        recurrent_state=F.LIFState,
        ranges={**_SYNAPSE, **_LEAK, **_SPIKE},
        start={"v": (-0.2, 0.3), "i": (-0.5, 0.5)},
        input=(0.5, 1.5),
    ),
    Neuron(
        name="lif_refrac",
        step=F.lif_refrac_feed_forward_step,
        parameters=F.LIFRefracParameters,
        state=F.LIFRefracFeedForwardState,
        cell=M.LIFRefracCell,
        layer=M.LIFRefrac,
        recurrent_cell=M.LIFRefracRecurrentCell,
        recurrent_layer=M.LIFRefracRecurrent,
        weighted_step=F.lif_refrac_step,
        recurrent_state=F.LIFRefracState,
        ranges={**_SYNAPSE, **_LEAK, **_SPIKE, "rho_reset": (0.0021, 0.0064)},
        start={"v": (-0.2, 0.3), "i": (-0.5, 0.5), "rho": (0.0, 0.003)},
        input=(1.0, 1.5),
    ),
    Neuron(
        name="lif_box",
        step=F.lif_box_feed_forward_step,
        parameters=F.LIFBoxParameters,
        state=F.LIFBoxFeedForwardState,
        cell=M.LIFBoxCell,
        layer=M.LIFBox,
        recurrent_cell=M.LIFBoxRecurrentCell,
        recurrent_layer=M.LIFBoxRecurrent,
        weighted_step=F.lif_box_step,
        recurrent_state=F.LIFBoxState,
        ranges={**_LEAK, **_SPIKE},
        start={"v": (-0.2, 0.3)},
        input=(2.0, 3.0),
    ),
    Neuron(
        name="lsnn",
        step=F.lsnn_feed_forward_step,
        parameters=F.LSNNParameters,
        state=F.LSNNFeedForwardState,
        cell=M.LSNNCell,
        layer=M.LSNN,
        recurrent_cell=M.LSNNRecurrentCell,
        recurrent_layer=M.LSNNRecurrent,
        weighted_step=F.lsnn_step,
        recurrent_state=F.LSNNState,
        ranges={**_SYNAPSE, **_LEAK, **_SPIKE, "tau_adapt_inv": (5.0, 30.0), "beta": (0.005, 0.02)},
        start={"v": (-0.2, 0.3), "i": (-0.5, 0.5), "b": (0.0, 10.0)},
        input=(1.0, 2.0),
    ),
    Neuron(
        name="iaf",
        step=F.iaf_feed_forward_step,
        parameters=F.IAFParameters,
        state=F.IAFFeedForwardState,
        cell=M.IAFCell,
        layer=M.IAF,
        recurrent_cell=M.IAFRecurrentCell,
        recurrent_layer=M.IAFRecurrent,
        weighted_step=F.iaf_step,
        recurrent_state=F.IAFState,
        ranges={**_SPIKE},
        start={"v": (-0.2, 0.3)},
        input=(0.15, 0.3),
    ),
    Neuron(
        name="lif_ex",
        step=F.lif_ex_feed_forward_step,
        parameters=F.LIFExParameters,
        state=F.LIFExFeedForwardState,
        cell=M.LIFExCell,
        layer=M.LIFEx,
        recurrent_cell=M.LIFExRecurrentCell,
        recurrent_layer=M.LIFExRecurrent,
        weighted_step=F.lif_ex_step,
        recurrent_state=F.LIFExState,
        ranges={**_SYNAPSE, **_LEAK, **_SPIKE, "delta_T": (0.3, 0.8)},
        start={"v": (-0.2, 0.3), "i": (-0.5, 0.5)},
        input=(0.4, 1.5),
    ),
    Neuron(
        name="lif_adex",
        step=F.lif_adex_feed_forward_step,
        parameters=F.LIFAdExParameters,
        state=F.LIFAdExFeedForwardState,
        cell=M.LIFAdExCell,
        layer=M.LIFAdEx,
        recurrent_cell=M.LIFAdExRecurrentCell,
        recurrent_layer=M.LIFAdExRecurrent,
        weighted_step=F.lif_adex_step,
        recurrent_state=F.LIFAdExState,
        ranges={
            **_SYNAPSE,
            **_LEAK,
            **_SPIKE,
            "delta_T": (0.3, 0.8),
            "tau_ada_inv": (5.0, 20.0),
            "adaptation_current": (1.0, 5.0),
            "adaptation_spike": (0.02, 0.2),
        },
        start={"v": (-0.2, 0.3), "i": (-0.5, 0.5), "a": (-0.3, 0.3)},
        input=(0.8, 1.5),
    ),
    Neuron(
        name="izhikevich",
        step=F.izhikevich_feed_forward_step,
        parameters=F.IzhikevichParameters,
        state=F.IzhikevichState,
        cell=M.IzhikevichCell,
        layer=M.Izhikevich,
        recurrent_cell=M.IzhikevichRecurrentCell,
        recurrent_layer=M.IzhikevichRecurrent,
        weighted_step=F.izhikevich_recurrent_step,
        recurrent_state=F.IzhikevichRecurrentState,
        ranges={
            "a": (0.02, 0.1),
            "b": (0.15, 0.25),
            "c": (-60.0, -50.0),
            "d": (1.0, 4.0),
            "sq": (0.035, 0.045),
            "mn": (4.8, 5.2),
            "bias": (138.0, 142.0),
            "v_th": (25.0, 35.0),
            "tau_inv": (200.0, 300.0),
        },
        start={"v": (-70.0, -50.0), "u": (-16.0, -10.0)},
        input=(30.0, 20.0),
    ),
]

SPIKING = [neuron for neuron in NEURONS if neuron.spikes]


def name_of(neuron: Neuron) -> str:
    """For the ``ids`` of a parametrised test."""
    return neuron.name


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def uniform(bounds: Range, shape: Any, source: torch.Generator, dtype: torch.dtype = torch.float64) -> Tensor:
    low, high = bounds
    return low + (high - low) * torch.rand(shape, generator=source, dtype=torch.float64).to(dtype)


def draw_parameters(
    neuron: Neuron, source: torch.Generator, shape: Any = (), dtype: torch.dtype = torch.float64, **others: Any
) -> Any:
    """Parameters that are not the defaults, every number a tensor of ``shape``."""
    drawn = {name: uniform(bounds, shape, source, dtype) for name, bounds in neuron.ranges.items()}
    return neuron.parameters(**{**drawn, **others})


def draw_state(neuron: Neuron, source: torch.Generator, shape: Any, dtype: torch.dtype = torch.float64) -> Any:
    return neuron.state(
        **{name: uniform(bounds, shape, source, dtype) for name, bounds in neuron.start.items()}
    )


def draw_input(
    neuron: Neuron, source: torch.Generator, shape: Any, dtype: torch.dtype = torch.float64
) -> Tensor:
    mean, deviation = neuron.input
    return (mean + deviation * torch.randn(shape, generator=source, dtype=torch.float64)).to(dtype)


def loop(step: Callable[..., Any], input: Tensor, state: Any, p: Any, dt: float) -> tuple[Tensor, Any]:
    """The step applied to one row of ``input`` after the other."""
    outputs = []
    for t in range(len(input)):
        z, state = step(input[t], state, p, dt)
        outputs.append(z)
    return torch.stack(outputs), state


def recurrent_loop(
    step: Callable[..., Any], input: Tensor, z: Tensor, state: Any, weights: Tensor, p: Any, dt: float
) -> tuple[Tensor, Tensor, Any]:
    """As :func:`loop`, with ``weights[n, m] z[b, m]`` of the step before added to the input of neuron n."""
    outputs = []
    for t in range(len(input)):
        back = (weights[None, :, :] * z[:, None, :]).sum(-1)
        z, state = step(input[t] + back, state, p, dt)
        outputs.append(z)
    return torch.stack(outputs), z, state


def same(actual: Any, wanted: Any, **tolerance: float) -> None:
    """Two nests of tuples, lists and tensors are equal, with the same structure and dtypes."""
    if isinstance(wanted, Tensor):
        torch.testing.assert_close(actual, wanted, **(tolerance or {"rtol": 0.0, "atol": 0.0}))
    elif wanted is None:
        assert actual is None
    else:
        assert type(actual) is type(wanted)
        assert len(actual) == len(wanted)
        for one, other in zip(actual, wanted, strict=True):
            same(one, other, **tolerance)
