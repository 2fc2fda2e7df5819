"""The oracle against closed forms, a brute-force Euler loop and an ODE solver."""

import ast
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.special import lambertw

from tests.engine import event_driven
from tests.engine.event_driven import DEFAULTS, Layer, gradient, problem, problems, simulate
from tests.engine.event_driven.network import batched, events_of, run

KINDS = list(DEFAULTS)


@cache
def small(kind: str) -> event_driven.Problem:
    return problem(kind, 0, layers=2, recurrent=True, neurons=(3, 2), channels=3, duration=0.03, spread=0.1)


def one(kind: str, weight: float, recurrent: float | None = None, **parameters: float) -> list[Layer]:
    """A single neuron behind a single channel."""
    own = None if recurrent is None else np.array([[recurrent]])
    return [Layer(kind, np.array([[weight]]), own, parameters)]


def times(layers: list[Layer], inputs: list[float], duration: float = 0.06) -> np.ndarray:
    return simulate([inputs], layers, duration)[-1][0]


def loss(spikes: list[list[np.ndarray]]) -> float:
    """Smooth, and different in every spike; times in units of 10 ms."""
    flat = [(n + 1 + 3 * k, 100 * t) for k, layer in enumerate(spikes) for n, t in enumerate(layer)]
    return sum(float(np.sum(np.sin(a * np.arange(1, len(t) + 1)) * t**2)) for a, t in flat)


def first(weight: float, v_th: float = 1.0, rate: float = 100.0) -> float:
    """First spike after one input at 0, tau_mem = 2 tau_syn: x - x^2 = v_th / weight for x = exp(-rate t)."""
    return -np.log((1 + np.sqrt(1 - 4 * v_th / weight)) / 2) / rate


@pytest.mark.parametrize("weight", [4.0001, 5.0, 40.0])
@pytest.mark.parametrize("arrival", [0.0, 0.0071])
def test_first_spike(weight: float, arrival: float) -> None:
    assert times(one("lif", weight), [arrival])[0] - arrival == pytest.approx(
        first(weight), abs=1e-14 / (weight - 4)
    )


def test_equal_time_constants() -> None:
    """v = w m t exp(-m t) where both rates are m, which two exponentials cannot say."""
    spike = -lambertw(-1 / 5).real / 100
    assert times(one("lif", 5.0, tau_syn_inv=100.0), [0.0])[0] == pytest.approx(spike, abs=1e-15)
    near = times(one("lif", 5.0, tau_syn_inv=100.0 * (1 + 1e-9)), [0.0])[0]
    assert near == pytest.approx(spike, abs=1e-11)


@pytest.mark.parametrize(("excess", "spikes"), [(1e-3, 1), (1e-9, 1), (1e-13, 1), (-1e-13, 0), (-1e-3, 0)])
def test_a_crossing_however_brief(excess: float, spikes: int) -> None:
    """The maximum of v is a quarter of the weight, at x = 1/2."""
    assert len(times(one("lif", 4 * (1 + excess)), [0.002], 0.04)) == spikes


def test_maxima_without_a_spike() -> None:
    def peak(inputs: list[list[float]], weights: list[float]) -> float:
        layer = Layer("lif", np.array([weights]))
        record = run(events_of(inputs), [batched(layer)], 0.05)[0]
        assert record.counts.sum() == 0
        return float(record.peaks[0, 0])

    assert -0.005 <= peak([[0.001]], [3.98]) < -0.0047  # inside of a step, where it is a bound
    early = first(5.0) - 1e-5  # inhibition turns v back just before it would cross
    x = np.exp(-100 * early)
    assert peak([[0.0], [early]], [5.0, -50.0]) == pytest.approx(5 * (x - x**2) - 1, abs=1e-12)


def trajectory(t: np.ndarray, spikes: np.ndarray, inputs: np.ndarray, weight: float, p: dict) -> tuple:
    """v and b of a neuron without recurrence, in closed form from its own spikes strictly before t."""
    m, s, d = p["tau_mem_inv"], p["tau_syn_inv"], p["tau_adapt_inv"]
    v, b = np.empty_like(t), np.empty_like(t)
    for k, now in enumerate(t):
        past = spikes[spikes < now]
        since, start = (past[-1], p["v_reset"]) if len(past) else (0.0, p["v_leak"])
        v[k] = p["v_leak"] + (start - p["v_leak"]) * np.exp(-m * (now - since))
        for arrival in inputs[inputs <= now]:
            begin = max(arrival, since)
            i = weight * np.exp(-s * (begin - arrival))
            v[k] += i * m / (s - m) * (np.exp(-m * (now - begin)) - np.exp(-s * (now - begin)))
        b[k] = d * np.exp(-d * (now - past)).sum()
    return v, b


