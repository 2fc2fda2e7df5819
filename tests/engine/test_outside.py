"""What a step reads beside its arguments: numbers may change, tensors are never taken for numbers."""

import functools
import gc
import weakref
from collections import deque
from enum import Enum
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from snnlib import Layer, LIFParameters, UntraceableError, lif_feed_forward_step, scan, spike, spike_slopes
from snnlib.engine import kernel
from snnlib.engine.llvm import machine
from snnlib.engine.outside import outside
from tests.neurons import generator

LEAK = 0.9
HERE = SimpleNamespace(leak=0.9, other=1)


class State(NamedTuple):
    v: Tensor


class Parameters(NamedTuple):
    method: Any = "super"
    alpha: float | None = None


def of_leak(leak: float, input: Tensor, state: State) -> tuple[Tensor, State]:
    v = leak * state.v + input
    return spike(v - 1.0), State(v)


class Net(nn.Module):
    rate = 0.9

    def __init__(self, leak: Any = 0.9) -> None:
        super().__init__()
        self.leak = leak
        self.by_attribute, self.by_class = Layer(self.step), Layer(self.step_of_class)
        self.by_mode, self.by_helper = Layer(self.step_of_mode), Layer(self.step_of_helper)

        def inner(input: Tensor, state: State, p: Any = None, dt: float = 0.001):
            return of_leak(self.leak, input, state)

        self.by_closure = Layer(inner)

    def step(self, input: Tensor, state: State, p: Any = None, dt: float = 0.001):
        return of_leak(self.leak, input, state)

    def step_of_class(self, input: Tensor, state: State, p: Any = None, dt: float = 0.001):
        return of_leak(self.rate, input, state)

    def step_of_mode(self, input: Tensor, state: State, p: Any = None, dt: float = 0.001):
        return of_leak(0.9 if self.training else 0.5, input, state)

    def step_of_helper(self, input: Tensor, state: State, p: Any = None, dt: float = 0.001):
        return of_leak(self.helped(), input, state)

    def helped(self) -> Any:
        return self.leak


def global_step(input: Tensor, state: State, p: Any = None, dt: float = 0.001):
    return of_leak(LEAK, input, state)


def called() -> float:
    return HERE.leak


def calling_step(input: Tensor, state: State, p: Any = None, dt: float = 0.001):
    return of_leak(called(), input, state)


def drawn() -> Tensor:
    return torch.rand(30, 2, 6, generator=generator(4))


@pytest.mark.parametrize("which", ["by_attribute", "by_class", "by_mode", "by_helper", "by_closure"])
def test_a_number_of_a_net_may_change(which: str):
    net, x = Net(), drawn()
    layer = getattr(net, which)
    before = layer(x)[0]
    net.leak = net.rate = 0.5  # type: ignore[misc]
    net.eval()
    after = layer(x)[0]
    assert before.sum() > after.sum() > 0
    assert torch.equal(after, scan(layer.step, x, backend="reference")[0])
    net.leak = net.rate = 0.9  # type: ignore[misc]
    net.train()
    assert torch.equal(layer(x)[0], before)


def test_a_global_may_change(monkeypatch: pytest.MonkeyPatch):
    x = drawn()
    before = [scan(step, x)[0].sum() for step in (global_step, calling_step)]
    monkeypatch.setattr(f"{__name__}.LEAK", 0.5)
    monkeypatch.setattr(HERE, "leak", 0.5)
    after = [scan(step, x)[0].sum() for step in (global_step, calling_step)]
    assert before[0] == before[1] > after[0] == after[1]


class Held:
    """Keeps a number in containers."""

    def __init__(self) -> None:
        self.leak = {"list": [0.9], "inner": {"deep": (0.9, torch.ones(1))}, 3: deque([0.9])}
        self.array = np.array([0.9, 1.0])
        self.parts = nn.ModuleList([Net(), Net()])

    def from_list(self, input: Tensor, state: State, p: Any = None, dt: float = 0.001):
        return of_leak(self.leak["list"][0], input, state)

    def from_inner(self, input: Tensor, state: State, p: Any = None, dt: float = 0.001):
        return of_leak(self.leak["inner"]["deep"][0], input, state)

    def from_queue(self, input: Tensor, state: State, p: Any = None, dt: float = 0.001):
        return of_leak(self.leak[3][0], input, state)

    def from_array(self, input: Tensor, state: State, p: Any = None, dt: float = 0.001):
        return of_leak(float(self.array[0]), input, state)

    def from_modules(self, input: Tensor, state: State, p: Any = None, dt: float = 0.001):
        return of_leak(self.parts[1].leak, input, state)

    def set(self, leak: float) -> None:
        self.leak["list"][0] = self.leak[3][0] = self.array[0] = self.parts[1].leak = leak
        self.leak["inner"]["deep"] = leak, torch.ones(1)


