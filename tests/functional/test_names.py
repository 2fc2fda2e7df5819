"""Everything of a neuron is public, and every public name exists."""

import pickle

import pytest
import torch

import snnlib
import snnlib.functional as functional
from tests.neurons import NEURONS, name_of


@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_everything_of_a_neuron_is_public(neuron):
    """Importable from snnlib.functional and snnlib under its own name, listed, and picklable by that name."""
    for thing in {
        neuron.step,
        neuron.parameters,
        neuron.state,
        neuron.weighted_step,
        neuron.recurrent_state,
    }:
        name = thing.__name__
        for module in (functional, snnlib):
            assert getattr(module, name) is thing
            assert name in module.__all__
        assert pickle.loads(pickle.dumps(thing)) is thing
        assert thing.__doc__


def test_all_names_exist():
    for module in (functional, snnlib):
        assert len(set(module.__all__)) == len(module.__all__)
        for name in module.__all__:
            assert hasattr(module, name), name


def test_snnlib_has_all_of_functional():
    assert set(functional.__all__) <= set(snnlib.__all__)


@pytest.mark.parametrize("name", [name for name in functional.__all__ if name.endswith("Parameters")])
def test_parameters_are_read_by_torch_load_as_it_is(name, tmp_path):
    """Lightning's save_hyperparameters writes them, and ckpt_path reads them so."""
    p = getattr(functional, name)()
    p = p._replace(**{p._fields[0]: torch.nn.Parameter(torch.tensor(0.5))})
    torch.save({"p": p}, tmp_path / "p.pt")
    again = torch.load(tmp_path / "p.pt")["p"]
    assert type(again) is type(p)
    assert again == p
