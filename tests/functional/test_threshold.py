"""The spike: H(x) forward, the surrogate of the docstring's table backward."""

import math
import re

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

import snnlib.functional as functional
from snnlib.functional import SURROGATES, spike, threshold
from snnlib.functional.threshold import reset

# the derivatives in the table of spike's docstring
DERIVATIVES = {
    "super": lambda x, a: np.power(1 + a * np.abs(x), -2.0),
    "triangle": lambda x, a: np.where(np.abs(x) < 1, a - a * np.abs(x), 0.0),
    "tanh": lambda x, a: 1 / np.cosh(a * x) ** 2,
    "circ": lambda x, a: np.power(1 + (x / a) ** 2, -1.5),
    "circ_dist": lambda x, a: np.power(1 + (x / a) ** 2, -1.5) / (2 * a),
    "logistic": lambda x, a: a / (2 * np.cosh(a * x) ** 2),
    "heavi_erfc": lambda x, a: np.exp(-a * a * x * x) * 1.1283791670955126,
    "sigmoid": lambda x, a: a / (4 * np.cosh(a * x / 2) ** 2),
    "arctan": lambda x, a: 2 * a / (4 + (math.pi * a * x) ** 2),
    "piecewise": lambda x, a: np.where(2 * a * np.abs(x) < 1, a, 0.0),
}

# what those are the derivatives of
PRIMITIVES = {
    "super": lambda x, a: x / (1 + a * np.abs(x)),
    "triangle": lambda x, a: a * (np.clip(x, -1, 1) - np.clip(x, -1, 1) * np.abs(np.clip(x, -1, 1)) / 2),
    "tanh": lambda x, a: np.tanh(a * x) / a,
    "circ": lambda x, a: a * x / np.hypot(a, x),
    "circ_dist": lambda x, a: x / np.hypot(a, x) / 2,
    "logistic": lambda x, a: 1 / (1 + np.exp(-2 * a * x)),
    "heavi_erfc": lambda x, a: np.vectorize(math.erf)(a * x) / a,
    "sigmoid": lambda x, a: 1 / (1 + np.exp(-a * x)),
    "arctan": lambda x, a: np.arctan(math.pi / 2 * a * x) / math.pi,
    "piecewise": lambda x, a: np.clip(a * x, -0.5, 0.5),
}

METHODS = sorted(DERIVATIVES)
SHARP = [method for method in METHODS if method != "logistic"]
# no kink of any surrogate at the alphas below: triangle's at 1, piecewise's at 1 / (2 alpha), super's at 0
POINTS = [-2.3, -0.9, -0.31, -0.04, -0.003, 0.002, 0.07, 0.24, 0.77, 1.4]
ALPHAS = [0.3, 1.0, 2.5, 100.0]


def derivative(x: torch.Tensor, method, alpha=None) -> torch.Tensor:
    x = x.detach().requires_grad_()
    (grad,) = torch.autograd.grad(spike(x, method, alpha).sum(), x)
    return grad


def table() -> dict[str, float]:
    """The methods and alphas that the docstring of spike lists."""
    rows, inside = {}, 0
    for line in spike.__doc__.splitlines():
        if re.match(r"\s*=====", line):
            inside += 1
        elif inside == 2:
            found = re.match(r"\s*(\w+)\s{2,}(.+?)\s{2,}([\d.]+)\s{2,}\S", line)
            assert found, line
            rows[found[1]] = float(found[3])
    return rows


def test_the_docstring_lists_every_surrogate_with_its_alpha():
    assert table() == {name: surrogate.alpha for name, surrogate in SURROGATES.items()}


def test_every_surrogate_is_tested_here():
    assert set(DERIVATIVES) == set(PRIMITIVES) == set(SURROGATES)


def test_threshold_is_spike():
    assert threshold is spike
    assert functional.threshold is functional.spike


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", SHARP)
def test_forward_is_the_heaviside_step(method, dtype):
    """1 above zero, 0 below, at zero and at minus zero, in the dtype and shape of x."""
    tiny = torch.finfo(dtype).tiny
    x = torch.tensor([[-3.0, -tiny, -0.0, 0.0], [tiny, 1e-3, 0.5, 30.0]], dtype=dtype)
    wanted = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]], dtype=dtype)
    torch.testing.assert_close(spike(x, method), wanted, rtol=0, atol=0)