def test_lsnn_spikes_where_v_meets_its_threshold_and_nowhere_else() -> None:
    p = {"beta": 0.012, "tau_adapt_inv": 30.0, "v_leak": 0.1, "v_reset": -0.2}
    inputs = np.array([0.001, 0.004, 0.009, 0.0095, 0.02, 0.03])
    layers = one("lsnn", 6.0, **p)
    spikes, p = times(layers, inputs), layers[0].parameters
    assert len(spikes) >= 4
    v, b = trajectory(spikes, spikes, inputs, 6.0, p)
    np.testing.assert_allclose(v, p["v_th"] + p["beta"] * b, rtol=0, atol=1e-12)
    grid = np.linspace(0, 0.06, 3001)[1:]
    v, b = trajectory(grid, spikes, inputs, 6.0, p)
    assert (v < p["v_th"] + p["beta"] * b)[np.abs(grid[:, None] - spikes).min(1) > 1e-9].all()


def test_a_falling_threshold_is_crossed() -> None:
    """The threshold comes down faster than v."""
    p = {"beta": 0.01, "tau_adapt_inv": 150.0, "v_leak": 0.98, "v_reset": 0.98}
    spikes = times(one("lsnn", 3.0, **p), [0.0])
    assert len(spikes) == 3
    v, b = trajectory(spikes, spikes, np.zeros(1), 3.0, DEFAULTS["lsnn"] | p)
    np.testing.assert_allclose(v, 1 + 0.01 * b, rtol=0, atol=1e-12)
    before, _ = trajectory(spikes - 1e-6, spikes, np.zeros(1), 3.0, DEFAULTS["lsnn"] | p)
    assert before[-1] > v[-1]


def test_adex_by_an_ode_solver() -> None:
    p = DEFAULTS["lif_adex"] | {"tau_ada_inv": 30.0, "adaptation_spike": 0.3, "v_leak": 0.1, "v_reset": -0.3}
    inputs, weight = [0.002, 0.005, 0.006, 0.02], 5.0

    def slope(t: float, y: np.ndarray) -> list[float]:
        v, i, a = y
        onset = p["delta_T"] * np.exp((v - p["v_th"]) / p["delta_T"])
        dv = p["tau_mem_inv"] * (p["v_leak"] - v + i + onset - a)
        return [dv, -p["tau_syn_inv"] * i, p["tau_ada_inv"] * (p["adaptation_current"] * (v - p["v_leak"]) - a)]

    def cross(t: float, y: np.ndarray) -> float:
        return y[0] - p["v_th"]

    cross.terminal, cross.direction = True, 1
    spikes, t, y = [], 0.0, np.array([p["v_leak"], 0.0, 0.0])
    for stop in [*inputs, 0.06]:
        while t < stop:
            run = solve_ivp(slope, (t, stop), y, "DOP853", events=cross, rtol=1e-13, atol=1e-14, max_step=5e-4)
            t, y = run.t[-1], run.y[:, -1].copy()
            if run.status == 1:
                spikes.append(t)
                y[0], y[2] = p["v_reset"], y[2] + p["adaptation_spike"]
        y[1] += weight
    assert len(spikes) >= 4
    np.testing.assert_allclose(times(one("lif_adex", weight, **p), inputs), spikes, rtol=0, atol=1e-12)


def euler(q: event_driven.Problem, dt: float) -> list[list[np.ndarray]]:
    """The network on a grid, explicit Euler; a spike in step k is at (k + 1) dt."""
    steps = round(q.duration / dt)
    z = np.zeros((steps, len(q.inputs)))
    for c, t in enumerate(q.inputs):
        z[np.rint(t / dt).astype(int), c] = 1
    result = []
    for layer in q.layers:
        p = {k: np.broadcast_to(v, len(layer.weights)) for k, v in layer.parameters.items()}
        arrivals, z = z @ layer.weights.T, np.zeros((steps, len(layer.weights)))
        v, i, x, held = p["v_leak"].copy(), np.zeros(len(z[0])), np.zeros(len(z[0])), np.zeros(len(z[0]))
        for k in range(steps):
            i = i + arrivals[k] + (layer.recurrent @ z[k - 1] if layer.recurrent is not None and k else 0)
            drive, jump = p["v_leak"] - v + i, 0.0
            if layer.kind == "lif_adex":
                drive += p["delta_T"] * np.exp((v - p["v_th"]) / p["delta_T"]) - x
                x = x + dt * p["tau_ada_inv"] * (p["adaptation_current"] * (v - p["v_leak"]) - x)
                jump = p["adaptation_spike"]
            elif layer.kind == "lsnn":
                x, jump = x - dt * p["tau_adapt_inv"] * x, p["tau_adapt_inv"]
            v = v + dt * p["tau_mem_inv"] * drive * (held <= 0)
            i = i - dt * p["tau_syn_inv"] * i
            z[k] = v > p["v_th"] + (p["beta"] * x if layer.kind == "lsnn" else 0)
            held = np.where(z[k] == 1, np.rint(p.get("rho_reset", 0.0) / dt), held - 1)
            v, x = np.where(z[k] == 1, p["v_reset"], v), x + z[k] * jump
        result.append([dt * (np.flatnonzero(column) + 1) for column in z.T])
    return result


