"""Neurons as ``torch.nn`` modules: cells, layers, recurrent layers, containers, encoders."""

from snnlib.module.conv import (
    LConv2d,
)
from snnlib.module.convnet import ConvNet
from snnlib.module.decode import (
    SpikesToTimesDecoder,
)
from snnlib.module.encode import (
    ConstantCurrentLIFEncoder,
    PoissonEncoder,
    PopulationEncoder,
    SignedPoissonEncoder,
    SpikeLatencyEncoder,
    SpikeLatencyLIFEncoder,
)
from snnlib.module.iaf import IAF, IAFCell, IAFRecurrent, IAFRecurrentCell
from snnlib.module.izhikevich import (
    Izhikevich,
    IzhikevichCell,
    IzhikevichRecurrent,
    IzhikevichRecurrentCell,
)
from snnlib.module.li import LI, LICell, LILinearCell
from snnlib.module.li_box import (
    LIBox,
    LIBoxCell,
)
from snnlib.module.lif import LIF, LIFCell, LIFRecurrent, LIFRecurrentCell
from snnlib.module.lif_adex import LIFAdEx, LIFAdExCell, LIFAdExRecurrent, LIFAdExRecurrentCell
from snnlib.module.lif_box import LIFBox, LIFBoxCell, LIFBoxRecurrent, LIFBoxRecurrentCell
from snnlib.module.lif_ex import LIFEx, LIFExCell, LIFExRecurrent, LIFExRecurrentCell
from snnlib.module.lif_refrac import LIFRefrac, LIFRefracCell, LIFRefracRecurrent, LIFRefracRecurrentCell
from snnlib.module.lift import Lift
from snnlib.module.lsnn import LSNN, LSNNCell, LSNNRecurrent, LSNNRecurrentCell
from snnlib.module.neuron import Cell, Layer, Neuron
from snnlib.module.policy import SpikingPolicy
from snnlib.module.recurrent import RecurrentCell, RecurrentLayer
from snnlib.module.regularization import (
    RegularizationCell,
)
from snnlib.module.resnet import ResNet
from snnlib.module.sequential import (
    RecurrentSequential,
    RecurrentSequentialState,
    SequentialState,
)
from snnlib.module.slopes import spike_slopes
from snnlib.module.sparse import SpikeConv2d, SpikeLinear
from snnlib.module.states import detach_state, state_over_time

__all__ = [
    "IAF",
    "LI",
    "LIF",
    "LSNN",
    "Cell",
    "ConstantCurrentLIFEncoder",
    "ConvNet",
    "IAFCell",
    "IAFRecurrent",
    "IAFRecurrentCell",
    "Izhikevich",
    "IzhikevichCell",
    "IzhikevichRecurrent",
    "IzhikevichRecurrentCell",
    "LConv2d",
    "LIBox",
    "LIBoxCell",
    "LICell",
    "LIFAdEx",
    "LIFAdExCell",
    "LIFAdExRecurrent",
    "LIFAdExRecurrentCell",
    "LIFBox",
    "LIFBoxCell",
    "LIFBoxRecurrent",
    "LIFBoxRecurrentCell",
    "LIFCell",
    "LIFEx",
    "LIFExCell",
    "LIFExRecurrent",
    "LIFExRecurrentCell",
    "LIFRecurrent",
    "LIFRecurrentCell",
    "LIFRefrac",
    "LIFRefracCell",
    "LIFRefracRecurrent",
    "LIFRefracRecurrentCell",
    "LILinearCell",
    "LSNNCell",
    "LSNNRecurrent",
    "LSNNRecurrentCell",
    "Layer",
    "Lift",
    "Neuron",
    "PoissonEncoder",
    "PopulationEncoder",
    "RecurrentCell",
    "RecurrentLayer",
    "RecurrentSequential",
    "RecurrentSequentialState",
    "RegularizationCell",
    "ResNet",
    "SequentialState",
    "SignedPoissonEncoder",
    "SpikeConv2d",
    "SpikeLatencyEncoder",
    "SpikeLatencyLIFEncoder",
    "SpikeLinear",
    "SpikesToTimesDecoder",
    "SpikingPolicy",
    "detach_state",
    "spike_slopes",
    "state_over_time",
]
