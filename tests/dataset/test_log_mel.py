"""Log-mel features and the augmentation of clips."""

import numpy as np
import pytest
import torch

from snnlib.dataset import LogMel, add_noise, mask_spectrogram, random_shift

RATE = 16_000


def tone(pitch: float) -> torch.Tensor:
    return 0.5 * torch.sin(2 * torch.pi * pitch * torch.arange(RATE) / RATE)


def test_a_tone_is_loud_in_the_band_of_its_pitch():
    features = LogMel(RATE, 0.02)
    loudest = [int(features(tone(pitch)[None])[0].mean(0).argmax()) for pitch in (300, 600, 1200, 2400, 4800)]
    # 40 bands up to 8 kHz, equally wide in mel = 2595 log10(1 + f / 700)
    for band, pitch in zip(loudest, (300, 600, 1200, 2400, 4800), strict=True):
        centre = (band + 1) * 2595 * np.log10(1 + 8000 / 700) / 41
        assert 700 * (10 ** (centre / 2595) - 1) == pytest.approx(pitch, rel=0.15)


@pytest.mark.parametrize(("dt", "steps"), [(0.01, 100), (0.02, 50), (0.0125, 80)])
def test_a_step_of_features_for_each_dt(dt: float, steps: int):
    assert LogMel(RATE, dt, 20)(torch.randn(3, RATE)).shape == (3, steps, 20)


def test_it_hears_when():
    clip = torch.cat([torch.zeros(RATE // 2), tone(1000)[: RATE // 2]])[None]
    loud = LogMel(RATE, 0.01)(clip)[0].amax(1)
    assert loud[:48].max() < loud[52:].min()
    click = torch.zeros(1, RATE)
    click[0, RATE // 2] = 1.0
    assert int(LogMel(RATE, 0.01)(click)[0].amax(1).argmax()) == 50  # a step is that around its beginning


def test_bands_are_normalised_over_the_clips():
    clips = (3000 * torch.randn(30, RATE) * torch.rand(30, 1)).short()
    features = LogMel(RATE, 0.02)
    features.fit(clips, at_once=7)
    y = features(clips)
    torch.testing.assert_close(y.mean((0, 1)), torch.zeros(40), atol=1e-3, rtol=0.0)
    torch.testing.assert_close(y.std((0, 1)), torch.ones(40), atol=1e-3, rtol=0.0)
    torch.testing.assert_close(y, features(clips / 32768.0))  # integers or numbers up to 1
    again = LogMel(RATE, 0.02)
    again.load_state_dict(features.state_dict())
    assert torch.equal(again(clips), y)


def test_silence_is_finite():
    features = LogMel(RATE, 0.02)
    torch.testing.assert_close(features(torch.zeros(2, RATE)), torch.full((2, 50, 40), 1e-6).log())
    features.fit(torch.zeros(2, RATE))
    assert features(torch.zeros(2, RATE)).isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        assert features(torch.zeros(2, RATE, dtype=torch.int16)).dtype == torch.float32
    assert features.double()(torch.zeros(2, RATE)).dtype == torch.float64


def test_clips_are_moved_without_wrapping():
    x = 1.0 + torch.arange(200.0).repeat(50, 1)
    torch.manual_seed(0)
    moved = random_shift(x, 30)
    shifts = set()
    for row in moved:
        inside = row.nonzero()[:, 0]
        by = int(inside[0]) or int(inside[-1]) - 199
        expected = torch.zeros(200)
        if by >= 0:
            expected[by:] = x[0, : 200 - by]
        else:
            expected[:by] = x[0, -by:]
        assert torch.equal(row, expected)
        shifts.add(by)
    assert min(shifts) < -20
    assert max(shifts) > 20
    assert max(map(abs, shifts)) <= 30
    assert torch.equal(random_shift(x, 0), x)


def test_noise_is_mixed_at_a_volume_of_its_own():
    torch.manual_seed(0)
    noise = torch.full((3, 12), 16384, dtype=torch.int16)
    noise[:, 9:] *= 1 - torch.eye(3, dtype=torch.int16)  # which says what noise it is
    added = add_noise(torch.zeros(2000, 12), noise, 0.4)
    added, marks = added[:, 0], added[:, 9:]
    loud = added[added > 0]
    for mark in marks[added > 0].T:
        assert int((mark == 0).sum()) == pytest.approx(len(loud) / 3, abs=100)
    assert len(loud) == pytest.approx(1600, abs=5 * (2000 * 0.8 * 0.2) ** 0.5)
    assert float(loud.max()) == pytest.approx(0.2, abs=0.01)
    assert float(loud.max()) <= 0.2
    assert float(loud.mean()) == pytest.approx(0.1, abs=0.01)
    x = torch.randn(4, 12)
    assert torch.equal(add_noise(x, noise, 0.0), x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_noise_keeps_the_dtype_of_the_clips(dtype):
    x, noise = torch.zeros(20, 10), torch.full((3, 10), 16384, dtype=torch.int16)
    torch.manual_seed(0)
    wanted = add_noise(x, noise, 0.4)
    torch.manual_seed(0)
    found = add_noise(x.to(dtype), noise, 0.4)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), wanted, rtol=0.01, atol=0.0)


def test_masks_are_one_stretch_of_time_and_one_of_bands():
    torch.manual_seed(0)
    x = torch.ones(300, 50, 40)
    masked = mask_spectrogram(x, 8, 5)
    widths = []
    for example in masked:
        times, bands = example.amax(1) == 0, example.amax(0) == 0
        assert torch.equal(example, (~times).float()[:, None] * (~bands).float())
        for blank in (times, bands):  # in one piece
            assert int(blank.int().diff().abs().sum()) + int(blank[0]) + int(blank[-1]) in (0, 2)
        widths.append((int(times.sum()), int(bands.sum())))
    assert {time for time, _ in widths} == set(range(9))
    assert {band for _, band in widths} == set(range(6))
    assert torch.equal(mask_spectrogram(x, 0, 0), x)