@pytest.mark.parametrize("alpha", [None, 0.4, 6.0])
def test_logistic_fires_at_its_probability(alpha):
    """z is drawn: the rate is 1/2 + tanh(alpha x)/2 within five standard errors, and z is 0 or 1."""
    draws = 40_000
    x = torch.tensor([-1.3, -0.2, 0.0, 0.1, 0.6])
    torch.manual_seed(3)
    z = spike(x.expand(draws, 5), "logistic", alpha)
    assert set(z.unique().tolist()) == {0.0, 1.0}
    wanted = PRIMITIVES["logistic"](x.double().numpy(), 2.0 if alpha is None else alpha)
    error = np.sqrt(wanted * (1 - wanted) / draws)
    assert (np.abs(z.double().mean(0).numpy() - wanted) < 5 * error + 1 / draws).all()
    torch.manual_seed(3)
    torch.testing.assert_close(spike(x.expand(draws, 5), "logistic", alpha), z, rtol=0, atol=0)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("method", METHODS)
def test_backward_is_the_formula_of_the_table(method, alpha):
    x = torch.tensor([*POINTS, 0.0], dtype=torch.float64)
    wanted = DERIVATIVES[method](x.numpy(), alpha)
    # 1 - tanh^2 and s (1 - s) cancel far from the threshold, to rounding of the value at the threshold
    atol = 1e-15 * wanted.max()
    np.testing.assert_allclose(derivative(x, method, alpha).numpy(), wanted, rtol=1e-12, atol=atol)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("method", METHODS)
