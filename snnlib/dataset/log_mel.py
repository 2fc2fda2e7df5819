"""Log-mel features of clips, computed in batches on the device that holds them."""

from typing import Any

import torch
from torch import Tensor, nn

from snnlib.dataset.wave import scaled

__all__ = ["LogMel"]


class LogMel(nn.Module):
    """Loudness in mel bands over time, zero on average and of unit variance in each band.

    ::

        m = log(mel(x) + 1e-6)              power in each band of a window of 25 ms
        y = (m - mean) / std                over the training clips, see :meth:`fit`

    Parameters:
        rate: samples a second.
        dt: time between two windows, s.
        bands: how many bands.

    Shapes:
        clips ``[B, samples]``, floating point between -1 and 1 or int16; features
        ``[B, T, bands]`` with T = samples // (rate * dt).

    Raises:
        ImportError: torchaudio is missing; the message has the line that installs it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, rate: int, dt: float = 0.01, bands: int = 40) -> None:
        super().__init__()
        try:
            from torchaudio.transforms import MelSpectrogram
        except Exception as error:  # a torchaudio of another build fails with an OSError or RuntimeError
            raise ImportError(f"features need torchaudio ({error}): pip install 'snnlib[tasks]'") from error
        window = round(0.025 * rate)
        fft = 2 ** (window - 1).bit_length()
        self.hop = round(dt * rate)
        self.mel: Any = MelSpectrogram(rate, fft, window, self.hop, n_mels=bands)
        self.register_buffer("mean", torch.zeros(bands))
        self.register_buffer("std", torch.ones(bands))

    def fit(self, clips: Tensor, at_once: int = 500) -> None:
        """Take mean and standard deviation of each band from these clips."""
        sums = torch.zeros(2, len(self.mean), dtype=torch.float64, device=self.mean.device)
        count = 0
        for part in clips.split(at_once):
            m = self._log_mel(part).double()
            sums += torch.stack([m.sum((0, 1)), m.square().sum((0, 1))])
            count += m.shape[0] * m.shape[1]
        mean, square = sums / count
        self.mean.copy_(mean)
        self.std.copy_((square - mean.square()).clamp_min(1e-8).sqrt())

    def forward(self, clips: Tensor) -> Tensor:
        return (self._log_mel(clips) - self.mean) / self.std

    @torch.no_grad()
    def _log_mel(self, clips: Tensor) -> Tensor:
        # under autocast the powers of quiet bands would be lost in half precision
        with torch.autocast(clips.device.type, enabled=False):
            m = self.mel(scaled(clips).to(self.mean.dtype))[..., : clips.shape[1] // self.hop]
            return torch.log(m + 1e-6).transpose(1, 2)
