"""How often a module without a state runs: once over all rows, or over one step that is repeated."""

import threading

import pytest
import torch
from torch import nn

from snnlib import LI, Lift, SequentialState
from tests.module.chains import B, Calls, T, close, conv_net, images

pytestmark = pytest.mark.usefixtures("seeded")


@pytest.mark.parametrize("training", [True, False])
def test_a_module_without_a_state_runs_once_over_all_rows(training):
    net = conv_net().train(training)
    calls = {index: Calls(net[index]) for index in (0, 1, 3, 4, 5)}
    net(images())
    assert {index: call.rows for index, call in calls.items()} == {index: [T * B] for index in calls}


def test_a_repeated_input_runs_once_over_one_step():
    """Until the first neuron; the result is that of the copied input."""
    net = conv_net().eval()
    x = torch.rand(B, 1, 6, 6)
    wanted = net(x.repeat(T, 1, 1, 1, 1))
    calls = {index: Calls(net[index]) for index in (0, 1, 3, 4, 5)}
    close(net(x.expand(T, -1, -1, -1, -1)), wanted)
    assert {index: call.rows for index, call in calls.items()} == {
        0: [B],
        1: [B],
        3: [T * B],
        4: [T * B],
        5: [T * B],
    }


def test_a_repeated_input_goes_from_module_to_module_as_one_step():
    """Not as a view of a sequence, whose gradient would be a whole one."""
    net = SequentialState(nn.Linear(4, 5), nn.Tanh(), nn.Identity(), LI(), nn.Linear(5, 2), nn.Tanh())
    seen = []
    for index in (1, 2, 5):
        net[index].register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
    net(torch.rand(B, 4).expand(T, B, 4))
    (_, first), (second, _), (third, _) = seen
    assert second is first
    assert second.shape == (B, 5)
    assert third.shape == (T * B, 2)


class Mean(nn.Module):
    """Over time; given at every step, without a copy."""

    over_time = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(0).exp().expand(x.shape)


def test_a_module_that_sees_time_ends_the_one_step_that_was_repeated():
    net = SequentialState(nn.Linear(4, 4), Mean(), nn.Tanh(), LI())
    x = torch.rand(B, 4)
    close(net(x.expand(T, B, 4)), net(x.repeat(T, 1, 1)))


def test_gradient_through_a_repeated_input():
    """That of the copied input, in weights and in the input itself."""
    net = SequentialState(nn.Linear(4, 5), nn.Tanh(), LI())
    gradients = []
    for repeat in (lambda x: x.expand(T, B, 4), lambda x: x.repeat(T, 1, 1)):
        x = torch.linspace(-1, 1, 4 * B).reshape(B, 4).requires_grad_()
        output, _ = net(repeat(x))
        gradients.append(torch.autograd.grad(output.square().sum(), [x, *net.parameters()]))
    assert gradients[0][0].abs().max() > 0
    close(gradients[0], gradients[1])


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_of_a_repeated_map_lies_in_memory_as_the_map(order: torch.memory_format):
    net = SequentialState(nn.Conv2d(2, 5, 3), nn.Identity(), LI()).to(memory_format=order)
    strides = []
    net[1].register_full_backward_hook(lambda module, inputs, outputs: strides.append(outputs[0].stride()))
    x = torch.rand(B, 2, 6, 6).contiguous(memory_format=order)
    maps = net[0](x)
    output, _ = net(x.expand(T, -1, -1, -1, -1))
    output.square().sum().backward()
    assert strides == [maps.stride()]


def test_batch_norm_of_a_repeated_input():
    """As documented: the same output and running mean, a running variance larger by (n - 1/T) / (n - 1)."""
    x = torch.randn(B, 4, 5, 5)
    once, often = (SequentialState(nn.BatchNorm2d(4, momentum=1.0), LI()) for _ in range(2))
    close(once(x.expand(T, B, 4, 5, 5)), often(x.repeat(T, 1, 1, 1, 1)))
    torch.testing.assert_close(once[0].running_mean, often[0].running_mean)
    n = B * 5 * 5
    ratio = once[0].running_var / often[0].running_var
    torch.testing.assert_close(ratio, torch.full((4,), (n - 1 / T) / (n - 1)))


@pytest.mark.parametrize("dropout", [nn.Dropout, nn.Dropout1d, nn.AlphaDropout, nn.FeatureAlphaDropout])
def test_dropout_draws_anew_at_every_step_of_a_repeated_input(dropout):
    """In training; in evaluation one call serves all steps."""
    net = SequentialState(
        nn.Linear(40, 40), nn.Sequential(nn.Identity(), dropout(0.5)), LI(), return_hidden=True
    )
    x = torch.rand(B, 40).expand(T, B, 40)
    calls = Calls(net[0]), Calls(net[1])
    hidden, _ = net(x)
    assert [call.rows for call in calls] == [[B], [T * B]]
    dropped = hidden[1]
    assert any(not torch.equal(dropped[0], dropped[t]) for t in range(1, T))
    net.eval()
    hidden, _ = net(x)
    assert [call.rows for call in calls] == [[B, B], [T * B, B]]
    close(hidden[1], hidden[0])
    net[1][1].train()  # alone, to see how sure a net is
    dropped = net(x)[0][1]
    assert any(not torch.equal(dropped[0], dropped[t]) for t in range(1, T))


