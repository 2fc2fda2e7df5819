"""What modules do with parameters: tensors among them are registered, and others can take their place."""

from types import NoneType
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.utils._pytree import tree_leaves

from snnlib.engine.check import check_kind_of_parameters, check_parameters, check_stable, fields_of, warn
from snnlib.functional.threshold import check_method

__all__ = ["Parametric", "described", "register"]


class Parametric(nn.Module):
    """A module with parameters ``p``, a NamedTuple, which are registered: what is a ``torch.nn.Parameter``
    learns, what is a tensor moves with ``.to()``, both stand in the ``state_dict`` under the names that ``p``
    gives them.

    ``module.p = module.p._replace(alpha=50.0)`` gives it others of the same class.

    Parameters:
        p: the parameters, or None for none.
        usual: those that are the default, against which ``p`` is held, or None.
        dt: time step in s.

    Raises:
        ValueError: ``p`` or ``dt`` has a value that no neuron can have, ``p`` is of another class, holds a
            tensor in a container, or a tensor of it has the name of something that the module has.
        AttributeError: a number of ``p`` is assigned to the module itself.
    """

    _own: tuple[str, ...] = ()
    """What it has beside its parameters, of which numbers may have the same names."""
    _numbers: Any = None
    _tensors: tuple[str, ...] = ()
    _usual: Any = None

    def __init__(self, p: Any, usual: Any, dt: float) -> None:
        super().__init__()
        self.dt, self._usual = dt, usual
        self._check(p)
        self._take(p)

    def _check(self, p: Any) -> None:
        check_kind_of_parameters(p, self._usual)
        _refuse_hidden(p)
        check_parameters(p, self.dt)
        check_stable(p, self.dt)
        tensors = [(name, value) for name, value in fields_of(p) if isinstance(value, Tensor)]
        for name, _ in tensors:
            if name in self._own or (name not in self._tensors and hasattr(self, name)):
                raise ValueError(
                    f"p.{name} cannot be a tensor, for the module has a {name} of its own: rename the parameter"
                )
        if hasattr(p, "method"):
            check_method(p.method, getattr(p, "alpha", None))
        for name, value in tensors:
            if not isinstance(value, nn.Parameter) and value.is_leaf:
                _warn_of_unseen(name, value)

    def _take(self, p: Any) -> None:
        """Register the tensors, each in the place that it had before, in which optimisers look for it."""
        tensors = {name: value for name, value in fields_of(p) if isinstance(value, Tensor)}
        computed = [name for name in self._tensors if name not in self._parameters | self._buffers]
        changed = [name for name in computed if self._changes(name, tensors.get(name))]
        for name in changed:  # all of which can be
            setattr(self, name, tensors[name])  # the parametrization goes back from it
        for name in ("_parameters", "_buffers"):  # a copy by copy.copy has the same ones
            self.__dict__[name] = dict(self.__dict__[name])
        for name in self._tensors:
            held = self._parameters if isinstance(tensors.get(name), nn.Parameter) else self._buffers
            if name not in computed and (name not in tensors or name not in held):
                delattr(self, name)
        self._tensors = tuple(tensors)
        for name, value in tensors.items():
            if name not in computed:
                register(self, name, value)
        # only the numbers stay here: what is registered may be moved, copied or replaced
        self._numbers = p._replace(**dict.fromkeys(tensors)) if tensors else p

    def _changes(self, name: str, value: Tensor | None) -> bool:
        """Whether a tensor that torch computes of what it registered in its place gets another value.

        Raises:
            ValueError: it cannot.
        """
        now = getattr(self, name)
        if value is not None and (value is now or (value.shape == now.shape and bool((value == now).all()))):
            return False
        made: Any = self.parametrizations[name] if is_parametrized(self, name) else ()  # type: ignore[index]
        if value is None or not made or not all(hasattr(each, "right_inverse") for each in made):
            raise ValueError(
                f"p.{name} is computed of other tensors, by a parametrization or pruning, and stays so: "
                f"remove that before p gets another {name}"
            )
        return True

    @property
    def p(self) -> Any:
        """The parameters, with the tensors that the module holds now."""
        if not self._tensors:
            return self._numbers
        return self._numbers._replace(**{name: getattr(self, name) for name in self._tensors})

    @p.setter
    def p(self, p: Any) -> None:
        if type(p) is not type(self._numbers):
            raise ValueError(f"p must be {type(self._numbers).__name__}(...), as it was, got {p!r}")
        self._check(p)
        self._take(p)

    def __setattr__(self, name: str, value: Any) -> None:
        self._refuse_number(name)
        super().__setattr__(name, value)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        self._refuse_number(name)
        super().register_parameter(name, param)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        self._refuse_number(name)
        super().register_buffer(name, tensor, persistent)

    def _refuse_number(self, name: str) -> None:
        """Refuse to hold what p, which has a number of this name, would not see."""
        numbers = getattr(self._numbers, "_fields", ())
        if name in numbers and name not in (*self._tensors, *self._own) and not hasattr(self, name):
            raise AttributeError(f"{name} is a number of p: use layer.p = layer.p._replace({name}=...)")

    def extra_repr(self) -> str:
        return described(**(self.p._asdict() if self.p is not None else {}), dt=self.dt)


def _warn_of_unseen(name: str, value: Tensor) -> None:
    if value.requires_grad:
        warn(
            f"p.{name} requires a gradient and is no torch.nn.Parameter: an optimiser of module.parameters() "
            "does not see it; use torch.nn.Parameter(...)"
        )


_PLAIN = float, str, int, NoneType, Tensor
"""What is no container, of the kinds that parameters nearly always are."""


def _refuse_hidden(p: Any) -> None:
    """Refuse tensors within a field: no optimiser, no ``.to()`` and no ``state_dict`` would see them.

    Raises:
        ValueError: a field is a container that holds one.
    """
    for name, value in fields_of(p):
        if not isinstance(value, _PLAIN) and any(isinstance(leaf, Tensor) for leaf in tree_leaves(value)):
            raise ValueError(
                f"p.{name} is a {type(value).__name__} that holds a tensor, which the module would not see: "
                "make the tensor a field of p"
            )


def register(module: nn.Module, name: str, value: Any) -> None:
    """Let a module hold a value: one that learns, one that moves with it, or a plain attribute."""
    if isinstance(value, nn.Parameter):
        module.register_parameter(name, value)
    elif isinstance(value, Tensor):
        module.register_buffer(name, value)
    else:
        setattr(module, name, value)


def described(**values: Any) -> str:
    """Values for an ``extra_repr``; of tensors the shape."""
    shown = {k: tuple(v.shape) if isinstance(v, Tensor) else v for k, v in values.items()}
    return ", ".join(f"{name}={value}" for name, value in shown.items())
