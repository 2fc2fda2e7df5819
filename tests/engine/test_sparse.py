"""Convolutions and linear maps of spikes: what is not multiplied makes no difference."""

import threading

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from snnlib.engine import sparse
from snnlib.engine.sparse import conv2d, linear
from tests.engine.spikes import everything, is_sparse, plain, spikes

pytestmark = pytest.mark.usefixtures("poisoned_memory")

FORMATS = [torch.contiguous_format, torch.channels_last]
FAST = settings(max_examples=40, deadline=None)


@st.composite
def cases(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, int], int, float]:
    """Shapes of input and weight, padding, pooling, and the share of numbers that are not zero."""
    filter = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    padding = draw(st.integers(0, filter[0] - 1)), draw(st.integers(0, filter[1] - 1))
    sides = [draw(st.integers(max(1, k - 2 * p), 9)) for k, p in zip(filter, padding, strict=True)]
    count, channels = draw(st.integers(1, 7)), draw(st.sampled_from([1, 3, 16, 17, 40]))
    size = draw(st.sampled_from([32, 33, 63, 64, 65, 100, 128]))
    share = draw(st.sampled_from([0.0, 0.05, 0.3, 1.0]))
    smallest = min(n + 2 * p - k + 1 for n, p, k in zip(sides, padding, filter, strict=True))
    pool = draw(st.integers(1, min(4, smallest)))
    return (count, channels, *sides), (size, channels, *filter), padding, pool, share


@FAST
@example(((2, 3, 1, 1), (32, 3, 1, 3), (0, 1), 1, 0.3), torch.float64, torch.channels_last, True)
@given(cases(), st.sampled_from([torch.float32, torch.float64]), st.sampled_from(FORMATS), st.booleans())
def test_a_convolution_equals_torchs(case, dtype: torch.dtype, order: torch.memory_format, biased: bool):
    shape, weights, padding, pool, share = case
    torch.manual_seed(0)
    x = spikes(*shape, share=share, dtype=dtype).contiguous(memory_format=order)
    w = torch.randn(weights, dtype=dtype).contiguous(memory_format=order)
    tensors = [x, w, *([torch.randn(len(w), dtype=dtype)] if biased else [])]
    options = {"padding": padding, "pool": pool}
    ours, theirs = (
        everything(conv2d, *tensors, backend="cpu", **options),
        everything(plain, *tensors, **options),
    )
    assert is_sparse(ours[0])
    for one, other in zip(ours, theirs, strict=True):
        scale = float(other.detach().abs().max())
        tight = dtype == torch.float64
        torch.testing.assert_close(one, other, rtol=0, atol=scale * (1e-13 if tight else 1e-5))


@FAST
@given(
    st.lists(st.integers(1, 7), min_size=1, max_size=3),
    st.sampled_from([1, 5, 16, 50, 200]),
    st.sampled_from([32, 47, 64, 96, 130]),
    st.sampled_from([torch.float32, torch.float64]),
    st.booleans(),
)
def test_a_linear_map_equals_torchs(rows, size, wanted, dtype: torch.dtype, biased: bool):
    torch.manual_seed(0)
    tensors = [spikes(*rows, size, dtype=dtype), torch.randn(wanted, size, dtype=dtype)]
    tensors += [torch.randn(wanted, dtype=dtype)] if biased else []
    ours = everything(linear, *tensors, backend="cpu")
    theirs = everything(functional.linear, *tensors)
    assert is_sparse(ours[0])
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        tight = dtype == torch.float64
        scale = float(other.detach().abs().max())
        torch.testing.assert_close(one, other, rtol=0, atol=scale * (1e-13 if tight else 1e-5))


