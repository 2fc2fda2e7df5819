"""A factor for each input, the module that stands for the node Scale of NIR."""

from torch import Tensor, nn

__all__ = ["Scale"]


class Scale(nn.Module):
    """``output = scale input``, element by element.

    Parameters:
        scale: ``[*features]``, kept as a buffer.

    Shapes:
        input and output ``[B, *features]``.
    """

    scale: Tensor

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)

    def forward(self, input: Tensor) -> Tensor:
        return self.scale * input

    def extra_repr(self) -> str:
        return str(tuple(self.scale.shape))
