"""docs/norse.md is complete, and scripts for Norse give the same spikes; runs where Norse is installed."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

import snnlib

norse = pytest.importorskip("norse.torch", reason="Norse is not installed: pip install norse==1.1.*")

PAGE = (Path(__file__).parents[1] / "docs" / "norse.md").read_text()
LISTED = {word for code in re.findall(r"`([^`]+)`", PAGE) for word in re.findall(r"\w+", code)}
BROKEN = "norse.torch.functional.adjoint.coba_lif_adjoint"  # cannot be imported


def modules() -> Iterator[ModuleType]:
    """All that Norse has for scripts to import from."""
    for package in (norse.functional, norse.module, norse.utils, norse.models):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if ".test" not in found.name and found.name != BROKEN:
                yield importlib.import_module(found.name)


def defined(module: ModuleType) -> list[str]:
    """The public functions, classes and values that belong to a module."""
    own = (k for k, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__)
    return [name for name in own if not name.startswith("_") and name != "T"]


THEIRS = {name: getattr(norse, name) for name in norse.__all__}
THEIRS |= {name: getattr(module, name) for module in modules() for name in defined(module)}


def test_every_public_name_stands_in_the_page():
    names = {name for name in norse.__all__ if not name.startswith("_")}
    assert len(names) > 200
    assert not sorted(names - LISTED)


def test_names_that_are_called_the_same_can_be_imported():
    same = PAGE[PAGE.index("The same in both") : PAGE.index("Others:")]
    names = set(re.findall(r"`(\w+)`", same))
    assert len(names) > 100
    for name in names:
        assert hasattr(snnlib, name), name


@pytest.mark.parametrize(
    "module", list(modules()), ids=lambda module: module.__name__.removeprefix("norse.torch.")
)
def test_a_path_can_be_imported_from_or_its_names_are_listed(module: ModuleType):
    try:
        ours = importlib.import_module(module.__name__.replace("norse.torch", "snnlib"))
    except ModuleNotFoundError:
        ours = None
    missing = {name for name in defined(module) if not hasattr(ours, name)}
    # "(and each with `_p`)" are the parameters of a behaviour
    assert not {name.removesuffix("_p") for name in missing} - LISTED


RENAMED = {
    "s": "state",
    "input_tensor": "input",
    "input_spikes": "input",
    "input_current": "input",
    "x": "input",
}
OTHERWISE = {
    *("ConvNet", "LIFRefracParameters", "LIFRefracState", "LIFRefracFeedForwardState", "stp_step"),
    *("from_nir", "to_nir"),
}
"""Those that the page says take other arguments; ``stp_step`` calls its spikes input too."""


def positional(thing: object) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [n for n, p in inspect.signature(thing).parameters.items() if p.kind in kinds]


def test_renamed_arguments_stand_at_the_top_of_the_page():
    """Of every function that has the same name."""
    top = set(re.findall(r"`(\w+)`", PAGE[: PAGE.index("## What behaves differently")]))
    compared = 0
    for name, theirs in THEIRS.items():
        ours = getattr(snnlib, name, None)
        if inspect.isfunction(theirs) and inspect.isfunction(ours) and name not in ("to_nir", "from_nir"):
            assert set(positional(theirs)) - set(positional(ours)) - {"_"} <= top, name
            compared += 1
    assert compared > 40


def test_fields_of_parameters_that_are_none_here_stand_in_the_page():
    for name in snnlib.__all__:
        if name.endswith("Parameters"):
            assert set(positional(THEIRS[name])) - set(getattr(snnlib, name)._fields) <= LISTED, name


def test_arguments_are_in_the_same_places():
    compared = 0
    for name in sorted(set(norse.__all__) - OTHERWISE):
        theirs, ours = getattr(norse, name), getattr(snnlib, name, None)
        if ours is None or not callable(theirs) or name.startswith("Izhikevich"):
            continue
        wanted = [n for n in positional(theirs) if n not in ("adjoint", "reset_method", "args")]
        given = positional(ours)
        steps = name.endswith("step")
        wanted = [RENAMED.get(n, n) if steps else n for n in wanted]
        given = [RENAMED.get(n, n) if steps else n for n in given]
        if name in ("SequentialState", "Lift", "heaviside") or "accumulator" in name or name.endswith("_fn"):
            assert len(given) >= len(wanted), name
        else:
            assert given[: len(wanted)] == wanted, name
        compared += 1
    assert compared > 100


HEAD = """
import torch
torch.manual_seed(0)
outputs = []
"""

README = """
from torch import nn
from norse.torch import LICell, LIFCell, SequentialState

