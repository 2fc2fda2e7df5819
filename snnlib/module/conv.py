"""A convolution of every step of a sequence."""

from typing import Any

from torch import Tensor

from snnlib.module.lift import Lift
from snnlib.module.sparse import SpikeConv2d

__all__ = ["LConv2d"]


class LConv2d(Lift):
    """``Lift(SpikeConv2d(..., bias=False))``: a convolution without bias over ``[T, B, C, H, W]``.

    Parameters:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, device, dtype: as in
            :class:`torch.nn.Conv2d`.
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
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        sizes = (kernel_size, stride, padding, dilation, groups)
        super().__init__(SpikeConv2d(in_channels, out_channels, *sizes, bias=False, device=device, dtype=dtype))

    @property
    def weight(self) -> Tensor:
        """The filters, ``[out_channels, in_channels / groups, *kernel_size]``."""
        weight: Tensor = self.lifted.weight  # type: ignore[assignment]
        return weight