@pytest.mark.parametrize("order", FORMATS)
@pytest.mark.parametrize("padding", [(0, 0), (1, 0)])
def test_a_filter_as_large_as_the_map_is_a_linear_map(order: torch.memory_format, padding: tuple[int, int]):
    x, w = spikes(40, 5, 4, 3), torch.randn(64, 5, 4, 3, dtype=torch.float64)
    tensors = [value.contiguous(memory_format=order) for value in (x, w)]
    ours = everything(conv2d, *tensors, padding=padding, backend="cpu")
    assert is_sparse(ours[0])
    for one, other in zip(ours, everything(functional.conv2d, *tensors, padding=padding), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("order", FORMATS)
@pytest.mark.parametrize("of_weights", FORMATS)
def test_maps_lie_in_memory_as_torch_lays_them(order: torch.memory_format, of_weights: torch.memory_format):
    x = spikes(4, 3, 8, 9).contiguous(memory_format=order)
    w = torch.randn(32, 3, 3, 3, dtype=torch.float64).contiguous(memory_format=of_weights)
    ours = everything(conv2d, x, w, backend="cpu")
    theirs = everything(functional.conv2d, x, w)
    assert [value.stride() for value in ours[:2]] == [value.stride() for value in theirs[:2]]


def test_views_are_read_as_what_they_show():
    """Every second sample, channel and pixel, and a gradient that is one number many times."""
    x, w = spikes(6, 8, 12, 12)[::2, ::2, ::2, ::2], torch.randn(64, 3, 3, 4, dtype=torch.float64)
    w = w.transpose(1, 3)
    given = torch.ones((), dtype=torch.float64)
    results = []
    for product in (lambda *t: conv2d(*t, backend="cpu"), functional.conv2d):
        inputs = x.detach().requires_grad_(), w.detach().requires_grad_()
        output = product(*inputs)
        results.append([output, *torch.autograd.grad(output, inputs, given.expand(output.shape))])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("wanted", [(True, False, False), (False, True, False), (False, False, True)])
def test_only_gradients_that_are_wanted(wanted: tuple[bool, ...], monkeypatch: pytest.MonkeyPatch):
    calls = []
    monkeypatch.setattr(sparse, "_grow", lambda *args, grow=sparse._grow: calls.append(1) or grow(*args))
    tensors = spikes(3, 4, 6, 6), *(torch.randn(n, dtype=torch.float64) for n in ((32, 4, 3, 3), (32,)))
    tensors = [value.requires_grad_(flag) for value, flag in zip(tensors, wanted, strict=True)]
    conv2d(*tensors, backend="cpu").sum().backward()
    assert [value.grad is not None for value in tensors] == list(wanted)
    assert len(calls) == wanted[1]


def test_nothing_is_kept_without_gradients():
    x, w = spikes(3, 4, 6, 6), torch.randn(32, 4, 3, 3, dtype=torch.float64)
    with torch.no_grad():
        output = conv2d(x, w.requires_grad_(), backend="cpu")
    assert output.grad_fn is None
    torch.testing.assert_close(output, functional.conv2d(x, w.detach()))


@pytest.mark.parametrize("pool", [1, 2])
def test_a_gradient_of_the_gradient(pool: int):
    x, w = spikes(2, 3, 5, 6), torch.randn(32, 3, 3, 3, dtype=torch.float64)
    results = []
    for product in (lambda *t: conv2d(*t, backend="cpu", pool=pool), lambda *t: plain(*t, pool=pool)):
        inputs = x.clone().requires_grad_(), w.clone().requires_grad_()
        first = torch.autograd.grad(product(*inputs).pow(3).sum(), inputs, create_graph=True)
        results.append(torch.autograd.grad(sum((g**2).sum() for g in first), inputs))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_of_equal_pixels_the_first_is_chosen_and_nan_before_all():
    """As torch has it: every map is zero but for its bias, or has NaN somewhere."""
    x, w = torch.zeros(1, 1, 4, 4, dtype=torch.float64), torch.randn(32, 1, 1, 1, dtype=torch.float64)
    for place, value in (((0, 0), 0.0), ((0, 1), torch.nan), ((1, 0), torch.nan), ((3, 3), torch.nan)):
        x[0, 0, *place] = value
        ours = everything(conv2d, x, w, pool=2, backend="cpu")
        theirs = everything(plain, x, w, pool=2)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, equal_nan=True)


