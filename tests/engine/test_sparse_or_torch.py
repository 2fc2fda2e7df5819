"""Where torch's own convolution and linear map stand in for those that leave zeros out."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from snnlib.engine import sparse
from snnlib.engine.sparse import conv2d, linear
from tests.engine.spikes import everything, is_sparse, plain, spikes

pytestmark = pytest.mark.usefixtures("poisoned_memory")

OTHERS = {
    "stride": {"stride": (2, 1)},
    "dilation": {"dilation": (1, 2)},
    "groups": {"groups": 2},
    "padding by name": {"padding": "same"},
    "padding wider than a filter": {"padding": (3, 0)},
    "windows of more than 16 pixels": {"pool": 17},
}


@pytest.mark.parametrize("options", OTHERS.values(), ids=OTHERS)
def test_what_torch_does_in_its_place(options):
    x = spikes(3, 4, 20, 20)
    w = torch.randn(32, 4 // options.get("groups", 1), 3, 3, dtype=torch.float64)
    ours = everything(conv2d, x, w, backend="cpu", **options)
    assert not is_sparse(ours[0])
    theirs = everything(plain if "pool" in options else functional.conv2d, x, w, **options)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_torchs(dtype: torch.dtype):
    x, w = spikes(2, 3, 5, 5, dtype=dtype), torch.randn(32, 3, 3, 3, dtype=dtype)
    assert torch.equal(conv2d(x, w, backend="cpu"), functional.conv2d(x, w))


def test_autocast_is_torchs():
    x, w = spikes(2, 3, 5, 5, dtype=torch.float32), torch.randn(32, 3, 3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert conv2d(x, w, backend="cpu").dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [(0, 3, 5, 5), (3, 5, 5)], ids=["no sample", "no batch"])
def test_shapes_that_torch_takes(shape: tuple[int, ...]):
    x, w = torch.zeros(shape), torch.randn(32, 3, 3, 3)
    assert conv2d(x, w, backend="cpu").shape == functional.conv2d(x, w).shape


@pytest.mark.parametrize(
    ("shape", "weights"),
    [((2, 4, 5, 5), (32, 3, 3, 3)), ((2, 3, 2, 5), (32, 3, 3, 3)), ((3, 5), (32, 3, 3, 3))],
    ids=["channels", "a map smaller than the filter", "dimensions"],
)
def test_shapes_that_torch_refuses(shape: tuple[int, ...], weights: tuple[int, ...]):
    with pytest.raises(RuntimeError):
        conv2d(torch.zeros(shape), torch.zeros(weights), backend="cpu")
    with pytest.raises(RuntimeError):
        linear(torch.zeros(3, 5), torch.zeros(32, 4), backend="cpu")


@pytest.mark.parametrize("shape", [(), (1,), (4, 1), (4, 32)], ids=str)
def test_a_bias_that_torch_broadcasts(shape: tuple[int, ...]):
    x, w, bias = spikes(4, 40), torch.randn(32, 40, dtype=torch.float64), torch.randn(shape).double()
    ours = everything(lambda *t: linear(*t, backend="cpu"), x, w, bias)
    for one, other in zip(ours, everything(functional.linear, x, w, bias), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("count", [3, 31, 33])
def test_a_bias_that_torch_refuses(count: int):
    x, w = spikes(2, 3, 5, 5), torch.randn(32, 3, 3, 3, dtype=torch.float64)
    with pytest.raises(RuntimeError):
        conv2d(x, w, w.new_zeros(count), backend="cpu")
    with pytest.raises(RuntimeError):
        linear(x.flatten(1), w.new_zeros(32, 75), w.new_zeros(count), backend="cpu")


def test_who_multiplies_by_default():
    """Zeros are left out where most are zeros, and where there is enough to multiply."""
    w = torch.randn(32, 16, 3, 3, requires_grad=True)
    few, many = (spikes(32, 16, 16, 16, share=share, dtype=torch.float32) for share in (0.1, 0.5))
    assert is_sparse(conv2d(few, w))
    assert not is_sparse(conv2d(many, w))
    assert not is_sparse(conv2d(few[:1], w))
    assert not is_sparse(conv2d(few, w, backend="reference"))
    assert not is_sparse(conv2d(few, w[:31]))
    x, w = spikes(512, 256, share=0.1, dtype=torch.float32), torch.randn(256, 256, requires_grad=True)
    assert is_sparse(linear(x, w))
    assert not is_sparse(linear(x + 1, w))
    assert not is_sparse(linear(x, w, backend="reference"))


def test_without_a_compiler_it_is_torchs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sparse, "unavailable", lambda: "no such CPU")
    w = torch.randn(32, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    assert not is_sparse(conv2d(spikes(2, 3, 5, 5), w, backend="cpu"))


def test_torch_func_and_forward_mode_are_torchs():
    x, w = spikes(2, 3, 6, 6), torch.randn(32, 3, 3, 3, dtype=torch.float64)

    def loss(product, w: Tensor) -> Tensor:
        return product(x, w).pow(2).sum()

    def ours(x: Tensor, w: Tensor) -> Tensor:
        return conv2d(x, w, backend="cpu")

    gradients = [torch.func.grad(lambda w, p=product: loss(p, w))(w) for product in (ours, functional.conv2d)]
    torch.testing.assert_close(*gradients)
    pushed = [
        torch.func.jvp(lambda w, p=product: loss(p, w), (w,), (w,)) for product in (ours, functional.conv2d)
    ]
    torch.testing.assert_close(*pushed)
    both = torch.stack([x, x])
    torch.testing.assert_close(torch.func.vmap(lambda x: ours(x, w))(both)[1], functional.conv2d(x, w))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(w, w)
        tangent = torch.autograd.forward_ad.unpack_dual(ours(x, dual)).tangent
    torch.testing.assert_close(tangent, functional.conv2d(x, w))


def test_it_is_compiled_without_a_break():
    """A compiler sees torch's convolution and torch's linear map."""
    w, v = torch.randn(32, 3, 3, 3, requires_grad=True), torch.randn(40, 512, requires_grad=True)

    def net(x: Tensor, backend: str) -> Tensor:
        return linear(conv2d(x, w, backend=backend).flatten(1), v, backend=backend)

    x = spikes(2, 3, 6, 6, dtype=torch.float32)
    ours = torch.compile(net, fullgraph=True, backend="aot_eager")(x, "cpu")
    torch.testing.assert_close(ours, net(x, "reference"))
    exported = torch.export.export(_Net(w, v), (x,)).module()
    torch.testing.assert_close(exported(x), ours)


class _Net(torch.nn.Module):
    def __init__(self, w: Tensor, v: Tensor) -> None:
        super().__init__()
        self.w, self.v = torch.nn.Parameter(w.detach()), torch.nn.Parameter(v.detach())

    def forward(self, x: Tensor) -> Tensor:
        return linear(conv2d(x, self.w, backend="cpu").flatten(1), self.v, backend="cpu")


def test_a_layout_without_strides_is_torchs():
    x, w = spikes(4, 50), torch.randn(40, 50, dtype=torch.float64)
    torch.testing.assert_close(linear(x.to_sparse(), w, backend="cpu"), functional.linear(x, w))


@pytest.mark.parametrize("other", ["input", "weight", "bias"])
def test_two_dtypes_are_refused_as_torch_refuses_them(other: str):
    shapes = ((2, 3, 5, 5), (32, 3, 3, 3)), ((4, 5), (32, 5))
    for product, (shape, weights) in zip((conv2d, linear), shapes, strict=True):
        given = {
            "input": spikes(*shape),
            "weight": torch.ones(weights).double(),
            "bias": torch.ones(32).double(),
        }
        with pytest.raises(RuntimeError, match="type"):
            product(**{**given, other: given[other].float()}, backend="cpu")


class _Own(Tensor):
    """What it does in torch's functions is its own affair."""