model = SequentialState(
    nn.Conv2d(1, 4, 5, 1), LIFCell(), nn.MaxPool2d(2, 2),
    nn.Conv2d(4, 6, 5, 1), LIFCell(), nn.MaxPool2d(2, 2),
    nn.Flatten(), nn.Linear(96, 10), LICell(), return_hidden=True,
)
data = 12 * torch.rand(3, 1, 28, 28)
state = None
for _ in range(25):
    hidden, state = model(data, state)
    outputs += [hidden[1], hidden[4], hidden[-1]]
"""

LAYERS = """
import norse.torch as norse

encoder = norse.PoissonEncoder(60, f_max=400)
model = norse.SequentialState(
    torch.nn.Linear(8, 12), norse.LIF(norse.LIFParameters(v_th=torch.tensor(0.4)), dt=0.002),
    norse.LIFRecurrent(
        12, 12, norse.LIFParameters(tau_mem_inv=torch.tensor(150.0), v_th=torch.tensor(0.3)), dt=0.002
    ),
    torch.nn.Linear(12, 3), norse.LI(dt=0.002), return_hidden=True,
)
hidden, state = model(5 * encoder(torch.rand(4, 8)))
outputs += [hidden[1], hidden[2], hidden[4], state[2].v, state[4].i]
layer = norse.LIFRecurrent(8, 8, autapses=True, record_states=True)
spikes, states = layer(10 * encoder(torch.rand(4, 8)))
outputs += [spikes, states.v, states.i, states.z]
"""

FUNCTIONS = """
import norse.torch
from norse.torch.functional.leaky_integrator import LIParameters, LIState, li_step
from norse.torch.functional.lif import LIFFeedForwardState, LIFParameters, LIFState
from norse.torch.functional.lif import lif_feed_forward_step, lif_step
from norse.torch.functional.encode import constant_current_lif_encode, spike_latency_lif_encode

p = LIFParameters(tau_syn_inv=torch.as_tensor(300.0), v_th=torch.as_tensor(0.5), method="super", alpha=100.0)
spikes = constant_current_lif_encode(3 * torch.rand(4, 6), 50)
outputs += [spikes, spike_latency_lif_encode(3 * torch.rand(4, 6), 30)]
w_in, w_rec, w_out = torch.randn(5, 6), torch.randn(5, 5), torch.randn(3, 5)
zeros = torch.zeros(4, 5)
s, out = LIFState(z=zeros, v=zeros, i=zeros), LIState(v=torch.zeros(4, 3), i=torch.zeros(4, 3))
f = LIFFeedForwardState(v=torch.zeros(4, 6), i=torch.zeros(4, 6))
for x in spikes:
    z, s = lif_step(x, s, w_in, w_rec, p=p, dt=0.001)
    v, out = li_step(z, out, w_out, p=LIParameters())
    y, f = lif_feed_forward_step(2 * x, f, p=p)
    outputs += [z, v, y]
current, voltage = 2 * torch.rand(4, 5), zeros
for _ in range(30):
    z, voltage = norse.torch.lif_current_encoder(current, voltage, p)
    outputs += [z, voltage]
z, voltage = norse.torch.lif_ex_current_encoder(30 * current, zeros)
outputs += [z, voltage, norse.torch.lif_adex_current_encoder(30 * current, zeros, zeros)[0]]
"""

CLASS = """
data = 9 * torch.rand(5, 9)  # first: LILinearCell draws its weights in another way
from norse.torch import ConstantCurrentLIFEncoder
from norse.torch.module.leaky_integrator import LILinearCell
from norse.torch.module.lif import LIFRecurrentCell

