"""Containers that thread state through a network: SequentialState and RecurrentSequential."""

from collections.abc import Callable
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from snnlib.engine import adjoint
from snnlib.engine.check import checked_part, warn
from snnlib.engine.checkpoint import in_chunks
from snnlib.module.lift import Lift, batched, is_stateful, refuse_misfit, time_of

__all__ = ["RecurrentSequential", "RecurrentSequentialState", "SequentialState"]


class SequentialState(nn.Sequential):
    """A chain of modules, of which those with a state are handed theirs.

    ::

        output, state = net(input, state)

    Where the neurons take sequences (``LIF``, ``LIFRecurrent``, ``nn.LSTM``, ...) the input is a sequence
    ``[T, B, *features]``, and a module without a state (``nn.Linear``, ``nn.Conv2d``, ...) runs once over
    ``[T*B, *features]``. Where they take single steps (``LIFCell``, ...) the input is one step
    ``[B, *features]`` and every module runs as it is. A module without a state that needs to see time, such as
    :class:`.SpikeLatencyEncoder`, sets ``over_time = True`` and is given the sequence ``[T, B, *features]``.

    A sequence that is one step repeated without a copy (``x.expand(T, ...)``) passes the modules without a
    state once, not T times, until the first neuron or the first module that draws random numbers of torch's,
    which are drawn for each step. (A module of your own is run until it draws, the first time, and then anew:
    hooks before its draw are called twice, buffers are put back. ``torch.compile`` sees what dropout draws, but
    not what a module of your own draws: give it ``x.expand(T, ...).clone()``.) A batch norm there sees each
    value once instead of T times: the same mean and variance, and a running variance that is larger by the
    factor (n - 1/T) / (n - 1) with n = values per channel of one step.

    Parameters:
        modules: the chain, or one OrderedDict, as for ``nn.Sequential``.
        return_hidden: return the output of every module, a list, in place of the last one.
        checkpoint_every: for the backward pass keep the states every so many steps only, and compute all
            between again, see :func:`snnlib.engine.checkpoint.in_chunks`.
        chunk_size: take so many steps through the whole chain at a time, for the same result. Where a tensor of
            all steps is larger than 32 MB this is faster on a CPU, unless the process keeps its memory
            (:func:`snnlib.engine.keep_memory`), and without gradients takes less memory.

    Shapes:
        The state is a list with one entry a module, None for those that have none; ``state=None`` starts
        at rest.

    Warns:
        UserWarning: modules have different time steps ``dt``, or a module of one's own that takes rows has an
            attention without ``batch_first=True``, which attends over samples and steps unless it is turned
            round: it may be right, and in a transformer of torch's this is refused.

    Raises:
        ValueError: modules that take sequences and modules that take steps are mixed (wrap the cells in
            :class:`.Lift`), a module with a state, or one that needs to see time, hides in an
            ``nn.Sequential``, a module takes more than one tensor or does not keep the batch, the state has
            another length, or ``checkpoint_every`` or ``chunk_size`` is no number of steps or meets a batch
            norm in training or what has no state and needs to see time, which would see each chunk alone.
    """

    def __init__(
        self,
        *modules: Any,
        return_hidden: bool = False,
        checkpoint_every: int | None = None,
        chunk_size: int | None = None,
    ) -> None:
        super().__init__(*modules)
        self.return_hidden = return_hidden
        self.checkpoint_every = checked_part("checkpoint_every", checkpoint_every)
        self.chunk_size = checked_part("chunk_size", chunk_size)
        self._state_hooks: list[RemovableHandle] = []
        self._outer_time: bool | None = None  # what a chain without neurons takes from the chain around it
        self._look()
        _warn_of_time_steps(self)

    def _look(self) -> None:
        """Learn what the modules are; again before each run, because a chain can be edited."""
        time = _common_time(self)
        self.over_time = self._outer_time if time is None else time
        self._stateful = tuple(is_stateful(module) for module in self)
        for module in self:
            if isinstance(module, SequentialState):
                module._outer_time = self.over_time
                module._look()
        if self._in_parts():
            _refuse_timed(self)

    def __setitem__(self, index: Any, module: nn.Module) -> None:
        super().__setitem__(index, module)
        self._look()

    def __getitem__(self, index: Any) -> Any:
        chosen = super().__getitem__(index)
        if isinstance(chosen, SequentialState) and isinstance(index, slice):
            for name, value in self._options().items():
                setattr(chosen, name, value)
        return chosen

    def __add__(self, other: Any) -> "SequentialState":
        return SequentialState(*self, *other, **self._options())

    def __mul__(self, times: int) -> "SequentialState":
        return SequentialState(*list(self) * times, **self._options())

    __rmul__ = __mul__

    if TYPE_CHECKING:  # nn.Module's gives Any

        def __call__(self, input: Tensor, state: Any = None) -> tuple[Any, list[Any]]: ...

    def _in_parts(self) -> bool:
        return self.checkpoint_every is not None or self.chunk_size is not None

    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("return_hidden", "checkpoint_every", "chunk_size")}

    def register_forward_state_hooks(self, forward_hook: Callable[[nn.Module, Any, Any], Any]) -> None:
        """Call ``forward_hook(module, input, output)`` whenever a module with a state has run.

        Raises:
            ValueError: there are such hooks already.
        """
        if self._state_hooks:
            raise ValueError("there are forward state hooks already; call remove_forward_state_hooks() first")
        modules = dict.fromkeys(self)  # one may stand in the chain twice
        self._state_hooks = [m.register_forward_hook(forward_hook) for m in modules if is_stateful(m)]

    def remove_forward_state_hooks(self) -> None:
        """Take the hooks of :meth:`register_forward_state_hooks` away."""
        while self._state_hooks:
            self._state_hooks.pop().remove()

    def forward(self, input: Tensor, state: Any = None) -> tuple[Any, list[Any]]:
        if not torch.compiler.is_dynamo_compiling():
            self._look()
        state = [None] * len(self) if state is None else list(state)
        if len(state) != len(self):
            raise ValueError(f"state must have one entry for each of {len(self)} modules, got {len(state)}")
        if not self.over_time or not self._in_parts():
            return self._run(input, state)
        _refuse_whole(self)
        exact = any(adjoint.is_exact(getattr(module, "p", None)) for module in self.modules())

        def run(input: Tensor, state: list[Any]) -> tuple[Any, list[Any]]:
            return in_chunks(self._run, input, state, self.chunk_size, exact, again=False)

        return cast(tuple[Any, list[Any]], in_chunks(run, input, state, self.checkpoint_every, exact))

    def _run(self, input: Tensor, state: list[Any]) -> tuple[Any, list[Any]]:
        state, hidden = list(state), []
        once = None
        for index, (name, module) in enumerate(self._modules.items()):
            if self._stateful[index]:
                (input, state[index]), once = module(input, state[index]), None
            elif self.over_time and not time_of(module):
                input, once = batched(name, module, input, once)
            else:
                input, once = module(input), None
            hidden.append(input)
        return (hidden if self.return_hidden else input), state