def test_a_tensor_of_a_class_of_its_own_is_torchs():
    w = torch.randn(32, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    output = conv2d(spikes(2, 3, 5, 5).as_subclass(_Own), w, backend="cpu")
    assert type(output) is _Own
    assert not is_sparse(output)


@pytest.mark.parametrize("laid", [(True, False), (True, True)], ids=["input", "input and weights"])
def test_maps_in_the_layout_of_onednn_are_torchs(laid: tuple[bool, bool]):
    x, w = (torch.rand(64, 16, 8, 8) < 0.05).float(), torch.rand(64, 16, 3, 3)
    x, w = (value.to_mkldnn() if there else value for value, there in zip((x, w), laid, strict=True))
    for backend in sparse.BACKENDS:
        made = conv2d(x, w, backend=backend)
        torch.testing.assert_close(made.to_dense(), functional.conv2d(x, w).to_dense())


def test_weights_that_are_laid_out_sparsely_are_torchs():
    x, w = torch.rand(8, 64), (torch.rand(64, 64) < 0.1).float()
    made = linear(x, w.to_sparse_csr(), backend="cpu")
    torch.testing.assert_close(made, functional.linear(x, w.to_sparse_csr()))


def test_a_backend_that_is_none_is_refused():
    message = r"backend must be one of \['auto', 'reference', 'cpu'\], got 'foo'"
    with pytest.raises(ValueError, match=message):
        linear(torch.zeros(2, 3), torch.zeros(4, 3), backend="foo")
    with pytest.raises(ValueError, match=message):
        conv2d(torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 3, 3), backend="foo")


def test_a_sign_that_is_not_in_memory_is_torchs():
    """Of ``z.conj().imag``, say; a gradient may have one too."""
    x, w = spikes(4, 50), torch.randn(40, 50, dtype=torch.float64, requires_grad=True)
    negative = torch._neg_view
    torch.testing.assert_close(linear(negative(x), w, backend="cpu"), functional.linear(-x, w))
    torch.testing.assert_close(linear(x, negative(w), backend="cpu"), functional.linear(x, -w))
    output, given = linear(x, w, backend="cpu"), torch.randn(4, 40, dtype=torch.float64)
    assert is_sparse(output)
    (found,) = torch.autograd.grad(output, w, negative(given))
    torch.testing.assert_close(found, -given.T @ x)
