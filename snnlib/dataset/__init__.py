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
from snnlib.dataset.correlated import Episodes, correlated_spikes, generated_episodes, without_timing
from snnlib.dataset.error import DataError
from snnlib.dataset.events import load_nmnist
from snnlib.dataset.images import Images, generated_images, load_images
from snnlib.dataset.log_mel import LogMel
from snnlib.dataset.speech_commands import Speech, generated_speech, load_speech
from snnlib.dataset.store_recall import StoreRecall, Trials, draw_trials

__all__ = [
    "DataError",
    "Episodes",
    "Images",
    "LogMel",
    "Speech",
    "StoreRecall",
    "Trials",
    "add_noise",
    "correlated_spikes",
    "cutout",
    "draw_trials",
    "generated_episodes",
    "generated_images",
    "generated_speech",
    "load_images",
    "load_nmnist",
    "load_speech",
    "mask_spectrogram",
    "random_affine",
    "random_crop",
    "random_flip",
    "random_shift",
    "without_timing",
]
