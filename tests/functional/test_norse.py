"""The neurons that docs/norse.md calls equal to Norse's give its numbers; runs where Norse is installed."""

import pytest
import torch

import snnlib
from tests.test_norse import THEIRS, norse


@pytest.mark.parametrize("name", ["LIF", "LIFEx", "IAF", "LIFBoxCell"])
def test_same_outputs_and_gradients(name: str):
    """With the alpha of 1 that Norse's SuperSpike computes with whatever it is told, and its attached reset."""
    p = getattr(snnlib, name.removesuffix("Cell") + "Parameters")(alpha=1.0, detach_reset=False)
    torch.manual_seed(0)
    x = torch.randn(80, 3, 20) * {"IAF": 0.3, "LIFBoxCell": 3.0}.get(name, 1.0)
    outputs, gradients = [], []
    for library, given in ((norse, ()), (snnlib, (p,))):
        module = getattr(library, name)(*given)
        if name.endswith("Cell"):
            module = library.Lift(module)
        inputs = x.clone().requires_grad_()
        y, _ = module(inputs)
        y.pow(2).mean().backward()
        outputs.append(y.detach())
        gradients.append(inputs.grad)
    assert float(outputs[0].abs().sum()) > 10
    torch.testing.assert_close(outputs[1], outputs[0], atol=1e-5, rtol=1e-5)
    largest = float(gradients[0].abs().max())
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-5 * largest, rtol=1e-5)


def test_a_script_written_for_norse_runs_with_equal_spikes():
    results = []
    for library in (norse, snnlib):
        torch.manual_seed(0)
        net = library.SequentialState(
            torch.nn.Linear(12, 30), library.LIFCell(), torch.nn.Linear(30, 5), library.LICell()
        )
        encoder = library.ConstantCurrentLIFEncoder(seq_length=40)
        spikes = encoder(3 * torch.rand(4, 12))
        state, outputs = None, []
        for step in spikes:
            y, state = net(step, state)
            outputs.append(y)
        results.append((spikes, torch.stack(outputs)))
    assert torch.equal(results[0][0], results[1][0])
    assert float(results[0][1].detach().abs().max()) > 0.01
    torch.testing.assert_close(results[1][1], results[0][1], atol=1e-6, rtol=1e-5)


OTHERWISE = {"LSNNParameters": {"tau_adapt_inv", "beta"}, "LIFRefracParameters": {"rho_reset"}}
"""What docs/norse.md lists; and ``alpha`` is None everywhere."""


@pytest.mark.parametrize("name", sorted(name for name in snnlib.__all__ if name.endswith("Parameters")))
def test_defaults_are_those_of_norse(name: str):
    ours = getattr(snnlib, name)
    given = (0.02, 0.2, -65.0, 6.0) if name == "IzhikevichParameters" else ()  # it has no defaults for these
    usual, differ = THEIRS[name](*given), {"alpha", *OTHERWISE.get(name, ())}
    if name == "LIFRefracParameters":
        usual = usual.lif
    compared = [field for field in ours._fields if hasattr(usual, field) and field not in differ]
    assert len(compared) >= 2
    for field in compared:
        expected = getattr(usual, field)
        value = expected if isinstance(expected, str) else pytest.approx(float(expected))
        assert getattr(ours(), field) == value, field


@pytest.mark.parametrize("name", snnlib.IZHIKEVICH_BEHAVIORS)
def test_behaviours_of_izhikevich_have_the_numbers_of_norse(name: str):
    theirs = getattr(norse.functional.izhikevich, name.replace("excitability", "exc"))
    p = snnlib.IZHIKEVICH_BEHAVIORS[name]
    for field in set(theirs.p._fields) - {"method", "alpha"}:
        assert getattr(p, field) == pytest.approx(float(getattr(theirs.p, field))), field
    # the page says how far apart they start
    assert float(snnlib.IzhikevichState.initial(p).v) == pytest.approx(float(theirs.s.v), abs=1.5 + 1e-9)


def test_lsnn_hears_its_input_a_step_earlier_than_norse():
    torch.manual_seed(0)
    x = torch.rand(60, 3, 7)
    theirs, _ = norse.LSNN(p=norse.LSNNParameters(beta=torch.tensor(0.0)))(x)
    ours, _ = snnlib.LSNN(snnlib.LSNNParameters(beta=0.0))(x)
    assert float(ours.sum()) > 100
    assert torch.equal(theirs[1:], ours[:-1])
    assert torch.equal(ours, snnlib.LIF()(x)[0])


def test_recurrent_spikes_of_lsnn_come_two_steps_later_in_norse():
    """How long after a spike of neuron 0 the membrane of neuron 1 feels it: two steps there, one here."""
    x = torch.zeros(60, 1, 1)
    x[0] = 100.0
    first = []
    for library, p in ((norse, {"beta": torch.tensor(0.0)}), (snnlib, {"beta": 0.0})):
        layer = library.LSNNRecurrent(1, 2, library.LSNNParameters(**p))
        with torch.no_grad():
            layer.input_weights.copy_(torch.tensor([[1.0], [0.0]]))
            layer.recurrent_weights.copy_(torch.tensor([[0.0, 0.0], [1000.0, 0.0]]))
        z, _ = layer(x)
        spikes = [int(z[:, 0, n].detach().nonzero()[0]) for n in (0, 1)]
        first.append(spikes[1] - spikes[0])
    assert first == [2, 1]
