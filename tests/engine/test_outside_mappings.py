"""Numbers that a step reads of mappings and of objects of one's own, and that may change."""

import collections
import configparser
import math
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from snnlib import scan


class State(NamedTuple):
    v: Tensor


class ByItem:
    """As ml_collections and OmegaConf keep numbers."""

    def __init__(self, gain: float) -> None:
        self._values = {"gain": gain}

    def __getitem__(self, name: str) -> float:
        return self._of(name)

    def _of(self, name: str) -> float:
        return self._values[name]


class ByAttribute(ByItem):
    __getitem__ = None  # type: ignore[assignment]

    def __getattr__(self, name: str) -> float:
        return self._values[name]


class Own(collections.UserDict):
    pass


def parsed(gain: float) -> Any:
    parser = configparser.ConfigParser()
    parser.read_dict({"neuron": {"gain": str(gain)}})
    return parser


def by_item(config: Any) -> float:
    return float(config["gain"])


READ = {
    "an own class": (ByItem, by_item),
    "an own class by attribute": (ByAttribute, lambda config: config.gain),
    "UserDict": (lambda gain: collections.UserDict(gain=gain), by_item),
    "UserDict by get": (lambda gain: collections.UserDict(gain=gain), lambda config: config.get("gain")),
    "an own UserDict": (lambda gain: Own(gain=gain), by_item),
    "ChainMap": (lambda gain: collections.ChainMap({}, {"gain": gain}), by_item),
    "MappingProxyType": (lambda gain: MappingProxyType({"gain": gain}), by_item),
    "ConfigParser": (parsed, lambda config: float(config["neuron"]["gain"])),
    "a truth value of NumPy": (lambda gain: np.bool_(gain > 1.5), lambda config: 1.0 + float(config)),
    "range": (lambda gain: range(int(gain)), lambda config: float(len(config))),
}


@pytest.mark.parametrize("name", READ)
def test_a_number_may_change(name: str):
    make, read = READ[name]
    config = make(1.0)

    def reading_step(input: Tensor, state: State, p: Any = None, dt: float = 0.001):
        return read(config) * input, state

    for gain in (1.0, 2.0):
        config = make(gain)
        for backend in ("cpu", "reference"):
            assert scan(reading_step, torch.ones(1, 1, 1), backend=backend)[0].item() == gain, backend


class Pair(NamedTuple):
    pair: Any = (1, 2)
    zero: float = 0.0


def pair_step(input: Tensor, state: State, p: Pair = Pair(), dt: float = 0.001):
    gain = 3.0 if p.pair[0] is True else 5.0
    return input * gain * math.copysign(1.0, p.zero), state


def test_parameters_that_are_equal_may_be_others():
    x = torch.ones(1, 1, 1)
    for p in (Pair(), Pair((True, 2)), Pair(zero=-0.0), Pair((True, 2), -0.0)):
        assert torch.equal(*(scan(pair_step, x, p=p, backend=b)[0] for b in ("cpu", "reference")))