@pytest.mark.parametrize("kind", KINDS)
def test_euler_converges_to_it(kind: str) -> None:
    """Numbers of spikes are the same, and their times are off by some steps: first order."""
    q, error = small(kind), []
    exact = simulate(q.inputs, q.layers, q.duration)
    for dt in (4e-5, 1e-5):
        grid = euler(q, dt)
        assert [[len(t) for t in layer] for layer in grid] == [[len(t) for t in layer] for layer in exact]
        gaps = [np.abs(a - b) for x, y in zip(grid, exact, strict=True) for a, b in zip(x, y, strict=True)]
        error.append(np.concatenate(gaps).max())
    assert error[0] < 10 * 4e-5
    assert error[1] < 10 * 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_neurons_side_by_side_are_neurons_alone(kind: str) -> None:
    q = problem(kind, seed=1, spread=0.2)
    (layer,) = q.layers
    for n, spikes in enumerate(simulate(q.inputs, q.layers, q.duration)[0]):
        p = {k: v if np.ndim(v) == 0 else v[n] for k, v in layer.parameters.items()}
        (alone,) = simulate(q.inputs, [Layer(kind, layer.weights[n : n + 1], None, p)], q.duration)[0]
        np.testing.assert_allclose(alone, spikes, rtol=0, atol=1e-14)


def test_refractory_period() -> None:
    rho = 0.0031
    inputs = np.arange(0.0005, 0.05, 0.0007)
    spikes = times(one("lif_refrac", 8.0, rho_reset=rho), inputs)
    assert len(spikes) > 10
    gaps = np.diff(spikes)
    assert (gaps > rho).all()
    assert gaps.min() < 1.2 * rho  # it is driven hard, so the bound is felt
    assert np.diff(times(one("lif", 8.0), inputs)).min() < rho


def test_spikes_that_coincide() -> None:
    """Neurons that are alike spike at the same time, once; what they send each other does not lift v."""
    layer = Layer("lif", np.full((2, 1), 5.0), np.full((2, 2), 100.0))
    for spikes in simulate([[0.0]], [layer], first(5.0) + 1e-5)[0]:
        np.testing.assert_allclose(spikes, [first(5.0)], rtol=0, atol=1e-15)
    together = simulate([[0.004], [0.004]], [Layer("lif", np.array([[2.0, 3.0]]))], 0.05)[0][0]
    np.testing.assert_allclose(together, times(one("lif", 5.0), [0.004], 0.05), rtol=0, atol=1e-16)


def test_gradient_of_the_closed_form() -> None:
    """dt = -dv / v' of v = v_leak + w m / (s - m) (exp(-m t) - exp(-s t)) at the spike, both sides by hand."""
    w, m, s, t = 6.0, 100.0, 200.0, first(6.0)
    layers = one("lif", w)
    names = ["tau_mem_inv", "tau_syn_inv", "v_th", "v_leak", "v_reset"]
    (found,) = gradient(lambda spikes: spikes[0][0][0], [[0.0]], layers, 0.01, names)
    x, y = np.exp(-m * t), np.exp(-s * t)
    rise = w * m / (s - m) * (s * y - m * x)
    expected = {
        "weights": -m / (s - m) * (x - y) / rise,
        "tau_mem_inv": -w * (s / (s - m) ** 2 * (x - y) - m / (s - m) * t * x) / rise,
        "tau_syn_inv": -w * (-m / (s - m) ** 2 * (x - y) + m / (s - m) * t * y) / rise,
        "v_th": 1 / rise,
        "v_leak": -1 / rise,
        "v_reset": 0.0,
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value, rel=1e-8, abs=1e-12), name


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_has_each_element_in_its_place(kind: str) -> None:
    q = small(kind)
    # one number for a layer, where everything else is one a neuron
    layers = [replace(x, parameters={**x.parameters, "tau_mem_inv": 110.0}) for x in q.layers]
    found = gradient(loss, q.inputs, layers, q.duration, ["tau_mem_inv", "v_th"])
    assert found[0]["tau_mem_inv"].shape == ()
    places = [(0, "weights", (1, 2)), (0, "recurrent", (0, 1)), (0, "tau_mem_inv", ()), (0, "v_th", 2)]
    places += [(1, "weights", (1, 2)), (1, "recurrent", (1, 1)), (1, "tau_mem_inv", ())]
    slopes = []
    for k, name, where in places:
        layer, p, sides = layers[k], dict(layers[k].parameters), []
        for side in (1e-6, -1e-6):
            value = np.array(p[name] if name in p else getattr(layer, name), float)
            value[where] += side
            new = {"parameters": p | {name: value}} if name in p else {name: value}
            moved = [*layers[:k], replace(layer, **new), *layers[k + 1 :]]
            sides.append(loss(simulate(q.inputs, moved, q.duration)))
        slopes.append((sides[0] - sides[1]) / 2e-6)
        assert found[k][name][where] == pytest.approx(slopes[-1], rel=1e-5, abs=1e-7), (k, name)
    assert np.count_nonzero(slopes) >= len(places) - 1  # a spike at the end may reach nothing


