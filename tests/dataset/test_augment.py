"""Moving, mirroring and cutting a batch of images: what is kept, what can occur, and how often."""

import pytest
import torch

from snnlib.dataset import cutout, random_crop, random_flip

DTYPES = [torch.uint8, torch.float32]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def numbered(batch: int, maps: int = 3, height: int = 6, width: int = 5, dtype=torch.uint8) -> torch.Tensor:
    """The same image many times; no two pixels of a map are equal, none is black."""
    image = 1 + torch.arange(maps * height * width).reshape(maps, height, width)
    return image.to(dtype).expand(batch, maps, height, width)


@pytest.mark.parametrize("augment", [random_crop, random_flip, lambda x: cutout(x, 3)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_shape_type_and_seed(augment, dtype):
    x = numbered(40, dtype=dtype)
    before = x.clone()
    torch.manual_seed(7)
    first, second = augment(x), augment(x)
    torch.manual_seed(7)
    assert torch.equal(augment(x), first)
    assert not torch.equal(second, first)
    assert first.shape == x.shape
    assert first.dtype == dtype
    assert torch.equal(x, before)
    assert augment(x[:0]).shape == (0, 3, 6, 5)


def test_a_crop_is_the_image_moved_with_black_where_nothing_was():
    """Every image is one of the 25 moves, done here by slices; each occurs, about equally often."""
    x = numbered(5000)
    seen = torch.zeros(5, 5, dtype=torch.int64)
    border = torch.zeros(3, 10, 9, dtype=torch.uint8)
    border[:, 2:8, 2:7] = x[0]
    cropped = random_crop(x, padding=2)
    for top in range(5):
        for left in range(5):
            wanted = border[:, top : top + 6, left : left + 5]
            seen[top, left] = int((cropped == wanted).flatten(1).all(1).sum())
    assert int(seen.sum()) == 5000
    # 200 expected, with a standard deviation of 13.9
    assert int(seen.min()) > 140
    assert int(seen.max()) < 260


def test_no_padding_is_no_crop():
    x = numbered(4)
    assert torch.equal(random_crop(x, padding=0), x)


def test_half_of_the_images_are_mirrored_whole():
    x = numbered(4000)
    flipped = random_flip(x)
    same = (flipped == x).flatten(1).all(1)
    mirrored = (flipped == torch.stack(list(x.unbind(-1))[::-1], -1)).flatten(1).all(1)
    assert bool((same ^ mirrored).all())
    assert 1850 < int(mirrored.sum()) < 2150  # 2000 expected, with a standard deviation of 31.6


@pytest.mark.parametrize("size", [1, 4, 5])
def test_cutout_is_one_square_in_all_maps_and_its_middle_is_anywhere(size: int):
    height, width = 6, 5
    x = numbered(6000, height=height, width=width)
    cut = cutout(x, size)
    black = (cut == 0).all(1)
    assert torch.equal(cut, x * ~black[:, None])  # all maps alike, and what is not black is as it was
    # by hand: every middle, what of the square lies inside, and how often that comes out
    middles: dict[bytes, int] = {}
    for row in range(height):
        for column in range(width):
            wanted = torch.zeros(height, width, dtype=torch.bool)
            top, left = row - size // 2, column - size // 2
            wanted[max(0, top) : top + size, max(0, left) : left + size] = True
            key = wanted.numpy().tobytes()
            middles[key] = middles.get(key, 0) + 1
    found: dict[bytes, int] = {}
    for image in black:
        key = image.numpy().tobytes()
        found[key] = found.get(key, 0) + 1
    assert found.keys() == middles.keys()
    for key, ways in middles.items():
        assert found[key] == pytest.approx(200 * ways, abs=70 * ways**0.5)


def test_cutout_of_size_0_changes_nothing():
    x = numbered(4)
    assert torch.equal(cutout(x, 0), x)


def test_negative_sizes_are_refused():
    with pytest.raises(ValueError, match="padding=-1"):
        random_crop(numbered(1), padding=-1)
    with pytest.raises(ValueError, match="size=-2"):
        cutout(numbered(1), -2)
