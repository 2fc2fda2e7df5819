"""What mypy makes of a script: it reads this file too, where ``assert_type`` says what it should find, and each
``type: ignore`` stands at what it has to refuse.
"""

from typing import TYPE_CHECKING, Any, NamedTuple, assert_type

import torch
from torch import Tensor, nn

from snnlib import (
    LIF,
    LSNN,
    Backend,
    Layer,
    LIFCell,
    LIFFeedForwardState,
    LIFParameters,
    LIFRecurrent,
    LIFState,
    LILinearCell,
    LIParameters,
    LIState,
    Method,
    SequentialState,
    detach_state,
    li_step,
    lif_feed_forward_step,
    lif_step,
    lift,
    reset,
    scan,
    spike,
)


class OwnParameters(NamedTuple):
    tau_mem_inv: float | Tensor = 100.0
    method: Method = "super"


class OwnState(NamedTuple):
    v: Tensor


def own_step(
    input: Tensor, state: OwnState, p: OwnParameters = OwnParameters(), dt: float = 0.001
) -> tuple[Tensor, OwnState]:
    v = state.v + dt * p.tau_mem_inv * (input - state.v)
    z = spike(v - 1.0, p.method)
    return z, OwnState(reset(v, z, 0.0))


class Louder(Layer):
    """A layer with a type of its own for its state."""

    def __init__(self, p: OwnParameters = OwnParameters(), backend: Backend = "auto") -> None:
        super().__init__(own_step, p, backend=backend)

    def forward(self, input: Tensor, state: OwnState | None = None) -> tuple[Tensor, OwnState]:
        output, after = super().forward(2.0 * input, state)
        return output, after


X, W, V = torch.rand(5, 2, 3), torch.rand(4, 3), torch.rand(4, 4)


def test_layers_and_nets_give_outputs_and_states() -> None:
    for layer in (LIF(), LIFRecurrent(3, 4), LSNN(), Louder(), Layer(own_step, OwnParameters(50.0))):
        assert_type(layer(X), tuple[Tensor, Any])
    for cell in (LIFCell(), LILinearCell(3, 4)):
        assert_type(cell(X[0]), tuple[Tensor, Any])
    assert_type(Louder().forward(X), tuple[Tensor, OwnState])
    assert_type(scan(own_step, X, backend="reference"), tuple[Tensor, Any])
    net = SequentialState(nn.Linear(3, 4), LIF())
    output, states = net(X)
    assert_type(states, list[Any])
    assert net(X, states)[0].shape == output.shape


def test_a_state_is_made_of_tensors_and_keeps_its_type() -> None:
    state = LIFFeedForwardState(v=torch.tensor(0.5), i=torch.zeros(()))
    assert_type(detach_state(state), LIFFeedForwardState)
    assert_type(lif_feed_forward_step(X[0], state), tuple[Tensor, LIFFeedForwardState])
    assert LIF()(X, state)[0].shape == X.shape


def test_steps_with_weights_know_their_arguments() -> None:
    state = LIFState(*torch.zeros(3, 2, 4))
    assert_type(lif_step(X[0], state, W, V), tuple[Tensor, LIFState])
    assert_type(lif_step(X[0], state, W, V, LIFParameters(v_th=0.5), dt=0.002), tuple[Tensor, LIFState])
    assert_type(li_step(X[0], LIState(*torch.zeros(2, 2, 4)), W, p=LIParameters()), tuple[Tensor, LIState])
    assert callable(lift(lif_step))


if TYPE_CHECKING:

    def refused(state: LIFState) -> None:
        LIF(backend="cppu")  # type: ignore[arg-type]
        LIF(backnd="cpu")  # type: ignore[call-arg]
        LIF(LIFParameters(tau_mem=100.0))  # type: ignore[call-arg]
        LIFFeedForwardState(v=0.0, i=0.0)  # type: ignore[arg-type]
        lif_step(X[0], state, "no weights", V)  # type: ignore[arg-type]
        lif_step(X[0], state, W, V, LIParameters())  # type: ignore[arg-type]
        lif_step(X[0], state, W, V, banana=1)  # type: ignore[call-arg]
        lif_step(X[0], state, W)  # type: ignore[call-arg]
