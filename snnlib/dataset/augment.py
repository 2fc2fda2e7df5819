"""Augmentation of whole batches, on the device that holds them."""

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad

from snnlib.dataset.wave import scaled

__all__ = [
    "add_noise",
    "cutout",
    "mask_spectrogram",
    "random_affine",
    "random_crop",
    "random_flip",
    "random_shift",
]


def random_affine(x: Tensor, shift: float = 0.08, rotation: float = 0.1, scale: float = 0.05) -> Tensor:
    """Move, turn and scale every image of a batch by its own random amount, filling with zeros.

    Parameters:
        x: images ``[B, C, H, W]``, floating point.
        shift: largest move along each axis, in widths and heights of the image.
        rotation: largest angle, rad; images that are not square are sheared too.
        scale: largest relative change of the grid at which the image is sampled: its size changes by a factor
            between ``1 / (1 + scale)`` and ``1 / (1 - scale)``.

    Returns:
        The images, sampled bilinearly, in the shape of ``x``; random numbers from torch's global generator.
    """
    if not x.numel():
        return x.clone()  # torch makes no grid for it

    def uniform(largest: float) -> Tensor:
        return (2.0 * torch.rand(len(x), device=x.device) - 1.0) * largest

    angle, size = uniform(rotation), 1.0 + uniform(scale)
    cos, sin = size * angle.cos(), size * angle.sin()
    # grid coordinates run from -1 to 1: two units are the width of the image
    across, down = uniform(2.0 * shift), uniform(2.0 * shift)
    rows = torch.stack([cos, -sin, across]), torch.stack([sin, cos, down])
    grid = affine_grid(torch.stack(rows).permute(2, 0, 1).to(x.dtype), list(x.shape), align_corners=False)
    return grid_sample(x, grid, align_corners=False)


def add_noise(x: Tensor, noise: Tensor, volume: float, share: float = 0.8) -> Tensor:
    """Mix background noise into clips, each at its own random volume.

    Parameters:
        x: clips ``[B, samples]``, floating point.
        noise: pieces of noise to draw from, ``[M, samples]``; int16 is scaled to lie between -1 and 1.
        volume: largest factor of the noise.
        share: part of the clips that get any.

    Returns:
        Clips in the shape and dtype of ``x``; random numbers from torch's global generator.
    """
    chosen = scaled(noise[torch.randint(len(noise), (len(x),), device=x.device)]).to(x.dtype)
    factor = (volume * torch.rand(len(x), 1, device=x.device)).to(x.dtype)
    return x + chosen * factor * (torch.rand(len(x), 1, device=x.device) < share)


def random_shift(x: Tensor, largest: int) -> Tensor:
    """Move each clip ``[B, samples]`` in time by up to ``largest`` samples either way, filling with zeros."""
    by = torch.randint(-largest, largest + 1, (len(x), 1), device=x.device)
    source = torch.arange(x.shape[1], device=x.device) - by
    inside = (source >= 0) & (source < x.shape[1])
    return x.gather(1, source.clamp(0, x.shape[1] - 1)) * inside


def mask_spectrogram(x: Tensor, times: int, bands: int) -> Tensor:
    """Blank a stretch of time and a band of frequencies in each example (SpecAugment, Park et al. 2019).

    Parameters:
        x: features ``[B, T, F]``, zero on average: zero is what fills the masks.
        times, bands: largest widths, drawn for each example from 0 to these.
    """
    for dim, largest in ((1, times), (2, bands)):
        size = x.shape[dim]
        width = torch.randint(0, largest + 1, (len(x), 1), device=x.device)
        begin = (torch.rand(len(x), 1, device=x.device) * (size - width + 1)).long()
        at = torch.arange(size, device=x.device)
        kept = (at < begin) | (at >= begin + width)
        x = x * kept.unsqueeze(2 if dim == 1 else 1)
    return x


def random_crop(x: Tensor, padding: int = 4) -> Tensor:
    """Cut every image of a batch, with a black border around it, back to its size at a random place.

    Each of the ``(2 padding + 1)^2`` places is equally likely (Krizhevsky 2009 and many after).

    Parameters:
        x: images ``[B, C, H, W]``, any dtype.
        padding: width of the border, pixels.

    Returns:
        Images in the shape and dtype of ``x``; random numbers from torch's global generator.

    Raises:
        ValueError: ``padding`` is negative.
    """
    if padding < 0:
        raise ValueError(f"padding must not be negative, got padding={padding}")
    batch, _, height, width = x.shape
    top, left = torch.randint(2 * padding + 1, (2, batch, 1), device=x.device)
    rows = top + torch.arange(height, device=x.device)
    columns = left + torch.arange(width, device=x.device)
    image = torch.arange(batch, device=x.device).view(-1, 1, 1)
    # indices beside a slice come first: [B, H, W, C]
    chosen = pad(x, [padding] * 4)[image, :, rows[:, :, None], columns[:, None, :]]
    return chosen.permute(0, 3, 1, 2)


def random_flip(x: Tensor) -> Tensor:
    """Mirror every image of a batch left to right, or leave it, with equal probability.

    Parameters:
        x: images ``[B, C, H, W]``, any dtype.

    Returns:
        Images in the shape and dtype of ``x``; random numbers from torch's global generator.
    """
    mirrored = torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5
    return torch.where(mirrored, x.flip(-1), x)


def cutout(x: Tensor, size: int) -> Tensor:
    """Black out a square of every image of a batch.

    The square's middle is any pixel with equal probability, and what lies outside of the image is lost: from
    about a quarter of the square to all of it is inside.

    Parameters:
        x: images ``[B, C, H, W]``, any dtype.
        size: side of the square, pixels; 0 leaves the images alone.

    Returns:
        Images in the shape and dtype of ``x``; random numbers from torch's global generator.

    Raises:
        ValueError: ``size`` is negative.

    Source:
        DeVries & Taylor 2017, Improved regularization of convolutional neural networks with cutout.
    """
    if size < 0:
        raise ValueError(f"size must not be negative, got size={size}")

    def inside(length: int) -> Tensor:
        first = torch.randint(length, (len(x), 1), device=x.device) - size // 2
        at = torch.arange(length, device=x.device)
        return (first <= at) & (at < first + size)

    rows, columns = inside(x.shape[2]), inside(x.shape[3])
    return x.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)
