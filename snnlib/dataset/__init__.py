"""Tensors for the tasks."""

from snnlib.dataset.augment import cutout, random_affine, random_crop, random_flip
from snnlib.dataset.images import DataError, Images, generated_images, load_images
from snnlib.dataset.store_recall import StoreRecall, Trials, draw_trials

__all__ = [
    "DataError",
    "Images",
    "StoreRecall",
    "Trials",
    "cutout",
    "draw_trials",
    "generated_images",
    "load_images",
    "random_affine",
    "random_crop",
    "random_flip",
]