def _warn_of_time_steps(net: SequentialState) -> None:
    steps = {dt for module in net.modules() if isinstance(dt := getattr(module, "dt", None), Real)}
    if len(steps) > 1:
        warn(f"modules of one SequentialState have different time steps: dt={sorted(steps)} s")


def _refuse_timed(net: nn.Module) -> None:
    """Of a sequence in parts, refuse what has no state and needs to see time: it would see each part alone."""
    for name, module in net.named_modules():
        if getattr(module, "over_time", None) and not isinstance(module, Lift) and not is_stateful(module):
            raise ValueError(
                f"checkpoint_every and chunk_size do not go with {name} ({type(module).__name__}), which needs "
                "to see the whole sequence"
            )


def _refuse_whole(net: nn.Module) -> None:
    """Of a sequence in parts, refuse what needs all of it, or gives what the next part cannot take."""
    for name, module in net.named_modules():
        if getattr(module, "record_states", False):
            raise ValueError(
                f"checkpoint_every and chunk_size do not go with record_states=True of {name}: the next chunk "
                "cannot begin with the states of all steps"
            )
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            raise ValueError(
                f"checkpoint_every and chunk_size do not go with the batch norm {name} in training: it would "
                "see each chunk of the sequence alone"
            )


def _gives_list(net: nn.Module) -> bool:
    """Whether the output of a chain is a list, its own or that of the chain at its end."""
    return isinstance(net, SequentialState) and (net.return_hidden or (len(net) > 0 and _gives_list(net[-1])))


def _common_time(net: SequentialState) -> bool | None:
    times = {}
    before = None
    for name, module in net.named_children():
        if before is not None and _gives_list(net._modules[before]):
            raise ValueError(
                f"module {before} returns a list (return_hidden=True), {name} behind it wants a tensor"
            )
        before = name
        refuse_misfit(name, module)
        time = _common_time(module) if isinstance(module, SequentialState) else time_of(module)
        if time is not None:
            times[name] = time
    if len(set(times.values())) > 1:
        steps = [name for name, over in times.items() if not over]
        raise ValueError(f"modules {steps} take single steps, the others sequences; wrap them in Lift")
    return next(iter(times.values()), None)


class RecurrentSequentialState(NamedTuple):
    """State of a :class:`RecurrentSequential`."""

    cache: Any = None
    """The output that is added to the next input."""
    state: Any = None
    """The states of the modules."""


torch.serialization.add_safe_globals([RecurrentSequentialState])  # see snnlib.functional


class RecurrentSequential(nn.Module):
    """A chain of modules for single steps, whose output is added to the input of the next step.

    ::

        output, state.state = SequentialState(modules)(input + state.cache, state.state)
        state.cache         = output

    Parameters:
        modules: the chain, as for :class:`SequentialState`.
        output_modules: the index of the module whose output is returned and fed back; or a list of them, whose
            outputs are returned as a list and fed back as their sum.

    Shapes:
        input ``[B, *features]``, and so is what is fed back. ``state=None`` feeds nothing back.

    Raises:
        ValueError: a module takes sequences; :class:`.Lift` around the whole runs it over one.
    """

    over_time = False

    def __init__(self, *modules: nn.Module, output_modules: int | list[int] = -1) -> None:
        super().__init__()
        self.module, self.output_modules = SequentialState(*modules, return_hidden=True), output_modules
        if self.module.over_time:
            raise ValueError(
                "RecurrentSequential is for modules that take single steps, LIFCell in the place of LIF say; "
                "Lift around the whole runs it over a sequence"
            )

    def forward(
        self, input: Tensor, state: RecurrentSequentialState | None = None
    ) -> tuple[Any, RecurrentSequentialState]:
        state = RecurrentSequentialState() if state is None else state
        chosen = self.output_modules
        if state.cache is not None:
            input = input + (state.cache if isinstance(chosen, int) else sum(state.cache))
        hidden, inner = self.module(input, state.state)
        output = hidden[chosen] if isinstance(chosen, int) else [hidden[index] for index in chosen]
        return output, RecurrentSequentialState(output, inner)
