"""Gradients of every step: against a loop, finite differences, and with a reset that is detached."""

import numpy as np
import pytest
import torch

from snnlib import engine
from snnlib.functional import LIFRefracFeedForwardState, LIFRefracParameters, lif_refrac_feed_forward_step
from tests.functional.plain import scan
from tests.neurons import (
    NEURONS,
    SPIKING,
    draw_input,
    draw_parameters,
    draw_state,
    generator,
    loop,
    name_of,
    same,
)


def gradients(run, neuron, p, state, x):
    """Of a random linear function of outputs and final state, to everything that run depends on."""
    leaves = {f"state.{k}": v for k, v in state._asdict().items()} | {"input": x}
    leaves |= {f"p.{k}": v for k, v in p._asdict().items() if isinstance(v, torch.Tensor)}
    for leaf in leaves.values():
        leaf.requires_grad_()
    output, final = run(x, state, p)
    source = generator(99)
    loss = sum(
        (torch.randn(value.shape, generator=source, dtype=value.dtype) * value).sum()
        for value in (output, *final)
    )
    found = torch.autograd.grad(loss, list(leaves.values()))
    return dict(zip(leaves, found, strict=True))


@pytest.mark.parametrize("detach", [True, False], ids=["detached", "free"])
@pytest.mark.parametrize("shape", [(), (3,)], ids=["one value", "a neuron"])
@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_gradients_of_scan_are_those_of_a_loop(neuron, shape, detach):
    """To the input, the initial state and every number among the parameters, and none of them vanishes."""
    # a surrogate with long tails: izhikevich is 80 mV below its threshold for most of the time
    options = {"method": "arctan", "alpha": 0.5, "detach_reset": detach} if neuron.spikes else {}
    dt = 0.0013

    def case():
        source = generator(5)
        p = draw_parameters(neuron, source, shape, **options)
        return p, draw_state(neuron, source, (4, 3)), draw_input(neuron, source, (25, 4, 3))

    wanted = gradients(lambda x, s, p: loop(neuron.step, x, s, p, dt), neuron, *case())
    plain = {"dt": dt, "backend": "reference"}
    found = gradients(lambda x, s, p: engine.scan(neuron.step, x, s, p, **plain), neuron, *case())
    for name, gradient in wanted.items():
        torch.testing.assert_close(
            found[name], gradient, rtol=1e-9, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}"
        )
        if name != "state.rho":  # forgotten after so many steps; see the gradient checks below
            assert gradient.abs().max() > 0, f"{name} has no effect here: the comparison is empty"


def smooth(x, alpha):
    """A spike that is differentiable, so that finite differences can judge the gradient."""
    return torch.sigmoid(4 * x)


@pytest.mark.parametrize("shape", [(), (2,)], ids=["one value", "a neuron"])
@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_gradcheck_with_a_smooth_spike(neuron, shape):
    """Input, initial state and parameters, against central differences in float64.

    lif_refrac: its mask ``free`` steps where rho crosses dt/2, so the case is one that keeps away from it, and
    ``rho`` takes no gradient from the spikes, by its docstring, so the final rho is not among the outputs.
    """
    source = generator(11)
    options = {"method": smooth, "detach_reset": False} if neuron.spikes else {}
    p = draw_parameters(neuron, source, shape, **options)
    names = list(neuron.ranges)
    state = draw_state(neuron, source, (2, 2))
    x = draw_input(neuron, source, (4, 2, 2))
    dt = 0.0012
    if neuron.name == "izhikevich":  # near its peak, or the spike is a constant
        state = state._replace(v=torch.tensor([[24.0, 31.0], [28.0, -55.0]], dtype=torch.float64))
    masks = []

    def run(x, *rest):
        own = p._replace(**dict(zip(names, rest[len(state) :], strict=True)))
        outputs, s = [], neuron.state(*rest[: len(state)])
        for t in range(len(x)):
            if neuron.name == "lif_refrac":
                masks.append((s.rho < dt / 2).tolist())
            z, s = neuron.step(x[t], s, own, dt)
            outputs.append(z)
        # the final state, but the rho of lif_refrac
        return torch.stack(outputs), *(value for name, value in s._asdict().items() if name != "rho")

    leaves = [x, *state, *(getattr(p, name) for name in names)]
    for leaf in leaves:
        leaf.requires_grad_()
    assert torch.autograd.gradcheck(run, leaves, eps=1e-6, atol=1e-6, rtol=1e-4)
    if masks:
        steps = np.array(masks[:4])
        assert (np.array(masks).reshape(-1, *steps.shape) == steps).all(), "the mask moved: choose another seed"
        assert 0 < steps.mean() < 1, "neurons must be held at some steps and free at others"