class Noise(nn.Module):
    """Of one's own, in training."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.randn_like(x) if self.training else x


@pytest.mark.parametrize("lifted", [False, True])
def test_a_module_that_draws_does_so_for_each_step(lifted):
    """Once it runs until it draws, and nothing is left of that."""
    noise = Noise()
    seen = nn.Sequential(nn.Identity(), noise)
    net = Lift(seen) if lifted else SequentialState(nn.Linear(40, 40), seen, LI(), return_hidden=True)
    x = torch.rand(B, 40).expand(T, B, 40)

    def run(x):
        torch.manual_seed(0)
        return net(x) if lifted else net(x)[0][1]

    calls = Calls(noise)
    noisy = run(x)
    after = torch.rand(())
    close(noisy, run(x.clone()))
    assert torch.equal(after, torch.rand(()))
    close(noisy, run(x))
    assert [row.unique(dim=0).shape[0] for row in noisy.transpose(0, 1)] == [T] * B
    assert calls.rows == [T * B, T * B, T * B]
    net.eval()
    run(x)
    assert calls.rows[3:] == [B]


class Counted(nn.Module):
    """Has a buffer that another takes the place of at each call."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls = self.calls + 1
        return x


def test_what_is_before_a_draw_learns_once():
    """As in a process in which it is known already that the module draws."""
    norm, counted = nn.BatchNorm1d(4), Counted()
    net = SequentialState(nn.Sequential(norm, counted, Noise()), LI())
    known = SequentialState(nn.Sequential(nn.BatchNorm1d(4), Counted(), Noise()), LI())
    held, calls = norm.running_mean, Calls(norm)
    x = torch.rand(B, 4).expand(T, B, 4)
    known(x)
    known.load_state_dict(net.state_dict())
    for step in range(1, 4):
        for each in (net, known):
            torch.manual_seed(step)
            each(x)
        assert norm.num_batches_tracked == counted.calls == step
    assert norm.running_mean is held
    close(tuple(net.state_dict().values()), tuple(known.state_dict().values()))
    assert calls.rows == [B, T * B, T * B, T * B]  # the first until the draw


class Loading(nn.Module):
    """Draws nothing, while another thread does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.drawn = []
        thread = threading.Thread(target=lambda: self.drawn.append(torch.rand(4)))
        thread.start()
        thread.join()
        return 2 * x


def test_what_another_thread_draws_meanwhile_is_drawn():
    loading = Loading()
    calls = Calls(loading)
    for _ in range(2):
        SequentialState(loading, LI())(torch.rand(B, 4).expand(T, B, 4))
        assert not torch.equal(loading.drawn[0], torch.rand(4))
    assert calls.rows == [B, B]


def test_attention_without_dropout_draws_nothing():
    class Attends(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.scaled_dot_product_attention(x, x, x, dropout_p=0.5 * self.training)

    module = Attends()
    calls = Calls(module)
    for mode in (False, True):
        Lift(module.train(mode))(torch.rand(B, 5, 4).expand(T, B, 5, 4))
    assert calls.rows == [B, T * B]


def test_a_hook_that_draws_does_so_for_each_step():
    linear = nn.Linear(4, 4)
    linear.register_forward_hook(lambda module, args, output: output + torch.randn_like(output))
    output = Lift(linear)(torch.rand(B, 4).expand(T, B, 4))
    assert not any(torch.equal(output[0], output[t]) for t in range(1, T))


def test_a_lazy_module_draws_its_weights():
    net = Lift(nn.Sequential(nn.LazyLinear(5), Noise()))
    x = torch.rand(B, 4).expand(T, B, 4)
    torch.manual_seed(0)
    net(x)
    torch.manual_seed(0)
    wanted = nn.Linear(4, 5)
    assert torch.equal(net.lifted[0].weight, wanted.weight)


def test_a_mistake_in_a_module_is_told():
    with pytest.raises(RuntimeError, match="shape"):
        Lift(nn.Sequential(nn.Linear(5, 5), Counted()))(torch.rand(B, 4).expand(T, B, 4))


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.RReLU(), (40,)),
        (nn.FractionalMaxPool2d(2, 3), (4, 9, 9)),
        (nn.FractionalMaxPool3d(2, 3), (2, 9, 9, 9)),
    ],
)
def test_what_else_torch_draws_is_drawn_at_every_step(module, shape):
    x = torch.randn(B, *shape).expand(T, B, *shape)
    output = Lift(module.train())(x)
    assert not any(torch.equal(output[0], output[t]) for t in range(1, T))
    output = Lift(module.eval())(x)  # where pooling draws too
    assert torch.equal(output[0], output[1]) == isinstance(module, nn.RReLU)
