"""Neurons with recurrent weights as modules: one step, and a sequence."""

from collections.abc import Sequence
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from snnlib.engine import adjoint
from snnlib.engine.check import check_dense, check_input, check_numbers, checked_length
from snnlib.engine.checkpoint import in_chunks
from snnlib.engine.scan import Backend, scan
from snnlib.engine.state import initial_state
from snnlib.engine.step import Step, recurrent_state_type
from snnlib.module.neuron import LayerOptions, Neuron, OverTime
from snnlib.module.states import recorded

__all__ = ["RecurrentCell", "RecurrentLayer", "RecurrentLayerOptions", "RecurrentOptions"]


class RecurrentOptions(TypedDict, total=False):
    """What every :class:`RecurrentCell` takes by name."""

    input_weights: Tensor | None
    recurrent_weights: Tensor | None
    autapses: bool


class RecurrentLayerOptions(LayerOptions, RecurrentOptions, total=False):
    """What every :class:`RecurrentLayer` takes by name."""


class _Recurrent(Neuron):
    """Input and recurrent weights, both ``[to, from]``; no input weights with ``input_size=None``.

    The parameters are those of both its classes, into whose docstrings they come.

    Parameters:
        step: the neuron, see :mod:`snnlib.engine.step`.
        input_size, hidden_size: numbers of inputs M and of neurons N. ``input_size=None`` gives the neurons
            their currents themselves, ``[B, N]``: those of a Linear and a batch norm before them, say.
        p: its parameters; the step's own defaults if None.
        dt: time step in s; the step's own default if None, which is 0.001 for all neurons of snnlib.
        state: the NamedTuple of its state, ``z`` first; made from the step's own if None.
        backend, checkpoint_every: what runs it and what it keeps, see :func:`snnlib.engine.scan`; of the
            weighted input too, only one chunk at a time.
        record_states: return the states after each step, with time in front of each field, in the place of the
            last one. It is slower: the steps are run one by one.
        input_weights, recurrent_weights: ``[N, M]`` and ``[N, N]`` to start with; drawn from a normal
            distribution of variance 2 / fan-in (He et al. 2015) if None.
        autapses: whether a neuron may hear itself. If not, the diagonal of the recurrent weights is set to
            zero, of given ones too.
    """

    _own: tuple[str, ...] = (
        *(*Neuron._own, "input_size", "hidden_size", "autapses"),
        *("recurrent_state", "input_weights", "recurrent_weights"),
    )

    def __init__(
        self,
        step: Step,
        input_size: int | None,
        hidden_size: int,
        p: Any = None,
        dt: float | None = None,
        *,
        state: Any = None,
        input_weights: Tensor | None = None,
        recurrent_weights: Tensor | None = None,
        autapses: bool = False,
    ) -> None:
        super().__init__(step, p, dt)
        if input_size is not None:
            input_size = checked_length("input_size", input_size, least=0)
        hidden_size = checked_length("hidden_size", hidden_size, least=0)
        self.input_size, self.hidden_size, self.autapses = input_size, hidden_size, autapses
        self.recurrent_state = state or recurrent_state_type(step)
        self.input_weights: nn.Parameter | None
        self.recurrent_weights: nn.Parameter
        self.input_weights = _weights("input_weights", input_weights, hidden_size, input_size)
        self.recurrent_weights = _weights("recurrent_weights", recurrent_weights, hidden_size, hidden_size)
        self._forget_autapses()
        self.register_buffer("_diagonal", None, persistent=False)
        self._make_diagonal()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew, as a constructor does that is given none; ``p`` stays as it is."""
        for weights in (self.input_weights, self.recurrent_weights):
            if weights is not None:
                weights.copy_(_drawn(*weights.shape))
        self._forget_autapses()

    @torch.no_grad()
    def _forget_autapses(self) -> None:
        if not self.autapses:
            self.recurrent_weights.fill_diagonal_(0.0)

    def _make_diagonal(self) -> None:
        device = self.recurrent_weights.device
        self._diagonal = torch.eye(self.hidden_size, dtype=torch.bool, device=device)

    def _apply(self, *arguments: Any, **options: Any) -> Any:
        super()._apply(*arguments, **options)
        self._make_diagonal()  # to_empty() leaves anything there
        return self

    def _load_from_state_dict(self, *arguments: Any, **options: Any) -> None:
        super()._load_from_state_dict(*arguments, **options)
        self._make_diagonal()  # assign=True may have brought the weights from "meta" to a device

    def __getstate__(self) -> dict[str, Any]:
        # the class of the state may be made from the step, and then has no name to be pickled by
        made = hasattr(self.recurrent_state, "made_of")
        return {**self.__dict__, "recurrent_state": None if made else self.recurrent_state}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.recurrent_state = self.recurrent_state or recurrent_state_type(self.step)

    def recurrence(self) -> Tensor:
        """The recurrent weights in effect: without autapses the diagonal is zero and has no gradient."""
        if self.autapses:
            return self.recurrent_weights
        return self.recurrent_weights.masked_fill(self.get_buffer("_diagonal"), 0.0)

    def resting(self, like: Tensor, shape: Sequence[int] | None = None) -> Any:
        return initial_state(self.state, self.p, like, self.recurrent_state, shape)

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}, {super().extra_repr()}, autapses={self.autapses}"


class RecurrentCell(_Recurrent):
    """One step of neurons that hear each other's last spikes.

    ::

        x             = input_weights input + recurrent_weights z(t-1)
        x             = input + recurrent_weights z(t-1)                      where input_size is None
        z, state      = step(x, state)

    Shapes:
        input ``[B, M]``, output and every field of the state ``[B, N]``; ``state=None`` is the resting state.

    Raises:
        ValueError: weights, a parameter, the state or the first input (``state=None``) do not fit.
    """

    over_time = False

    def forward(self, input: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        check_dense(input)
        recurrence = self.recurrence()
        if state is None:
            check_input(input)
            check_numbers("recurrent_weights", recurrence)
            if self.input_weights is not None:
                check_numbers("input_weights", self.input_weights)
        current = input
        if self.input_weights is not None:
            current = nn.functional.linear(input, self.input_weights)
        elif input.shape[-1:] != (self.hidden_size,):
            raise ValueError(f"input must be [B, {self.hidden_size}], got shape {list(input.shape)}")
        return self.once(current, state, self.recurrent_state, recurrence)


class RecurrentLayer(_Recurrent, OverTime):
    """Neurons that hear each other's last spikes, over time: :class:`RecurrentCell` for a whole sequence.

    Shapes:
        input ``[T, B, M]``, output ``[T, B, N]``, every field of the state ``[B, N]``; ``state=None`` is the
        resting state.

    Raises:
        ValueError: ``backend`` is none, weights or a parameter do not fit, and see :func:`snnlib.engine.scan`.
    """

    _own: tuple[str, ...] = (*_Recurrent._own, *OverTime._own)

    def __init__(
        self,
        step: Step,
        input_size: int | None,
        hidden_size: int,
        p: Any = None,
        dt: float | None = None,
        *,
        state: Any = None,
        backend: Backend = "auto",
        checkpoint_every: int | None = None,
        record_states: bool = False,
        input_weights: Tensor | None = None,
        recurrent_weights: Tensor | None = None,
        autapses: bool = False,
    ) -> None:
        weights = {"input_weights": input_weights, "recurrent_weights": recurrent_weights}
        super().__init__(step, input_size, hidden_size, p, dt, state=state, autapses=autapses, **weights)
        self.run_by(backend, checkpoint_every, record_states)

    def forward(self, input: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        if self.record_states:
            return recorded(self, input, state)
        return in_chunks(self.run, input, state, self.checkpoint_every, adjoint.is_exact(self.p))

    def run(self, input: Tensor, state: Any) -> tuple[Tensor, Any]:
        """What ``forward`` does, with the last state, also where that records all."""
        check_dense(input)
        if state is None and input.dim() > 1:
            state = self.resting(input, (*input.shape[1:-1], self.hidden_size))
        return scan(
            self.step,
            input,
            state,
            self.p,
            dt=self.dt,
            recurrent_weights=self.recurrence(),
            input_weights=self.input_weights,
            backend=self.backend,
        )


def _drawn(rows: int, columns: int) -> Tensor:
    scale: float = (2.0 / max(columns, 1)) ** 0.5
    return torch.randn(rows, columns) * scale


def _weights(name: str, given: Tensor | None, rows: int, columns: int | None) -> Any:
    if columns is None:
        if given is not None:
            raise ValueError(f"input_size=None gives the neurons their currents; it does not go with {name}")
        return None
    if given is None:
        given = _drawn(rows, columns)
    if given.shape != (rows, columns):
        raise ValueError(f"{name} must be [{rows}, {columns}], got shape {list(given.shape)}")
    return nn.Parameter(given.detach().clone())