@pytest.mark.parametrize("which", ["from_list", "from_inner", "from_queue", "from_array", "from_modules"])
def test_a_number_in_a_container_may_change(which: str):
    held, x = Held(), drawn()
    step = getattr(held, which)
    before = scan(step, x, backend="cpu")[0]
    held.set(0.5)
    after = scan(step, x, backend="cpu")[0]
    assert before.sum() > after.sum() > 0
    assert torch.equal(after, scan(step, x, backend="reference")[0])
    held.set(0.9)
    assert torch.equal(scan(step, x, backend="cpu")[0], before)


def configured_step(config: Any, input: Tensor, state: State, p: Any = None, dt: float = 0.001):
    return of_leak(config.leak if hasattr(config, "leak") else config["leak"], input, state)


@pytest.mark.parametrize("config", [{"leak": 0.9}, SimpleNamespace(leak=0.9)])
def test_an_argument_that_is_bound_may_change(config: Any):
    step, x = functools.partial(configured_step, config), drawn()
    before = scan(step, x, backend="cpu")[0]
    (config if isinstance(config, dict) else vars(config))["leak"] = 0.5
    after = scan(step, x, backend="cpu")[0]
    assert before.sum() > after.sum() > 0
    assert torch.equal(after, scan(step, x, backend="reference")[0])


class Mode(Enum):
    SLOW = 0.9
    FAST = 0.5


