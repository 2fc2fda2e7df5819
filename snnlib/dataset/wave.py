"""Recordings as arrays. They may come from a stranger."""

import os
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from snnlib.dataset.error import DataError

__all__ = ["read_wave", "scaled"]


def read_wave(path: Path, rate: int, most: int) -> np.ndarray:
    """The first ``most`` samples of a recording in one channel, int16 ``[n]``.

    Not by ``torchaudio.load``, which wants torchcodec and FFmpeg.

    Parameters:
        path: a WAV.
        rate: the sampling rate that it must have, Hz.
        most: how many samples are read at most.

    Raises:
        DataError: it is no WAV, shorter than its header says, empty, or of another rate or more channels.
        ImportError: soundfile is missing; the message has the line that installs it.
    """
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the package is there, the library it wraps is not
        raise ImportError(f"audio needs soundfile ({error}): pip install 'snnlib[tasks]'") from error
    _check_length(path)
    try:
        wave, found = soundfile.read(os.fspath(path), most, dtype="int16")
    except (soundfile.SoundFileError, MemoryError, OSError, TypeError, ValueError) as error:
        raise DataError(f"{path} is no recording that can be read: {error}") from error
    if found != rate or wave.ndim != 1 or len(wave) == 0:
        raise DataError(f"{path} must be mono at {rate} Hz, got shape {list(wave.shape)} at {found} Hz")
    return np.asarray(wave)


def _check_length(path: Path) -> None:
    """Refuse what is no WAV, or shorter than its header says: libsndfile reads all kinds, and what is there."""
    try:
        end = path.stat().st_size
        with path.open("rb") as file:
            riff, size, wave = struct.unpack("<4sI4s", file.read(12))
            name = b""
            while name != b"data" and riff == b"RIFF" and wave == b"WAVE" and file.tell() + size <= end + 4:
                file.seek(file.tell() + (size + size % 2 if name else 0))
                name, size = struct.unpack("<4sI", file.read(8))
            whole = name == b"data" and file.tell() + size <= end
    except (OSError, ValueError, struct.error) as error:
        raise DataError(f"{path} is no recording that can be read: {error}") from error
    if not whole:
        raise DataError(f"{path} is no WAV, or shorter than its header says: {end} bytes")


def scaled(x: Tensor) -> Tensor:
    """Recordings as floating point between -1 and 1: int16 is divided by 32768, others are left."""
    return x / 32768.0 if x.dtype == torch.int16 else x
