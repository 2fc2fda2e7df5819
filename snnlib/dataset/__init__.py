"""Tensors for the tasks."""

from snnlib.dataset.augment import (
    add_noise,
    cutout,
    mask_spectrogram,
    random_affine,
    random_crop,
    random_flip,
    random_shift,
)
from snnlib.dataset.images import DataError, Images, generated_images, load_images
from snnlib.dataset.log_mel import LogMel
from snnlib.dataset.speech_commands import Speech, generated_speech, load_speech
from snnlib.dataset.store_recall import StoreRecall, Trials, draw_trials

__all__ = [
    "DataError",
    "Images",
    "LogMel",
    "Speech",
    "StoreRecall",
    "Trials",
    "add_noise",
    "cutout",
    "draw_trials",
    "generated_images",
    "generated_speech",
    "load_images",
    "load_speech",
    "mask_spectrogram",
    "random_affine",
    "random_crop",
    "random_flip",
    "random_shift",
]
