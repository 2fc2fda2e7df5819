"""Encoders as modules: what they compute, and what they hold."""

import pytest
import torch
from torch import nn

from snnlib import (
    ConstantCurrentLIFEncoder,
    LIFBoxParameters,
    LIFParameters,
    PoissonEncoder,
    PopulationEncoder,
    SignedPoissonEncoder,
    SpikeLatencyEncoder,
    SpikeLatencyLIFEncoder,
    constant_current_lif_encode,
    poisson_encode,
    population_encode,
    signed_poisson_encode,
    spike_latency_encode,
    spike_latency_lif_encode,
)
from tests.neurons import generator, same

# an encoder of plain numbers, and what its repr says
PLAIN = {
    "current": (lambda: ConstantCurrentLIFEncoder(9, dt=0.002), "seq_length=9, tau_syn_inv=200.0, tau_mem_inv"),
    "latency of currents": (
        lambda: SpikeLatencyLIFEncoder(9, LIFBoxParameters()),
        "seq_length=9, tau_mem_inv=100",
    ),
    "latency": (SpikeLatencyEncoder, "SpikeLatencyEncoder()"),
    "poisson": (lambda: PoissonEncoder(9, 50.0), "seq_length=9, f_max=50.0, dt=0.001"),
    "signed poisson": (lambda: SignedPoissonEncoder(9), "SignedPoissonEncoder(seq_length=9, f_max=100.0"),
    "population": (lambda: PopulationEncoder(5, 2.0), "out_features=5, scale=2.0"),
}
CURRENT = 3 * torch.rand(2, 4, generator=generator(0))


P = LIFBoxParameters(tau_mem_inv=140.0, v_th=0.7)
RULE = (lambda d: 1 / (1 + d), lambda x, y: (x - y).abs())
# an encoder, the function that it is a module of, and what both take after the input, none of it the default
FUNCTIONS = [
    (ConstantCurrentLIFEncoder, constant_current_lif_encode, lambda: (30, P, 0.002)),
    (SpikeLatencyLIFEncoder, spike_latency_lif_encode, lambda: (30, P, 0.002)),
    (SpikeLatencyEncoder, spike_latency_encode, lambda: ()),
    (PoissonEncoder, poisson_encode, lambda: (30, 70.0, 0.004, generator(3))),
    (SignedPoissonEncoder, signed_poisson_encode, lambda: (30, 70.0, 0.004, generator(3))),
    (PopulationEncoder, population_encode, lambda: (5, 2.5, *RULE)),
]


@pytest.mark.parametrize(("made", "function", "given"), FUNCTIONS, ids=[f.__name__ for _, f, _ in FUNCTIONS])
def test_an_encoder_is_its_function(made, function, given):
    x = CURRENT / 3 if "oisson" in made.__name__ else CURRENT
    output = made(*given())(x)
    same(output, function(x, *given()))
    assert output.std() > 0


@pytest.mark.parametrize("name", PLAIN)
def test_an_encoder_of_numbers_holds_no_tensor_and_shows_them(name):
    made, text = PLAIN[name]
    encoder = made()
    assert not encoder.state_dict()
    assert text in repr(encoder)


@pytest.mark.parametrize("made", [ConstantCurrentLIFEncoder, SpikeLatencyLIFEncoder])
@pytest.mark.parametrize("kind", [LIFParameters, LIFBoxParameters])
def test_parameters_of_an_encoder_learn_and_move(made, kind):
    p = kind(tau_mem_inv=nn.Parameter(torch.full((4,), 120.0)), v_th=torch.tensor(0.7), method="arctan")
    encoder = made(30, p)
    assert [name for name, _ in encoder.named_parameters()] == ["tau_mem_inv"]
    assert set(encoder.state_dict()) == {"tau_mem_inv", "v_th"}
    spikes = encoder(CURRENT)
    spikes.sum().backward()
    assert encoder.tau_mem_inv.grad.abs().min() > 0
    same(encoder.double()(CURRENT.double()), spikes.double())
    assert {value.dtype for value in encoder.state_dict().values()} == {torch.float64}
    assert "tau_mem_inv=(4,), " in repr(encoder)


def test_the_scale_of_a_population_learns_and_moves():
    scale = torch.tensor(2.5)
    buffered, learned = PopulationEncoder(5, scale), PopulationEncoder(5, nn.Parameter(scale))
    assert not list(buffered.parameters())
    assert [name for name, _ in learned.named_parameters()] == ["scale"]
    for encoder in (buffered, learned):
        assert set(encoder.state_dict()) == {"scale"}
        same(encoder(CURRENT).detach(), population_encode(CURRENT, 5, 2.5))
        assert encoder.double().scale.dtype == torch.float64


def test_other_parameters_of_an_encoder():
    encoder = ConstantCurrentLIFEncoder(30)
    encoder.p = encoder.p._replace(v_th=0.5)
    same(encoder(CURRENT), constant_current_lif_encode(CURRENT, 30, LIFParameters(v_th=0.5)))
    with pytest.raises(ValueError, match=r"p must be LIFParameters\(\.\.\.\), as it was, got LIFBoxParameters"):
        encoder.p = LIFBoxParameters()


def test_wrong_parameters_are_refused_when_an_encoder_is_made():
    for p, says in ((LIFParameters(tau_mem_inv=-1.0), "tau_mem_inv=-1.0"), (5, "p must be LIFBoxParameters")):
        with pytest.raises(ValueError, match=says):
            ConstantCurrentLIFEncoder(30, p)
