"""Tensors for the tasks."""

from snnlib.dataset.augment import cutout, random_affine, random_crop, random_flip
from snnlib.dataset.images import DataError, Images, generated_images, load_images

__all__ = [
    "DataError",
    "Images",
    "cutout",
    "generated_images",
    "load_images",
    "random_affine",
    "random_crop",
    "random_flip",
]