def test_a_member_of_an_enum_may_change(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(HERE, "leak", Mode.SLOW)

    def step(input: Tensor, state: State, p: Any = None, dt: float = 0.001):
        return of_leak(HERE.leak.value, input, state)

    before = scan(step, drawn(), backend="cpu")[0]
    monkeypatch.setattr(HERE, "leak", Mode.FAST)
    after = scan(step, drawn(), backend="cpu")[0]
    assert before.sum() > after.sum() > 0


LARGE = [dict.fromkeys(range(64), 0.5) | {"leak": 0.9}, [0.9] * 65, (0.9, 0.5) * 33, np.full(65, 0.9)]


@pytest.mark.parametrize("large", LARGE, ids=lambda large: type(large).__name__)
def test_with_large_containers_a_step_is_not_fused(large: Any):
    """To look at them would take longer than the loop, at every call, and each would be kept."""
    few, key = [0.25] * 64, "leak" if isinstance(large, dict) else 0

    def few_step(input: Tensor, state: State, p: Any = None, dt: float = 0.001):
        return of_leak(few[0], input, state)

    def large_step(input: Tensor, state: State, p: Any = None, dt: float = 0.001):
        return of_leak(float(large[key]), input, state)

    scan(few_step, drawn(), backend="cpu")
    with pytest.raises(UntraceableError, match=r"it reads large, which has \d\d items"):
        scan(large_step, drawn(), backend="cpu")
    with pytest.warns(UserWarning, match="large_step runs in the plain loop.*it reads large"):
        before = scan(large_step, drawn())[0]
    if isinstance(large, tuple):
        large = (0.5, *large[1:])
    else:
        large[key] = 0.5
    after = scan(large_step, drawn())[0]  # said once
    assert before.sum() > after.sum() > 0


def test_a_container_that_holds_itself_comes_to_an_end():
    loop: list[Any] = [0.5]
    loop.append(loop)

    def function() -> Any:
        return loop[0]

    assert [value for *_, value in outside(function)].count("0.5") >= 1


class Steep:
    """A surrogate of one's own with a slope that is annealed."""

    slope = 1.0

    def __call__(self, x: Tensor, alpha: Any) -> Tensor:
        soft = torch.sigmoid(self.slope * x)
        return (x > 0).to(x.dtype).detach() + soft - soft.detach()


def spiking_step(input: Tensor, state: State, p: Parameters = Parameters(), dt: float = 0.001):
    v = 0.9 * state.v + input
    z = spike(v - 1.0, p.method, p.alpha)
    return z, State(v * (1 - z))


def test_a_number_of_a_method_may_change():
    method = Steep()
    found = []
    for slope in (1.0, 10.0, 1.0):
        method.slope = slope
        gradients = []
        for backend in ("auto", "reference"):
            x = drawn().requires_grad_()
            scan(spiking_step, x, p=Parameters(method), backend=backend)[0].sum().backward()
            gradients.append(x.grad)
        torch.testing.assert_close(*gradients)
        found.append(gradients[0])
    assert torch.equal(found[0], found[2])
    assert not torch.allclose(found[0], found[1])


def test_what_is_seen_of_a_function():
    """Numbers by the names that the function reads, no others, and nothing is run to find them."""

    class Watched:
        depth = 2

        @property
        def width(self) -> float:
            raise AssertionError("nobody asked")

    it, unused, text = Watched(), 5, "a"

    def function() -> Any:
        return it.depth, it.width, text, LEAK, [LEAK for _ in range(HERE.other)]

    assert unused == 5
    found = {name: value for name, *_, value in outside(function)}
    assert found.pop("width") is Watched.width.fget.__code__  # type: ignore[attr-defined]
    assert found == {"depth": "2", "text": "'a'", "LEAK": "0.9", "other": "1"}
    assert set(outside(functools.partial(function))) == set(outside(function))
    assert outside(lif_feed_forward_step) == ()


@pytest.mark.parametrize("shape", [(), (1,), (6,)], ids=str)
def test_a_tensor_from_outside_is_no_number(shape: tuple[int, ...]):
    net, x = Net(torch.full(shape, 0.9)), drawn()
    with pytest.warns(
        UserWarning, match=r"plain loop.*a tensor of shape \[6?1?\] made outside of the step and not"
    ):
        before = net.by_attribute(x)[0]
    net.leak.fill_(0.5)
    after = net.by_attribute(x)[0]
    assert before.sum() > after.sum() > 0
    assert torch.equal(after, scan(net.step, x, backend="reference")[0])


def test_what_learns_outside_gets_its_gradient():
    gradients = []
    for backend in ("auto", "reference"):
        net = Net()
        net.leak = nn.Parameter(torch.tensor(0.9))
        x = drawn()
        if backend == "auto":
            with pytest.warns(UserWarning, match="which learns, made outside"):
                z, _ = scan(net.step, x)
        else:
            z, _ = scan(net.step, x, backend=backend)
        z.sum().backward()
        gradients.append(net.leak.grad)
    assert torch.equal(*gradients)
    assert gradients[0] != 0


def test_a_number_that_the_step_writes_into_a_tensor_is_one(recwarn: pytest.WarningsRecorder):
    def writing_step(input: Tensor, state: State, p: Any = None, dt: float = 0.001):
        return of_leak(torch.tensor(0.9) * input.new_tensor(1.0), input, state)  # type: ignore[arg-type]

    x = drawn()
    assert torch.equal(scan(writing_step, x)[0], scan(global_step, x)[0])
    assert not recwarn


def test_numbers_of_another_type_are_others():
    """Equal they are: True and 1, and NamedTuples of other names with the same values."""

    class Counted(NamedTuple):
        n: Any = 1

    def asking_step(input: Tensor, state: State, p: Any = Counted(), dt: float = 0.001):
        return input * (2.0 if p.n is True else 1.0), state

    class First(NamedTuple):
        a: float
        b: float

    class Second(NamedTuple):
        b: float
        a: float

    def named_step(input: Tensor, state: State, p: Any = First(0.0, 0.0), dt: float = 0.001):
        return input * p.a - p.b, state

    x = drawn()
    for step, first, second in (
        (asking_step, Counted(1), Counted(True)),
        (named_step, First(3, 1), Second(3, 1)),
    ):
        for p in (first, second):
            assert torch.equal(scan(step, x, p=p)[0], scan(step, x, p=p, backend="reference")[0])
        assert not torch.equal(scan(step, x, p=first)[0], scan(step, x, p=second)[0])


def other_step(input: Tensor, state: State, p: Parameters = Parameters(), dt: float = 0.001):
    v = state.v + 100 * dt * (input - state.v)
    return spike(v - 0.1, p.method, p.alpha), State(v)


class Fires:
    """An object that is a surrogate, and holds a net."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def __call__(self, x: Tensor, alpha: Any) -> Tensor:
        return self.net.fire(x, alpha)  # type: ignore[operator]


@pytest.mark.parametrize("runs", [False, True], ids=["only made", "run"])
def test_no_cache_keeps_a_net(runs: bool):
    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.neurons = Layer(self.step, Parameters())
            self.exact = Layer(self.step, Parameters("adjoint"))
            surrogates = self.fire, functools.partial(self.fire, scale=2.0), Fires(self)
            self.fired = nn.ModuleList(Layer(other_step, Parameters(each)) for each in surrogates)

        def fire(self, x: Tensor, alpha: Any, scale: float = 1.0) -> Tensor:
            return (x > 0).to(x.dtype) + 0 * scale * x

        def step(self, input: Tensor, state: State, p: Parameters = Parameters(), dt: float = 0.001):
            v = state.v + 100 * dt * (input - state.v)
            z = spike(v - 0.1, p.method, p.alpha)
            return z, State(v * (1 - z))

    net = Small()
    if runs:
        for layer in (net.neurons, net.exact, *net.fired):
            layer(drawn().requires_grad_())[0].sum().backward()
        spike_slopes(net.neurons, drawn())
    here = weakref.ref(net)
    del net
    layer = None
    gc.collect()
    assert here() is None


def test_machine_code_is_linked_once_for_all_numbers():
    def run(v_th: float) -> Tensor:
        x = drawn().requires_grad_()
        scan(lif_feed_forward_step, x, p=LIFParameters(v_th=v_th))[0].sum().backward()
        return x.grad

    first = run(0.123)
    linked = len(machine._LINKED)
    second = run(0.0456)
    assert len(machine._LINKED) == linked
    assert not torch.equal(first, second)


def test_kernels_are_not_kept_for_ever():
    """A graph keeps its own until it was gone back."""
    x = drawn().requires_grad_()
    early = scan(lif_feed_forward_step, x, p=LIFParameters(v_th=0.2))[0].sum()
    for k in range(300):
        scan(lif_feed_forward_step, x, p=LIFParameters(v_th=0.3 + k / 1000))
    gc.collect()
    assert len(kernel.KERNELS) < 300
    (gradient,) = torch.autograd.grad(early, x)
    again = scan(lif_feed_forward_step, x, p=LIFParameters(v_th=0.2))[0].sum()
    assert torch.equal(gradient, *torch.autograd.grad(again, x))


class Steeper(torch.autograd.Function):
    width = 1.0

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Any = None) -> Tensor:
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> Any:
        return gradient[0] / (Steeper.width + ctx.saved_tensors[0].abs()) ** 2, None


def test_a_method_may_be_a_function_of_autograds(monkeypatch: pytest.MonkeyPatch):
    found = []
    for width in (1.0, 0.1):
        monkeypatch.setattr(Steeper, "width", width)
        gradients = []
        for backend in ("auto", "reference"):
            x = drawn().requires_grad_()
            scan(spiking_step, x, p=Parameters(Steeper.apply), backend=backend)[0].sum().backward()
            gradients.append(x.grad)
        torch.testing.assert_close(*gradients)
        found.append(gradients[0])
    assert not torch.allclose(*found)


class Config(NamedTuple):
    leak: float = 0.9


class Slotted:
    __slots__ = ("leak",)

    def __init__(self, leak: float) -> None:
        self.leak = leak


def test_numbers_are_found_in_objects_of_any_kind(monkeypatch: pytest.MonkeyPatch):
    class Owner(NamedTuple):
        leak: float

        def step(self, input: Tensor, state: State, p: Any = None, dt: float = 0.001):
            return of_leak(self.leak, input, state)

    for kind in (Config, Slotted, lambda leak: SimpleNamespace(inner=SimpleNamespace(leak=leak), leak=leak)):
        it = [kind(0.9)]
        here = it[0]

        def reading_step(input: Tensor, state: State, p: Any = None, dt: float = 0.001):
            return of_leak(here.leak, input, state)  # noqa: B023

        before = scan(reading_step, drawn())[0]
        here = kind(0.5)
        after = scan(reading_step, drawn())[0]
        assert before.sum() > after.sum() > 0
    of_owner = [scan(Owner(leak).step, drawn())[0] for leak in (0.9, 0.5)]
    assert torch.equal(of_owner[0], before)
    assert torch.equal(of_owner[1], after)


def test_another_function_of_the_same_name_is_another(monkeypatch: pytest.MonkeyPatch):
    before = scan(calling_step, drawn())[0]
    monkeypatch.setattr(f"{__name__}.called", lambda: 0.5)
    assert before.sum() > scan(calling_step, drawn())[0].sum() > 0
