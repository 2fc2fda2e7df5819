"""What scan refuses, and that it says why."""

import math
import re
from typing import NamedTuple

import numpy as np
import pytest
import torch

from snnlib.engine import scan
from snnlib.functional import (
    LIFFeedForwardState,
    LIFParameters,
    LIParameters,
    LIState,
    li_feed_forward_step,
    lif_feed_forward_step,
)
from tests.engine.cases import LIF
from tests.neurons import NEURONS

X = torch.ones(4, 2, 3)


def refused(message, *args, **options):
    with pytest.raises(ValueError, match=message):
        scan(*args, **options)


def test_an_unknown_backend_is_refused():
    refused("backend must be one of .*'auto'.*'reference'.* got 'abacus'", LIF.step, X, backend="abacus")


@pytest.mark.parametrize("dt", [0.0, -1.0, math.nan, math.inf])
def test_a_bad_dt_is_refused(dt):
    refused(f"dt must be .* got dt={dt}", LIF.step, X, dt=dt)


@pytest.mark.parametrize("bad", [-3.0, math.nan, math.inf, torch.tensor([1.0, -3.0, 2.0])])
def test_a_bad_rate_is_refused(bad):
    p = LIParameters(tau_syn_inv=bad)
    shown = r"-3\.0 at index \[1\]" if isinstance(bad, torch.Tensor) else format(bad)
    refused(rf"tau_syn_inv must be .*tau_syn_inv={shown}", li_feed_forward_step, X, p=p)


@pytest.mark.parametrize("shape", [(), (4,)], ids=str)
def test_an_input_without_time_and_batch_is_refused(shape):
    refused(rf"input must be \[T, B.* got shape {re.escape(str(list(shape)))}", LIF.step, torch.ones(shape))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8])
def test_an_input_of_integers_is_refused(dtype):
    refused(f"input must be floating point, got dtype {dtype}", LIF.step, X.to(dtype))


def test_a_complex_input_is_refused_with_what_keeps_its_parts():
    z = torch.complex(X, X)
    refused(r"got dtype torch.complex64; use input.abs\(\), or .*view_as_real\(input\).flatten", LIF.step, z)
    scan(LIF.step, torch.view_as_real(z).flatten(-2))


def test_an_input_of_nan_is_refused_with_its_place():
    x = X.clone()
    x[0, 1, 2] = math.nan
    refused(r"input must not contain NaN.*\[0, 1, 2\]", LIF.step, x)


@pytest.mark.parametrize("shape", [(3,), (3, 2), (2, 2), (3, 3, 3), (4, 4)], ids=str)
def test_recurrent_weights_of_a_wrong_shape_are_refused(shape):
    message = rf"recurrent_weights must be \[N, N\].* got {re.escape(str(list(shape)))} for \[4, 2, 3\]"
    refused(message, LIF.step, X, recurrent_weights=torch.ones(shape))


def test_recurrent_weights_of_maps_are_refused():
    message = r"recurrent_weights must be .* got \[3, 3\] for \[4, 2, 5, 3\]"
    refused(message, LIF.step, torch.ones(4, 2, 5, 3), recurrent_weights=torch.ones(3, 3))


@pytest.mark.parametrize("shape", [(4,), (3, 3), (2, 4), (1, 2, 3), (5, 2, 3)], ids=str)
@pytest.mark.parametrize("field", ["v", "i"])
def test_a_state_of_a_wrong_shape_is_refused(field, shape):
    state = LIFFeedForwardState(torch.zeros(2, 3), torch.zeros(2, 3))._replace(**{field: torch.zeros(shape)})
    refused(
        rf"state\.{field} must broadcast to \[2, 3\], got shape {re.escape(str(list(shape)))}",
        LIF.step,
        X,
        state,
    )


@pytest.mark.parametrize(
    "state",
    [
        (torch.zeros(2, 3), torch.zeros(2, 3)),
        torch.zeros(2, 3),
        LIState(torch.zeros(2, 3), torch.zeros(2, 3)),
    ],
    ids=["tuple", "tensor", "another neuron's"],
)
def test_a_state_of_another_kind_is_refused(state):
    """A value of a wrong type: the message says which state was wanted."""
    neuron = next(neuron for neuron in NEURONS if neuron.name == "lsnn")
    refused("state", neuron.step, X, state)


def test_a_state_without_z_is_refused_by_recurrent_weights():
    state = LIFFeedForwardState(torch.zeros(2, 3), torch.zeros(2, 3))
    refused("state", LIF.step, X, state, recurrent_weights=torch.ones(3, 3))


@pytest.mark.parametrize("shape", [(4,), (3, 3), (4, 1, 3), (5, 2, 3)], ids=str)
@pytest.mark.parametrize("name", ["tau_mem_inv", "v_th"])
def test_a_parameter_of_a_wrong_shape_is_refused(name, shape):
    """It must broadcast against one step's input, not widen it."""
    p = LIFParameters(**{name: torch.ones(shape)})
    refused(name, LIF.step, X, p=p)


@pytest.mark.parametrize(("field", "bad"), [("method", "nonsense"), ("alpha", -2.0), ("alpha", 0.0)])
def test_a_bad_method_or_alpha_is_refused(field, bad):
    refused(
        rf"{field}.*{field}={re.escape(repr(bad))}", lif_feed_forward_step, X, p=LIFParameters(**{field: bad})
    )


class More(NamedTuple):
    """LIF's parameters and one that nobody reads."""

    v_noise: float
    tau_syn_inv: float = 200.0
    tau_mem_inv: float = 100.0
    v_leak: float = 0.0
    v_th: float = 1.0
    v_reset: float = 0.0
    method: str = "super"
    alpha: float | None = None
    detach_reset: bool = True


@pytest.mark.parametrize("backend", ["auto", "reference", "cpu"])
@pytest.mark.parametrize(
    ("p", "message"),
    [
        (LIParameters(), "p must have the fields of LIFParameters, LIParameters has no v_th"),
        (More(0.1), "More has v_noise too, which nothing here would read"),
        (LIFParameters(v_th=[1.0]), r"p.v_th must be a number or a tensor, got \[1.0\]"),
        (LIFParameters(v_th=None), "p.v_th must be a number or a tensor, got None"),
        (LIFParameters(v_th=math.nan), "p.v_th must be a number, got nan"),
        (LIFParameters(v_th=np.float64("nan")), "p.v_th must be a number, got nan"),
        (LIFParameters(v_th=np.float32("nan")), "p.v_th must be a number, got nan"),
        ({"v_th": 1.0}, r"p must be LIFParameters\(...\), got {'v_th': 1.0}"),
    ],
    ids=["another neuron's", "more", "list", "None", "nan", "float64", "float32", "dictionary"],
)
def test_what_are_no_parameters_of_this_neuron_is_refused(p, message, backend):
    """Each time, also after others were taken."""
    for _ in range(2):
        scan(LIF.step, X, p=LIFParameters(), backend=backend)
        refused(message, LIF.step, X, p=p, backend=backend)
