"""``python -m snnlib.task.speech_commands``: what it writes, how it goes on, what each flag changes."""

import sys
from pathlib import Path

import pytest
import torch

from snnlib.dataset.speech_commands import generated_speech
from snnlib.task.speech_commands import run as task
from tests.task.command import assert_wrote, inside, metrics, result, run

FAST = ("--fast", "--noplot", "--accelerator=cpu")


@pytest.fixture
def flagged():
    """Set the task's flags as a command line would; as they were at the end."""

    def set_to(*flags: str) -> None:
        task.FLAGS.unparse_flags()
        for name in task.FLAGS:
            task.FLAGS[name].unparse()
        task.FLAGS(["run", "--fast", *flags])
        task.prepare(task.FLAGS)

    yield set_to
    set_to()


def test_a_fast_run_writes_its_folder_and_nothing_else(tmp_path: Path):
    figures = result(run("speech_commands.run", "--fast", cwd=tmp_path, fresh=True))
    assert figures["task"] == "speech_commands"
    assert figures["model"] == "lsnn"
    assert figures["chance"] == pytest.approx(1 / 6, abs=1e-3)  # generated clips have six of the classes
    assert figures["spike_rate_hz"] > 0
    assert 0 <= figures["test_accuracy"] <= 1
    folder = tmp_path / figures["run"]
    assert folder.parent == tmp_path / "runs" / "speech_commands"
    assert_wrote(folder, tmp_path, "curve.png", "sample.png")
    assert figures["valid_accuracy"] == max(line["valid_accuracy"] for line in metrics(folder))


def test_it_learns(tmp_path: Path):
    flags = (*FAST, "--epochs=10", "--batch_size=8", "--hidden_size=32", "--dropout=0", "--nospec_augment")
    assert inside(task, "speech_commands", *flags, cwd=tmp_path)["test_accuracy"] > 0.5


def test_neurons_spike_before_they_are_trained(flagged):
    """Through both layers: where nothing spikes, little is learned."""
    flagged("--hidden_size=64")
    torch.manual_seed(0)
    module = task.Classifier(generated_speech())
    module.setup("fit")
    outputs = module(module.features(module.data.x_train).transpose(0, 1))
    rates = [float(outputs[place].detach().mean()) / task.FLAGS.dt for place in (2, 6)]
    assert min(rates) > 4.0, rates


@pytest.mark.parametrize(
    "flag",
    [
        *("--classes=10", "--model=gru", "--hidden_size=0", "--layers=0", "--dropout=1", "--dropout=nan"),
        *("--beta=nan", "--noise=2", "--noise=nan", "--time_shift=1", "--time_shift=nan", "--dt=0.05"),
    ],
)
def test_a_wrong_flag_ends_in_a_sentence(
    flagged, flag: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    flagged()
    monkeypatch.setattr(sys, "argv", ["run", flag])
    with pytest.raises(SystemExit) as end:
        task.main()
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert flag.split("=")[0].strip("-") in said
    assert len(said.strip().splitlines()) == 1


def test_without_data_it_says_what_is_missing_and_the_ways_out(tmp_path: Path):
    # a proxy that refuses at once stands in for a machine with no network
    proxies = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    done = run("speech_commands", cwd=tmp_path, environment=proxies)
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 2
    assert "data/SpeechCommands/speech_commands_v0.02 is not there" in lines[0]
    assert "--data_dir" in lines[1]
    assert "--dataset" in lines[1]


def trained(steps: int = 3) -> list[float]:
    """The losses of a few steps on generated clips."""
    torch.manual_seed(0)
    module = task.Classifier(generated_speech(int(task.FLAGS.classes)))
    module.setup("fit")
    optim = torch.optim.Adam(module.layers.parameters(), 0.01)
    losses = []
    for step in range(steps):
        torch.manual_seed(step)
        loss = module.training_step(torch.arange(8) * 3)["loss"]
        optim.zero_grad()
        loss.backward()
        optim.step()
        losses.append(float(loss.detach()))
    return losses


def test_features_are_computed_where_the_clips_are(flagged, monkeypatch: pytest.MonkeyPatch):
    """In ``setup`` Lightning names the device to which it will move the module; here one without memory."""
    flagged()
    monkeypatch.setattr(task.Classifier, "device", torch.device("meta"))
    module = task.Classifier(generated_speech())
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(module.features, "fit", lambda clips: seen.extend((clips, *module.features.buffers())))
    module.setup("fit")
    assert len(seen) == 5
    assert all(value.is_meta for value in seen)


@pytest.mark.parametrize(
    "flag",
    [
        "--classes=35",
        "--model=lif",
        "--model=lstm",
        "--hidden_size=12",
        "--layers=1",
        "--dropout=0.5",
        "--beta=0.5",
        "--nolearn_taus",
        "--noise=0",
        "--time_shift=0",
        "--nospec_augment",
        "--dt=0.01",
        "--method=super",
        "--alpha=2",
    ],
)
def test_flags_change_the_run(flagged, flag: str):
    flagged()
    before = trained()
    assert before == trained()
    flagged(flag)
    assert trained() != before


def test_time_constants_learn_and_stay_between_their_bounds(flagged):
    flagged()
    torch.manual_seed(0)
    layer = task.neurons(50)
    names = ("tau_mem_inv", "tau_adapt_inv", "beta")
    before = {name: getattr(layer, name).detach().clone() for name in names}
    assert 1 / 0.1 <= before["tau_mem_inv"].min() < 12 < 40 < before["tau_mem_inv"].max() <= 1 / 0.02
    torch.testing.assert_close(before["beta"], torch.full((50,), task.FLAGS.beta))
    optim = torch.optim.SGD(layer.parameters(), 1e6)
    output, _ = layer(3.0 * torch.rand(50, 4, 50))
    (output * torch.randn(50, 4, 50)).sum().backward()
    optim.step()
    for name in names:
        after = getattr(layer, name)
        assert not torch.equal(after, before[name])
        assert bool((after > 0).all() & after.isfinite().all())
    assert float(layer.tau_mem_inv.detach().max()) * task.FLAGS.dt <= 1 + 1e-6


@pytest.mark.parametrize("model", ["lsnn", "lstm"])
@pytest.mark.filterwarnings("ignore:You are trying to `self.log")  # there is no trainer here
def test_a_batch_without_clips_counts_for_nothing(flagged, model: str):
    """What the last of several processes is given at the end of an epoch."""
    flagged(f"--model={model}")
    module = task.Classifier(generated_speech()).eval()
    x, y = module.data.x_test[:6], module.data.y_test[:6]
    module.test_step((x, y))
    before = float(module.test_accuracy.compute())
    module.test_step((x[:0], y[:0]))
    assert float(module.test_accuracy.compute()) == before == float((answers(module, x) == y).float().mean())


def answers(module: task.Classifier, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return module(module.features(x).transpose(0, 1))[-1].mean(0).argmax(1)


def test_the_lstm_has_about_as_many_weights(flagged):
    sizes = {}
    for model in ("lsnn", "lstm"):
        flagged(f"--model={model}", "--hidden_size=256" if model == "lsnn" else "--nofast")
        sizes[model] = sum(p.numel() for p in task.network(12).parameters())
    assert sizes["lstm"] == pytest.approx(sizes["lsnn"], rel=0.03)