def test_nan_and_infinity_are_no_zeros():
    x, w = spikes(1, 2, 6, 6), torch.randn(32, 2, 3, 3, dtype=torch.float64)
    x[0, 0, 1, 1], x[0, 1, 4, 4] = torch.nan, torch.inf
    ours, theirs = conv2d(x, w, backend="cpu"), functional.conv2d(x, w)
    torch.testing.assert_close(ours, theirs, equal_nan=True)
    assert ours.isnan().any()


@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("padding", [(0, 0), (1, 2)])
def test_infinity_meets_no_zero_outside_of_the_map(padding: tuple[int, int], pool: int):
    x, w = spikes(2, 2, 6, 6), torch.randn(32, 2, 3, 3, dtype=torch.float64)
    x[0, 0, 0, 0] = x[1, 1, 5, 2] = torch.inf
    ours = everything(conv2d, x, w, padding=padding, pool=pool, backend="cpu")
    assert is_sparse(ours[0])
    theirs = everything(plain, x, w, padding=padding, pool=pool)
    torch.testing.assert_close(ours, theirs, equal_nan=True)
    assert theirs[2].isfinite().any()


def test_threads_make_no_difference_to_the_output():
    x, w = spikes(40, 16, 14, 14), torch.randn(64, 16, 3, 3, dtype=torch.float64)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(everything(conv2d, x, w, backend="cpu"))
    finally:
        torch.set_num_threads(threads)
    for others in results[1:]:
        assert torch.equal(results[0][0], others[0])
        for one, other in zip(results[0], others, strict=True):
            torch.testing.assert_close(one, other)


def test_several_python_threads_at_once():
    cases = [(spikes(9, 5, 7, 7), torch.randn(32 + k, 5, 3, 3, dtype=torch.float64)) for k in range(6)]
    found: dict[int, list[Tensor]] = {}

    def work(k: int) -> None:
        found[k] = everything(conv2d, *cases[k], backend="cpu")

    workers = [threading.Thread(target=work, args=(k,)) for k in range(len(cases))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for k, case in enumerate(cases):
        for one, other in zip(found[k], everything(conv2d, *case, backend="cpu"), strict=True):
            torch.testing.assert_close(one, other)


def test_spikes_that_are_changed_before_the_way_back_are_noticed():
    x, w = spikes(2, 3, 6, 6), torch.randn(32, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    output = conv2d(x, w, backend="cpu")
    x.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_what_they_make_may_be_written_to(format: torch.memory_format, pool: int):
    """As behind torch's own, where an ``nn.ReLU(inplace=True)`` stands."""
    torch.manual_seed(0)
    x, w = spikes(3, 4, 8, 8).contiguous(memory_format=format), torch.randn(32, 4, 3, 3, dtype=torch.float64)
    ours = everything(lambda x, w: torch.relu_(conv2d(x, w, backend="cpu", pool=pool)), x, w)
    assert is_sparse(ours[0])
    theirs = everything(lambda x, w: plain(x, w, pool=pool).relu(), x, w)
    torch.testing.assert_close(ours, theirs)
    x, w = spikes(2, 3, 40), torch.randn(33, 40, dtype=torch.float64)
    ours = everything(lambda x, w: torch.relu_(linear(x, w, backend="cpu")), x, w)
    torch.testing.assert_close(ours, everything(lambda x, w: functional.linear(x, w).relu(), x, w))


@pytest.mark.parametrize("pool", [1, 2])
def test_gradients_of_many_outputs_at_once(pool: int):
    torch.manual_seed(0)
    x, w = spikes(3, 4, 7, 6), torch.randn(32, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    output = conv2d(x, w, backend="cpu", pool=pool)
    many = torch.randn(3, *output.shape, dtype=output.dtype)
    (found,) = torch.autograd.grad(output, w, many, is_grads_batched=True)
    again = plain(x, w, pool=pool)
    wanted = [torch.autograd.grad(again, w, one, retain_graph=True)[0] for one in many]
    torch.testing.assert_close(found, torch.stack(wanted))
