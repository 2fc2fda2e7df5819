"""Parameters that take the place of others: slopes that are annealed, tensors that become numbers and back."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.parametrize import register_parametrization

from snnlib import LIF, LIFCell, LIFParameters, LIFRecurrent, LIFRefracParameters, SequentialState
from tests.module.kinds import N, build, every_kind, every_neuron, first_number, learnable, run, sample
from tests.neurons import SPIKING, name_of, same

pytestmark = pytest.mark.usefixtures("seeded")


def gradients(module, kind, x):
    """Output, last states, and the gradient of the input."""
    x = x.clone().requires_grad_()
    output, state = run(module, kind, x)
    (gradient,) = torch.autograd.grad(output.sum() + sum(v.square().sum() for v in state), x)
    return [output, *state, gradient]


@every_kind
@pytest.mark.parametrize("neuron", SPIKING, ids=name_of)
def test_other_parameters_are_those_of_a_module_that_is_made_with_them(neuron, kind):
    before = neuron.parameters(method="arctan")
    name = first_number(neuron)
    after = before._replace(alpha=7.0, **{name: 1.2 * getattr(before, name)})
    module, made = build(neuron, kind, before), build(neuron, kind, after)
    made.load_state_dict(module.state_dict())
    x = sample(neuron, kind.replace("cell", "layer"), 30)
    first = gradients(module, kind, x)
    module.p = after
    assert module.p == after
    wanted = gradients(made, kind, x)
    assert not torch.equal(wanted[-1], first[-1])
    for other in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        same(gradients(other, kind, x), wanted)


@pytest.mark.parametrize(
    "made", [LIF, lambda p, **options: LIFRecurrent(N, N, p, **options)], ids=["LIF", "recurrent"]
)
def test_a_fused_loop_takes_other_parameters(made):
    """Forward (another threshold) and backward (another slope)."""
    x = 2 * torch.rand(40, 2, N)
    fused, plain = (made(LIFParameters(method="arctan"), backend=backend) for backend in ("auto", "reference"))
    plain.load_state_dict(fused.state_dict())
    last = None
    for changes in (
        {},
        {"alpha": 9.0},
        {"v_th": 0.6},
        {"v_th": torch.full((N,), 0.5)},
        {"v_th": 0.5, "alpha": 2.0},
    ):
        for layer in (fused, plain):
            layer.p = layer.p._replace(**changes)
        found, wanted = gradients(fused, "layer", x), gradients(plain, "layer", x)
        same(found, wanted, rtol=1e-5, atol=1e-5)
        assert last is None or not torch.equal(found[-1], last)
        last = found[-1]


def test_torch_compile_takes_other_parameters():
    layer, x = LIF(backend="reference"), 2 * torch.rand(9, 2, N)
    compiled = torch.compile(layer, backend="eager")
    first, _ = compiled(x)
    layer.p = layer.p._replace(v_th=0.2)
    second, _ = compiled(x)
    assert second.sum() > first.sum()
    same(second, layer(x)[0])


@every_kind
@every_neuron
def test_tensors_are_registered_and_let_go(neuron, kind):
    """A number, a buffer, a parameter, and back again; other parameters keep their places for an optimiser."""
    module = build(neuron, kind, learnable(neuron))
    name = first_number(neuron)
    order = [key for key, _ in module.named_parameters()]
    module.p = module.p._replace(**{name: nn.Parameter(torch.full((N,), 90.0))})
    assert [key for key, _ in module.named_parameters()] == order
    assert getattr(module, name)[0] == 90.0
    tensor = torch.full((N,), 80.0)
    module.p = module.p._replace(**{name: tensor})
    assert [key for key, _ in module.named_parameters()] == [key for key in order if key != name]
    assert dict(module.named_buffers())[name] is tensor
    module.p = module.p._replace(**{name: 70.0})
    assert name not in module.state_dict()
    assert getattr(module.p, name) == 70.0
    assert not hasattr(module, name)
    module.p = module.p._replace(**{name: nn.Parameter(tensor)})
    assert name in dict(module.named_parameters())
    run(module, kind, sample(neuron, kind.replace("cell", "layer")))


def test_an_optimiser_keeps_what_it_trains():
    tau = nn.Parameter(torch.tensor(100.0))
    layer = LIF(LIFParameters(tau_mem_inv=tau))
    for alpha in (10.0, 50.0):
        layer.p = layer.p._replace(alpha=alpha)
    assert layer.tau_mem_inv is tau
    assert list(layer.parameters()) == [tau]


def test_a_tensor_that_is_computed_from_another_stays_so():
    layer = LIF(LIFParameters(tau_mem_inv=nn.Parameter(torch.tensor(100.0))))
    register_parametrization(layer, "tau_mem_inv", nn.Softplus())
    layer.p = layer.p._replace(alpha=10.0)
    assert layer.p.alpha == 10.0
    assert [name for name, _ in layer.named_parameters()] == ["parametrizations.tau_mem_inv.original"]


@pytest.mark.parametrize(("change", "says"), [
    ({"alpha": -1.0}, r"alpha must be a positive number, got alpha=-1\.0"),
    ({"tau_mem_inv": -5.0}, r"tau_mem_inv=-5\.0"),
    ({"tau_mem_inv": torch.tensor([1.0, -1.0])}, "tau_mem_inv must be a finite rate"),
    ({"method": "nonsense"}, "method='nonsense'"),
    ({"v_th": "1"}, "p.v_th must be a number or a tensor, got '1'"),
    ({"v_reset": math.nan}, "p.v_reset must be a number, got nan"),
])  # fmt: skip
def test_other_parameters_are_checked_as_the_first_ones(change, says):
    for module in (LIF(), LIFCell(), LIFRecurrent(3, N)):
        before = module.p
        with pytest.raises(ValueError, match=says):
            module.p = module.p._replace(**change)
        assert module.p == before
        assert not hasattr(module, next(iter(change)))


@pytest.mark.parametrize("p", [None, 0.5, LIFRefracParameters(), {"alpha": 1.0}], ids=repr)
def test_other_parameters_are_of_the_same_class(p):
    with pytest.raises(ValueError, match=r"p must be LIFParameters\(\.\.\.\), as it was, got"):
        LIF().p = p


def test_a_rate_that_is_too_fast_is_warned_of_where_it_is_assigned():
    layer = LIF()
    with pytest.warns(UserWarning, match="tau_mem_inv=2500/s is too fast") as seen:
        layer.p = layer.p._replace(tau_mem_inv=2500.0)
    assert seen[0].filename == __file__


@pytest.mark.parametrize("name", ["v_th", "alpha", "method", "tau_mem_inv"])
@pytest.mark.parametrize("value", [50.0, torch.tensor(50.0), nn.Parameter(torch.tensor(50.0))], ids=repr)
def test_a_number_of_p_is_not_assigned_to_the_layer(name, value):
    for module in (LIF(), LIFCell(), LIFRecurrent(3, N), SequentialState(LIF())[0]):
        with pytest.raises(AttributeError, match=rf"use layer\.p = layer\.p\._replace\({name}=\.\.\.\)"):
            setattr(module, name, value)
        assert not module.state_dict().keys() & {name}


def test_a_tensor_that_is_registered_is_assigned():
    layer = LIF(LIFParameters(tau_mem_inv=nn.Parameter(torch.tensor(100.0)), v_th=torch.tensor(0.5)))
    layer.tau_mem_inv, layer.v_th = nn.Parameter(torch.tensor(90.0)), nn.Parameter(torch.tensor(0.4))
    assert (layer.p.tau_mem_inv.item(), layer.p.v_th.item()) == (90.0, pytest.approx(0.4))
    assert len(list(layer.parameters())) == 2


class Own(LIF):
    """With attributes of its own by names that p has too."""

    v_reset = None

    def __init__(self) -> None:
        self.alpha = "mine"
        super().__init__()
        self.alpha = self.v_reset = "still mine"


def test_an_attribute_of_ones_own_stays():
    own = Own()
    assert (own.alpha, own.v_reset, own.p.alpha) == ("still mine", "still mine", None)
    same(own(torch.ones(3, 1, 2)), LIF()(torch.ones(3, 1, 2)))


def learning() -> LIF:
    return LIF(LIFParameters(tau_mem_inv=nn.Parameter(torch.linspace(50.0, 150.0, N))))


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("change", "shares"),
    [
        (lambda layer: prune.l1_unstructured(layer, "tau_mem_inv", 3), True),
        (lambda layer: nn.utils.weight_norm(layer, "tau_mem_inv", dim=None), True),
        (lambda layer: register_parametrization(layer, "tau_mem_inv", nn.Softplus()), False),
    ],
    ids=["pruned", "weight_norm", "parametrization"],
)
def test_a_tensor_that_torch_computes_stays_so(change, shares):
    """Other numbers may come beside it; another value for itself is refused, or a parametrization takes it."""
    layer, x = learning(), 2 * torch.rand(20, 2, N)
    change(layer)
    names = set(layer.state_dict())
    assert len(names) == (2 if shares else 1)
    layer.p = layer.p._replace(v_th=0.5)
    assert set(layer.state_dict()) == names
    made = LIF(LIFParameters(tau_mem_inv=layer.p.tau_mem_inv.detach(), v_th=0.5))
    same(layer(x), made(x))
    with pytest.raises(ValueError, match=r"p\.tau_mem_inv is computed of other tensors"):
        layer.p = layer.p._replace(tau_mem_inv=100.0, v_th=0.7)
    assert layer.p.v_th == 0.5
    if shares:
        with pytest.raises(ValueError, match=r"p\.tau_mem_inv is computed of other tensors"):
            layer.p = layer.p._replace(tau_mem_inv=torch.full((N,), 70.0))


class Exponential(nn.Module):
    def forward(self, value):
        return value.exp()

    def right_inverse(self, value):
        return value.log()


def test_a_parametrization_goes_back_from_another_value():
    layer = learning()
    register_parametrization(layer, "tau_mem_inv", Exponential())
    wanted = layer.tau_mem_inv.detach().clone()
    wanted[1:] = 70.0
    layer.p = layer.p._replace(tau_mem_inv=wanted)
    torch.testing.assert_close(layer.p.tau_mem_inv, wanted)


def test_what_is_refused_changes_nothing():
    """Also of several tensors that torch computes, of which one could have been changed."""
    tensors = {name: nn.Parameter(torch.full((N,), 90.0)) for name in ("tau_syn_inv", "tau_mem_inv")}
    for change, last in ((Exponential(), 50.0), (nn.Softplus(), torch.full((N,), 50.0))):
        layer = LIF(LIFParameters(**tensors))
        register_parametrization(layer, "tau_syn_inv", Exponential())
        register_parametrization(layer, "tau_mem_inv", change)
        before = layer.p._replace(v_th=0.0)
        with pytest.raises(ValueError, match=r"p\.tau_mem_inv is computed of other tensors"):
            layer.p = layer.p._replace(tau_syn_inv=torch.full((N,), 150.0), tau_mem_inv=last)
        assert torch.equal(layer.p.tau_syn_inv, before.tau_syn_inv)
        assert torch.equal(layer.p.tau_mem_inv, before.tau_mem_inv)


def test_a_tensor_is_put_where_a_parameter_was_taken_away():
    """As torch.nn.DataParallel and networks that make others' weights do."""
    layer = learning()
    rates = 2 * layer.tau_mem_inv
    del layer.tau_mem_inv
    layer.tau_mem_inv = rates
    layer(torch.rand(9, 2, N))[0].sum().backward()
    assert layer.p.tau_mem_inv is rates


def test_a_shallow_copy_has_parameters_of_its_own():
    layer = learning()
    rates = layer.tau_mem_inv
    other = copy.copy(layer)
    other.p = other.p._replace(tau_mem_inv=80.0)
    assert layer.p.tau_mem_inv is rates
    assert list(layer.parameters()) == [rates]
    assert not list(other.parameters())