class SNN(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = ConstantCurrentLIFEncoder(40)
        self.l1 = LIFRecurrentCell(9, 9)
        self.fc_out = LILinearCell(9, 2)

    def forward(self, x):
        s1 = so = None
        voltages = []
        for z in self.encoder(x):
            z, s1 = self.l1(z, s1)
            outputs.append(z)  # 9 inputs and 9 neurons: the initial weights are Norse's
            vo, so = self.fc_out(z, so)
            voltages.append(vo)
        return torch.stack(voltages)

SNN()(data)
"""

NEURONS = """
import norse.torch as snn

x = 3 * torch.rand(60, 4, 6)
for name in ("LIFRefracCell", "LIFExCell", "LIFAdExCell", "IAFCell", "LIFBoxCell", "LIBoxCell"):
    y, state = snn.Lift(getattr(snn, name)())(x)
    outputs += [y] if name == "LIFRefracCell" else [y, *state]
w, r = torch.randn(5, 6), torch.randn(5, 5)
for kind in (snn.LIFRefracRecurrent, snn.LIFExRecurrent, snn.LIFAdExRecurrent, snn.LIFRecurrent):
    outputs.append(kind(6, 5, input_weights=w, recurrent_weights=r)(x)[0])
"""

TOOLS = """
import norse.torch as snn

x = 4 * torch.rand(40, 3, 5)
net, state = snn.RecurrentSequential(torch.nn.Linear(5, 5), snn.LIFCell()), None
counter, s = snn.RegularizationCell(), None
cell = snn.LIFCell()
seen = []
hooked = snn.SequentialState(torch.nn.Linear(5, 5), snn.LIFCell())
hooked.register_forward_state_hooks(lambda module, input, output: seen.append(output[0]))
hooked(x[0])
hooked.remove_forward_state_hooks()
hooked(x[1])
assert len(seen) == 1
for step in x:
    z, state = net(step, state)
    y, s = cell(step, s)
    y, total = counter(y, s)
    outputs += [z, total]
spikes = (x > 3.8).float()
outputs.append(snn.SpikesToTimesDecoder(2)(spikes).nan_to_num(posinf=-1.0))
synapse = snn.TsodyksMakramState(u=torch.zeros(3, 5), x=torch.ones(3, 5))
for z in spikes:
    strength, synapse = snn.stp_step(z, synapse, snn.TsodyksMakramParameters())
    outputs += [strength, synapse.x]
lifted = snn.lift(snn.lif_feed_forward_step, p=snn.LIFParameters())
outputs.append(lifted(x, state=snn.LIFFeedForwardState(v=torch.zeros(3, 5), i=torch.zeros(3, 5)))[0])
outputs.append(snn.Lift(snn.LIFCell())((x, None))[0])
outputs.append(snn.LConv2d(2, 3, 3, padding=1)(torch.rand(4, 2, 2, 6, 6)))
for name in ("super_fn", "triangle_fn", "heavi_erfc_fn", "heavi_tanh_fn", "heavi_circ_fn"):
    outputs.append(getattr(snn, name)(x[0] - 2.0, 2.0))
"""

SCRIPTS = {
    "readme": README,
    "layers": LAYERS,
    "functions": FUNCTIONS,
    "class": CLASS,
    "neurons": NEURONS,
    "tools": TOOLS,
}


def run(script: str, library: str) -> list[torch.Tensor]:
    scope: dict[str, list[torch.Tensor]] = {}
    if library == "snnlib":
        script = script.replace("import norse.torch\n", "import snnlib\n").replace("norse.torch", "snnlib")
    exec(compile(HEAD + script, library, "exec"), scope)
    return [output.detach() for output in scope["outputs"]]


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_a_script_gives_the_same_spikes_after_its_import_is_replaced(script: str):
    theirs, ours = run(script, "norse"), run(script, "snnlib")
    assert len(theirs) == len(ours)
    fired = 0
    for a, b in zip(theirs, ours, strict=True):
        if bool(((a == 0) | (a == 1)).all()):
            assert torch.equal(a, b)
            fired += int(a.sum())
        else:
            torch.testing.assert_close(b, a, atol=1e-5, rtol=1e-5)
    assert fired > 100