def test_gradcheck_of_the_refractory_time():
    """rho follows ``max(rho - dt, 0) + z (rho_reset - max(rho - dt, 0))``: gradients to rho and rho_reset."""
    v = torch.tensor([[0.3, -0.4, 0.2, 0.9]], dtype=torch.float64)
    rho = torch.tensor([[0.0, 0.0004, 0.0044, 0.0091]], dtype=torch.float64, requires_grad=True)
    rho_reset = torch.tensor(0.0052, dtype=torch.float64, requires_grad=True)
    x = torch.tensor([[3.0, 1.0, 2.0, 0.0]], dtype=torch.float64)

    def run(rho, rho_reset):
        s = LIFRefracFeedForwardState(v, torch.zeros_like(v), rho)
        p = LIFRefracParameters(rho_reset=rho_reset, method=smooth)
        for _ in range(3):
            _, s = lif_refrac_feed_forward_step(x, s, p)
        return s.rho

    # differences of 1e-6 s are small beside the times here, of milliseconds
    assert torch.autograd.gradcheck(run, (rho, rho_reset), eps=1e-6, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("neuron", SPIKING, ids=name_of)
def test_detach_reset_changes_the_gradient_and_nothing_else(neuron):
    def case(detach):
        source = generator(7)
        p = draw_parameters(neuron, source, (), method="arctan", alpha=0.5, detach_reset=detach)
        state, x = draw_state(neuron, source, (4, 3)), draw_input(neuron, source, (30, 4, 3))
        x.requires_grad_()
        output, final = scan(neuron.step, x, state, p)
        (gradient,) = torch.autograd.grad(output.sum() + final.v.sum(), x)
        return output, final, gradient

    detached, free = case(True), case(False)
    assert detached[0].sum() > 10
    same(detached[:2], free[:2])
    assert not torch.allclose(detached[2], free[2])


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("neuron", SPIKING, ids=name_of)
def test_a_detached_reset_passes_nothing_through_the_spike(neuron, detach):
    """The membrane after one step then does not depend on the threshold; otherwise it does, by its reset."""
    source = generator(8)
    p = draw_parameters(neuron, source, (), method="arctan", alpha=0.5, detach_reset=detach)
    if "delta_T" in neuron.ranges:  # the onset knows the threshold without a spike
        p = p._replace(delta_T=1e-4)
    p = p._replace(v_th=p.v_th.requires_grad_())
    state = draw_state(neuron, source, (4, 3))
    if neuron.name == "lif_refrac":
        state = state._replace(rho=torch.zeros_like(state.rho))
    _, state = neuron.step(draw_input(neuron, source, (4, 3)), state, p, 0.001)
    gradient = torch.zeros(())
    if state.v.requires_grad:
        (gradient,) = torch.autograd.grad(state.v.sum(), p.v_th)
    assert (gradient.abs().item() > 1e-6) is not detach


@pytest.mark.parametrize("detach", [True, False])
def test_rho_of_lif_refrac_carries_no_gradient_from_the_spikes(detach):
    """As its docstring says, whatever becomes of the membrane's reset."""
    x = torch.full((1, 3), 30.0, dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, 3, dtype=torch.float64)
    start = LIFRefracFeedForwardState(zero, zero, zero.clone().requires_grad_())
    p = LIFRefracParameters(method="arctan", detach_reset=detach)
    z, state = lif_refrac_feed_forward_step(x, start, p)
    assert z.sum() == 3
    (gradient,) = torch.autograd.grad(state.rho.sum(), x, allow_unused=True)
    assert gradient is None or not gradient.any()