@pytest.mark.parametrize("excess", [1e-7, -1e-7])
def test_gradient_where_a_spike_vanishes_or_appears(excess: float) -> None:
    with pytest.raises(ValueError, match="moving weights: neuron 0 of a lif layer spikes"):
        gradient(lambda spikes: 0.0, [[0.0]], one("lif", 4 * (1 + excess)), 0.05)


def test_gradient_where_spikes_change_places() -> None:
    layer = Layer("lif", np.array([[5.0, 1.0]]))
    with pytest.raises(ValueError, match="a spike passes one"):
        gradient(lambda spikes: 0.0, [[0.0], [first(5.0) + 1e-12]], [layer], 0.05)
    alike = Layer("lif", np.array([[5.0], [5.0 + 1e-9]]), np.full((2, 2), 0.1))
    with pytest.raises(ValueError, match="a spike passes one"):
        gradient(lambda spikes: 0.0, [[0.0]], [alike], 0.004)
    gradient(lambda spikes: 0.0, [[0.0]], [replace(alike, recurrent=None)], 0.004)  # no connection, no matter


@pytest.mark.parametrize("kind", KINDS)
def test_a_problem_keeps_its_rules(kind: str) -> None:
    q = small(kind)
    spikes = simulate(q.inputs, q.layers, q.duration)
    arrivals = np.concatenate(q.inputs)
    assert np.abs(arrivals / 1e-3 - np.rint(arrivals / 1e-3)).max() < 1e-9
    for layer in spikes:
        counts, own = [len(t) for t in layer], np.sort(np.concatenate(layer))
        assert max(counts) <= 6
        assert np.count_nonzero(counts) >= 0.75 * len(counts)
        assert own.max() < q.duration - 1e-3
        assert np.diff(own).min() > 5e-5
        assert np.abs(own[:, None] - arrivals).min() > 5e-5
        arrivals = own


def test_a_seed_is_a_problem() -> None:
    first, again, other = (problem("lif", seed=seed, neurons=2) for seed in (1, 1, 2))
    np.testing.assert_equal(again.inputs, first.inputs)
    np.testing.assert_equal(again.layers[0].weights, first.layers[0].weights)
    assert not np.array_equal(other.layers[0].weights, first.layers[0].weights)


def test_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"lif has no \['beta'\]"):
        Layer("lif", np.ones((1, 1)), None, {"beta": 1.0})
    with pytest.raises(ValueError, match="no layer has"):
        gradient(loss, [[0.0]], one("lif", 5.0), 0.05, ["beta"])
    with pytest.raises(ValueError, match="above its threshold after its reset"):
        times(one("lif", 5.0, v_reset=1.5), [0.0])
    with pytest.raises(ValueError, match="neurons has 3 sizes for 2 layers"):
        problem("lif", seed=0, layers=2, neurons=(1, 2, 3))
    monkeypatch.setattr(problems, "_ROUNDS", 3)
    with pytest.raises(ValueError, match="no lif layer of 2 neurons within"):
        problem("lif", seed=0, neurons=2, slope=1e4)


def test_it_shares_no_code_with_snnlib() -> None:
    for file in Path(event_driven.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module] if node.level == 0 else []
            for name in names:
                assert name.split(".")[0] in {"collections", "dataclasses", "math", "numpy", "typing"}, file
