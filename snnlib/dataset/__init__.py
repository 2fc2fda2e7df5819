"""Tensors for the tasks."""

from snnlib.dataset.augment import random_affine
from snnlib.dataset.images import DataError, Images, generated_images, load_images

__all__ = ["DataError", "Images", "generated_images", "load_images", "random_affine"]