def test_backward_is_the_slope_of_the_primitive(method, alpha):
    """Central differences of a smooth step in closed form, at points away from its kinks."""
    x = np.array(POINTS)
    h = 1e-6
    slope = (PRIMITIVES[method](x + h, alpha) - PRIMITIVES[method](x - h, alpha)) / (2 * h)
    grad = derivative(torch.from_numpy(x), method, alpha).numpy()
    np.testing.assert_allclose(grad, slope, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("method", METHODS)
def test_backward_multiplies_the_gradient_from_above(method):
    x = torch.tensor(POINTS, dtype=torch.float64, requires_grad=True)
    above = torch.linspace(-2, 3, len(POINTS), dtype=torch.float64)
    (grad,) = torch.autograd.grad(spike(x, method), x, above)
    torch.testing.assert_close(grad, above * derivative(x, method), rtol=1e-14, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_alpha_none_is_the_alpha_of_the_table(method):
    x = torch.tensor(POINTS, dtype=torch.float64)
    wanted = DERIVATIVES[method](x.numpy(), table()[method])
    np.testing.assert_allclose(derivative(x, method).numpy(), wanted, rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_alpha_may_be_a_tensor(method):
    """One alpha a neuron; it gets no gradient."""
    alpha = torch.tensor([0.3, 1.0, 2.5], dtype=torch.float64, requires_grad=True)
    x = torch.tensor([[-0.31, 0.07, 0.11], [0.24, -0.9, 0.04]], dtype=torch.float64, requires_grad=True)
    spike(x, method, alpha).sum().backward()
    wanted = DERIVATIVES[method](x.detach().numpy(), alpha.detach().numpy())
    np.testing.assert_allclose(x.grad.numpy(), wanted, rtol=1e-12, atol=1e-15)
    assert alpha.grad is None


@pytest.mark.parametrize(
    ("dtype", "rtol"), [(torch.float32, 1e-5), (torch.bfloat16, 0.04), (torch.float16, 0.01)]
)
@pytest.mark.parametrize("method", METHODS)
def test_backward_in_lower_precision(method, dtype, rtol):
    """The same formula, and a gradient in the dtype of x."""
    x = torch.tensor(POINTS, dtype=dtype)
    grad = derivative(x, method)
    assert grad.dtype == dtype
    wanted = DERIVATIVES[method](x.double().numpy(), table()[method])
    np.testing.assert_allclose(grad.double().numpy(), wanted, rtol=rtol, atol=rtol * wanted.max())


@pytest.mark.parametrize("name", ["nonsense", "Super", "", None, 3])
def test_an_unknown_method_is_refused_with_its_name(name):
    with pytest.raises(ValueError, match=rf"method={re.escape(repr(name))}") as caught:
        spike(torch.zeros(2), name)
    assert all(method in str(caught.value) for method in METHODS)


@pytest.mark.parametrize("alpha", [0, 0.0, -1.5, float("nan")])
@pytest.mark.parametrize("method", METHODS)
def test_an_alpha_that_is_not_positive_is_refused_with_its_value(method, alpha):
    with pytest.raises(ValueError, match=rf"alpha={re.escape(str(alpha))}"):
        spike(torch.zeros(2), method, alpha)


@pytest.mark.parametrize("alpha", [torch.tensor(-1.5), torch.tensor([1.0, 0.0])], ids=["scalar", "neuron"])
def test_an_alpha_tensor_that_is_not_positive_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha must be a positive number"):
        spike(torch.zeros(2), "super", alpha)


@pytest.mark.parametrize("alpha", [None, -7.0, "anything"])
def test_a_function_as_method_is_called_as_it_is(alpha):
    """With x and alpha untouched; its result and its gradient are the spike's."""
    seen = []

    def mine(x, given):
        seen.append((x, given))
        return x**3

    x = torch.tensor([0.5, -2.0], requires_grad=True)
    z = spike(x, mine, alpha)
    assert len(seen) == 1
    assert seen[0][0] is x
    assert seen[0][1] is alpha
    z.sum().backward()
    assert z.tolist() == [0.125, -8.0]
    assert x.grad.tolist() == [0.75, 12.0]


@pytest.mark.parametrize("method", METHODS)
def test_torch_func_grad_and_vmap(method):
    """Per-sample gradients, one by one and all at once, are the formula."""
    x = torch.tensor(POINTS, dtype=torch.float64).reshape(5, 2)
    scale = torch.tensor([2.0, -3.0], dtype=torch.float64)

    def loss(row):
        return (scale * spike(row, method)).sum()

    wanted = scale.numpy() * DERIVATIVES[method](x.numpy(), table()[method])
    # the rows draw their own spikes in logistic
    batched = torch.func.vmap(torch.func.grad(loss), randomness="different")(x)
    np.testing.assert_allclose(batched.numpy(), wanted, rtol=1e-12)
    one = torch.func.grad(loss)(x[3])
    np.testing.assert_allclose(one.numpy(), wanted[3], rtol=1e-12)


@pytest.mark.parametrize("method", SHARP)
def test_vmap_of_the_forward(method):
    x = torch.tensor(POINTS).reshape(2, 5)
    z = torch.func.vmap(lambda column: spike(column, method), in_dims=1, out_dims=1)(x)
    assert z.tolist() == [[0.0] * 5, [1.0] * 5]


@pytest.mark.parametrize("alpha", [None, 2.5, torch.tensor([[0.3], [1.0], [2.5], [6.0], [100.0]]).double()])
@pytest.mark.parametrize("method", METHODS)
def test_tangents_are_multiplied_by_the_formula_too(method, alpha):
    """By torch.func.jvp, one by one and batched, jacfwd and dual tensors."""
    x = torch.tensor(POINTS, dtype=torch.float64).reshape(5, 2)
    along = torch.linspace(-2, 3, len(POINTS), dtype=torch.float64).reshape(5, 2)
    slope = derivative(x, method, alpha)

    def run(x):
        return spike(x, method, alpha)

    z, tangent = torch.func.jvp(run, (x,), (along,))
    torch.testing.assert_close(tangent, along * slope, rtol=1e-12, atol=0)
    assert method == "logistic" or torch.equal(z, run(x))
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(run(forward_ad.make_dual(x, along))).tangent
    torch.testing.assert_close(tangent, along * slope, rtol=1e-12, atol=0)
    batched = torch.func.vmap(run, in_dims=1, out_dims=1, randomness="different")
    _, tangent = torch.func.jvp(batched, (x[..., None],), (along[..., None],))
    torch.testing.assert_close(tangent[..., 0], along * slope, rtol=1e-12, atol=0)
    jacobian = torch.func.jacfwd(run, randomness="different")(x).reshape(10, 10)
    torch.testing.assert_close(jacobian, slope.flatten().diag(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_second_derivatives_are_those_of_the_formula(method):
    """Forward over reverse, as torch.func.hessian takes them, and reverse over reverse."""
    x = torch.tensor(POINTS, dtype=torch.float64)
    h = 1e-6
    wanted = (DERIVATIVES[method](x.numpy() + h, 1.3) - DERIVATIVES[method](x.numpy() - h, 1.3)) / (2 * h)

    def count(x):
        return spike(x, method, 1.3).sum()

    forward = torch.func.jacfwd(torch.func.grad(count), randomness="different")(x)
    for hessian in (forward, torch.autograd.functional.hessian(count, x)):
        np.testing.assert_allclose(hessian.diag().numpy(), wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_compiles_without_a_graph_break(method):
    torch._dynamo.reset()
    x = torch.tensor(POINTS, dtype=torch.float64, requires_grad=True)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def compiled(x):
        return 3.0 * spike(x, method)

    z = compiled(x)
    if method != "logistic":
        assert z.tolist() == [3.0 * (value > 0) for value in POINTS]
    (grad,) = torch.autograd.grad(z.sum(), x)
    np.testing.assert_allclose(grad.numpy(), 3.0 * DERIVATIVES[method](np.array(POINTS), table()[method]))


@pytest.mark.parametrize("detach", [True, False])
def test_reset_moves_spiking_neurons_to_v_reset(detach):
    """v + z (v_reset - v); the gradient through z is there only if it is not detached."""
    v = torch.tensor([0.3, 1.7, 2.5], dtype=torch.float64, requires_grad=True)
    z = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64, requires_grad=True)
    level = torch.tensor(-0.2, dtype=torch.float64, requires_grad=True)
    after = reset(v, z, level, detach)
    assert after.tolist() == pytest.approx([0.3, -0.2, -0.2], rel=1e-15)
    by_v, by_z, by_level = torch.autograd.grad(after.sum(), (v, z, level), allow_unused=True)
    assert by_v.tolist() == [1.0, 0.0, 0.0]
    assert by_level.item() == 2.0
    if detach:
        assert by_z is None
    else:
        assert by_z.tolist() == pytest.approx([-0.5, -1.9, -2.7])


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("super_fn", "super"),
        ("triangle_fn", "triangle"),
        ("heavi_erfc_fn", "heavi_erfc"),
        ("heavi_tanh_fn", "tanh"),
        ("heavi_circ_fn", "circ"),
        ("circ_dist_fn", "circ_dist"),
        ("logistic_fn", "logistic"),
    ],
)
def test_surrogates_have_functions_of_their_own(name: str, method: str):
    x = torch.linspace(-1.5, 1.5, 31, dtype=torch.float64).requires_grad_()
    for alpha in (None, 0.7):
        torch.manual_seed(0)
        z = getattr(functional, name)(x, alpha)
        torch.manual_seed(0)
        expected = spike(x, method, alpha)
        assert torch.equal(z, expected)
        gradients = [torch.autograd.grad(value.sum(), x)[0] for value in (z, expected)]
        assert torch.equal(*gradients)
        assert gradients[0].abs().sum() > 0


def test_heaviside_keeps_the_dtype():
    z = functional.heaviside(torch.tensor([-1, 0, 2]))
    assert z.tolist() == [0, 0, 1]
    assert z.dtype == torch.int64


@pytest.mark.parametrize("method", SHARP)
def test_an_alpha_that_is_changed_before_the_way_back_is_noticed(method: str):
    """As by torch's own functions and fused loops: an annealed slope belongs to the step that used it."""
    alpha = torch.full((3,), 2.0)
    z = spike(torch.full((3,), 0.2, requires_grad=True), method, alpha)
    alpha.fill_(10.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()
