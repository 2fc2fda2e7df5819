"""Layers with weights whose inputs are mostly zero, as spikes are."""

from typing import Any, Literal, cast

from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from snnlib.engine.check import check_backend, checked_length
from snnlib.engine.scan import Backend
from snnlib.engine.sparse import BACKENDS, conv2d, linear

__all__ = ["SpikeConv2d", "SpikeLinear", "weigher"]


class SpikeConv2d(nn.Conv2d):
    """:class:`torch.nn.Conv2d`, for inputs that are mostly zero: on the CPU only the rest is multiplied.

    The same parameters, the same ``state_dict``, the same output but for rounding. When it pays, and when torch
    convolves as ever: see :func:`snnlib.engine.conv2d`.

    Parameters:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode: as in
            :class:`torch.nn.Conv2d`.
        device, dtype: of the weights.
        backend: "auto", "reference" (torch's convolution always) or "cpu" (only what is not zero, wherever that
            can be done).
        pool: return the largest of each ``pool`` times ``pool`` pixels, as an ``nn.MaxPool2d(pool)`` behind it,
            in the same pass.

    Shapes:
        input ``[N, C, H, W]``, in a :class:`.SequentialState` ``[T, B, C, H, W]``; output as torch's.

    Raises:
        ValueError: another backend, or ``pool`` is no integer of at least 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        backend: str = "auto",
        pool: int = 1,
    ) -> None:
        sizes = kernel_size, stride, padding, dilation, groups
        super().__init__(in_channels, out_channels, *sizes, bias, padding_mode, device, dtype)
        check_backend(backend, BACKENDS)
        self.backend, self.pool = backend, checked_length("pool", pool)

    def extra_repr(self) -> str:
        pool = f", pool={self.pool}" if self.pool > 1 else ""
        return f"{super().extra_repr()}{pool}"

    def forward(self, input: Tensor) -> Tensor:
        if self.padding_mode != "zeros":
            maps = super().forward(input)
            return maps if self.pool == 1 else max_pool2d(maps, self.pool)
        padding = cast(str | tuple[int, int], self.padding)
        sizes = self.stride, padding, self.dilation, self.groups
        return conv2d(input, self.weight, self.bias, *sizes, self.backend, self.pool)


class SpikeLinear(nn.Linear):
    """:class:`torch.nn.Linear`, for inputs that are mostly zero, as :class:`SpikeConv2d` is a convolution.

    Parameters:
        in_features, out_features, bias: as in :class:`torch.nn.Linear`.
        device, dtype: of the weights.
        backend: as in :class:`SpikeConv2d`.

    Shapes:
        input ``[..., in_features]``.

    Raises:
        ValueError: another backend.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        backend: str = "auto",
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        check_backend(backend, BACKENDS)
        self.backend = backend

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias, self.backend)


def weigher(backend: Backend) -> str:
    """The backend of layers with weights where that of the neurons is ``backend``: "reference" or "auto"."""
    return "reference" if backend == "reference" else "auto"
