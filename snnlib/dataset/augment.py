"""Augmentation of whole batches, on the device that holds them."""

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

__all__ = ["random_affine"]


def random_affine(x: Tensor, shift: float = 0.08, rotation: float = 0.1, scale: float = 0.05) -> Tensor:
    """Move, turn and scale every image of a batch by its own random amount, filling with zeros.

    Parameters:
        x: images ``[B, C, H, W]``, floating point.
        shift: largest move along each axis, in widths and heights of the image.
        rotation: largest angle, rad.
        scale: largest relative change of size.

    Returns:
        The images, sampled bilinearly, in the shape of ``x``; random numbers from torch's global generator.
    """

    def uniform(largest: float) -> Tensor:
        return (2.0 * torch.rand(len(x), device=x.device) - 1.0) * largest

    angle, size = uniform(rotation), 1.0 + uniform(scale)
    cos, sin = size * angle.cos(), size * angle.sin()
    # grid coordinates run from -1 to 1: two units are the width of the image
    across, down = uniform(2.0 * shift), uniform(2.0 * shift)
    rows = torch.stack([cos, -sin, across]), torch.stack([sin, cos, down])
    grid = affine_grid(torch.stack(rows).permute(2, 0, 1).to(x.dtype), list(x.shape), align_corners=False)
    return grid_sample(x, grid, align_corners=False)
