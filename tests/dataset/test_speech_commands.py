"""Speech Commands: splits by the lists, the order of labels, archives, and what is refused."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from snnlib.dataset import DataError
from snnlib.dataset.speech_commands import (
    COMMANDS,
    RATE,
    WORDS,
    Speech,
    generated_speech,
    labels_of,
    load_speech,
)

SUBSET = Path(__file__).parents[2].parent / "shared" / "data" / "speech_commands_subset.tar.xz"
FOLDER = "SpeechCommands/speech_commands_v0.02"
OTHERS = ("bed", "cat", "zero")


def value(word: str, speaker: int) -> int:
    """The constant sample that marks a clip."""
    return 100 * WORDS.index(word) + speaker


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """The ten words and three others, each by ten speakers, of whom 6 and 7 validate and 8 and 9 test."""
    root = tmp_path / "data" / FOLDER
    lists: dict[str, list[str]] = {"validation_list.txt": [], "testing_list.txt": []}
    for word in COMMANDS + OTHERS:
        (root / word).mkdir(parents=True)
        for speaker in range(10):
            name = f"{word}/{speaker:08x}_nohash_0.wav"
            length = RATE if speaker != 3 else 12_000
            soundfile.write(root / name, np.full(length, value(word, speaker), np.int16), RATE)
            if speaker >= 6:
                lists["validation_list.txt" if speaker < 8 else "testing_list.txt"].append(name)
    for name, lines in lists.items():
        (root / name).write_text("".join(f"{line}\n" for line in lines))
    (root / "_background_noise_").mkdir()
    # each sample says how far into the recording it is
    ramp = (30_000 * np.arange(20 * RATE) / (20 * RATE)).astype(np.int16)
    soundfile.write(root / "_background_noise_" / "ramp.wav", ramp, RATE)
    return tmp_path / "data"


def marks(x: torch.Tensor) -> list[int]:
    return sorted(x[:, 0].tolist())


def test_the_lists_decide_the_splits(data_dir: Path):
    data = load_speech("speech_commands", data_dir, 35)
    words = COMMANDS + OTHERS
    for part, speakers in (("train", range(6)), ("valid", (6, 7)), ("test", (8, 9))):
        x, y = getattr(data, f"x_{part}"), getattr(data, f"y_{part}")
        assert x.dtype == torch.int16
        assert x.shape == (len(words) * len(speakers), RATE)
        assert marks(x) == sorted(value(word, speaker) for word in words for speaker in speakers)
        assert torch.equal(y, x[:, 0].long() // 100)  # alphabetical


def test_a_short_clip_is_padded_at_its_end(data_dir: Path):
    data = load_speech("speech_commands", data_dir, 35)
    short = data.x_train[data.x_train[:, 0] == value("yes", 3)][0]
    assert (short[:12_000] == value("yes", 3)).all()
    assert not short[12_000:].any()


def test_labels_have_a_fixed_order():
    assert labels_of(12) == (
        *("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"),
        *("unknown", "silence"),
    )
    assert list(labels_of(35)) == sorted(WORDS)
    assert len(set(WORDS)) == 35
    with pytest.raises(ValueError, match="12 or 35, got 10"):
        labels_of(10)


def test_twelve_classes(data_dir: Path):
    data = load_speech("speech_commands", data_dir, 12)
    for part, speakers in (("valid", (6, 7)), ("test", (8, 9))):
        x, y = getattr(data, f"x_{part}"), getattr(data, f"y_{part}")
        assert y.bincount().tolist() == [2] * 12
        for number, word in enumerate(COMMANDS):
            assert marks(x[y == number]) == [value(word, speaker) for speaker in speakers]
        # evenly from the sorted names: two of six are the first and the fourth
        assert marks(x[y == 10]) == [value("bed", speakers[0]), value("cat", speakers[1])]
    again = load_speech("speech_commands", data_dir, 12)
    assert torch.equal(data.x_test, again.x_test)


def volumes(x: torch.Tensor) -> torch.Tensor:
    """Of seconds of the recorded noise, which is a ramp: their slopes."""
    return (x[:, -1] - x[:, 0]).double() / (30_000 / 20)


def test_noise_of_training_is_not_that_of_the_tests(data_dir: Path):
    data = load_speech("speech_commands", data_dir, 12)
    assert int(data.noise.max()) < 0.7 * 30_000
    for part, begin, end in (("valid", 0.7, 0.85), ("test", 0.85, 1.0)):
        x = getattr(data, f"x_{part}")[getattr(data, f"y_{part}") == 11]
        volume = volumes(x)
        place = x[:, 0] / volume / 30_000  # the level by the volume
        assert ((place > begin - 0.02) & (place < end)).all()
        assert 0.1 < abs(float(volume[0] - volume[1])) < 1


def test_training_draws_unknown_words_and_silence_anew(data_dir: Path):
    data = load_speech("speech_commands", data_dir, 12)
    assert data.train_count == 72  # 60 clips of the ten words, 6 unknown, 6 silence
    everything = torch.arange(data.train_count)
    torch.manual_seed(0)
    x, y = data.draw(everything)
    assert y.bincount().tolist() == [6] * 12
    known = [value(word, speaker) for word in COMMANDS for speaker in range(6)]
    assert marks(x[y < 10]) == sorted(known)
    for number, word in enumerate(COMMANDS):
        assert marks(x[y == number]) == [value(word, speaker) for speaker in range(6)]
    others = {value(word, speaker) for word in OTHERS for speaker in range(6)}
    seen = set()
    for _ in range(20):
        x, y = data.draw(everything)
        assert set(marks(x[y == 10])) <= others
        seen |= set(marks(x[y == 10]))
    assert seen == others
    assert not torch.equal(x[y == 11], data.draw(everything)[0][y == 11])
    assert 0.3 < float(volumes(x[y == 11]).max() - volumes(x[y == 11]).min()) < 1


def packed(folder: Path, path: Path, mode: str = "w:xz") -> Path:
    with tarfile.open(path, mode) as tar:
        tar.add(folder / "SpeechCommands", "SpeechCommands")
    return path


def test_an_archive_is_unpacked_once(data_dir: Path, tmp_path: Path):
    archive, cache = packed(data_dir, tmp_path / "mine.tar.xz"), tmp_path / "cache"
    first = load_speech(str(archive), cache, 12)
    assert torch.equal(first.x_train, load_speech("speech_commands", data_dir, 12).x_train)
    (folder,) = cache.iterdir()  # nothing is left of the unpacking
    assert folder.name.startswith("mine-")
    before = (folder / FOLDER / "yes").stat().st_ctime_ns
    load_speech(str(archive), cache, 35)
    assert (folder / FOLDER / "yes").stat().st_ctime_ns == before
    packed(data_dir, archive, "w:gz")  # other content is another folder
    load_speech(str(archive), cache, 35)
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("name", ["../outside.wav", "/outside.wav", f"{FOLDER}/../../../outside.wav"])
def test_an_archive_that_would_leave_its_folder_is_refused(tmp_path: Path, name: str):
    archive = tmp_path / "evil.tar"
    with tarfile.open(archive, "w") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(DataError, match=r"evil\.tar"):
        load_speech(str(archive), tmp_path / "cache")
    assert not list(tmp_path.rglob("outside.wav"))
    assert not list((tmp_path / "cache").iterdir())


def test_an_archive_with_a_link_out_of_its_folder_is_refused(tmp_path: Path):
    archive = tmp_path / "evil.tar"
    link = tarfile.TarInfo("SpeechCommands")
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
    with tarfile.open(archive, "w") as tar:
        tar.addfile(link)
    with pytest.raises(DataError, match=r"evil\.tar cannot be unpacked"):
        load_speech(str(archive), tmp_path / "cache")


@pytest.mark.parametrize("damage", ["cut", "text", "other", "none"])
def test_an_archive_that_is_none(data_dir: Path, tmp_path: Path, damage: str):
    archive = packed(data_dir, tmp_path / "a.tar.xz")
    if damage == "cut":
        archive.write_bytes(archive.read_bytes()[:-500])
    elif damage == "text":
        archive.write_text("no archive")
    elif damage == "other":
        with tarfile.open(archive, "w:xz") as tar:
            tar.add(data_dir / FOLDER / "yes", "yes")
    else:
        archive.unlink()
    with pytest.raises(DataError, match=r"a\.tar\.xz"):
        load_speech(str(archive), tmp_path / "cache")
    assert not list(tmp_path.glob("cache/*"))


def stereo(path: Path) -> None:
    soundfile.write(path, np.zeros((RATE, 2), np.int16), RATE)


def slow(path: Path) -> None:
    soundfile.write(path, np.zeros(RATE, np.int16), 8000)


def text(path: Path) -> None:
    path.write_text("no recording")


def empty(path: Path) -> None:
    soundfile.write(path, np.zeros(0, np.int16), RATE)


@pytest.mark.parametrize("damage", [stereo, slow, text, empty, Path.unlink])
def test_a_clip_that_cannot_be_read_is_named(data_dir: Path, damage):
    path = data_dir / FOLDER / "yes" / "00000008_nohash_0.wav"
    damage(path)
    with pytest.raises(DataError, match=r"yes/00000008_nohash_0\.wav"):
        load_speech("speech_commands", data_dir)


def test_a_word_that_is_none_of_the_35(data_dir: Path):
    (data_dir / FOLDER / "bed").rename(data_dir / FOLDER / "xylophone")
    for name in ("validation_list.txt", "testing_list.txt"):
        path = data_dir / FOLDER / name
        path.write_text(path.read_text().replace("bed/", "xylophone/"))
    with pytest.raises(DataError, match="'xylophone' is none of the 35 words"):
        load_speech("speech_commands", data_dir)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("testing_list.txt", "testing_list.txt is missing"),
        ("_background_noise_/ramp.wav", "no recordings of background noise"),
    ],
)
def test_what_is_missing_is_named(data_dir: Path, name: str, says: str):
    (data_dir / FOLDER / name).unlink()
    with pytest.raises(DataError, match=says):
        load_speech("speech_commands", data_dir)


def test_a_split_without_clips(data_dir: Path):
    (data_dir / FOLDER / "testing_list.txt").write_text("")
    with pytest.raises(DataError, match="no clips for testing"):
        load_speech("speech_commands", data_dir)


@pytest.mark.parametrize("subset", ["training", "validation", "testing"])
def test_a_split_without_the_ten_words(data_dir: Path, subset: str):
    """The others are enough for 35 classes; with 12 nothing would be left but silence."""
    root = data_dir / FOLDER
    for name in ("validation", "testing"):
        path = root / f"{name}_list.txt"
        lines = [line for line in path.read_text().splitlines() if subset != name or line.startswith(OTHERS)]
        path.write_text("".join(f"{line}\n" for line in lines))
    if subset == "training":
        for word in COMMANDS:
            for speaker in range(6):
                (root / word / f"{speaker:08x}_nohash_0.wav").unlink()
    assert len(load_speech("speech_commands", data_dir, 35).labels) == 35
    with pytest.raises(DataError, match=f"has no clips of the ten words for {subset}"):
        load_speech("speech_commands", data_dir, 12)


@pytest.mark.parametrize("classes", [12, 35])
def test_a_clip_that_a_list_names_twice_counts_once(data_dir: Path, classes: int):
    before = load_speech("speech_commands", data_dir, classes)
    path = data_dir / FOLDER / "testing_list.txt"
    lines = path.read_text().splitlines()
    path.write_text("".join(f"{line}\n" for line in [*lines, lines[0], lines[0], lines[-1]]))
    after = load_speech("speech_commands", data_dir, classes)
    assert torch.equal(after.y_test, before.y_test)
    assert torch.equal(after.x_test, before.x_test)


def test_a_clip_in_both_lists(data_dir: Path):
    lists = [data_dir / FOLDER / name for name in ("validation_list.txt", "testing_list.txt")]
    twice = lists[0].read_text().splitlines()[0]
    lists[1].write_text(f"{lists[1].read_text().rstrip()}\n{twice}\n")
    with pytest.raises(DataError, match=f"{Path(twice).name} is in two of the lists"):
        load_speech("speech_commands", data_dir, 35)


def test_no_other_word_to_train_with(data_dir: Path):
    for word in OTHERS:
        for speaker in range(6):
            (data_dir / FOLDER / word / f"{speaker:08x}_nohash_0.wav").unlink()
    with pytest.raises(DataError, match="no clips to train 'unknown' with"):
        load_speech("speech_commands", data_dir, 12)
    assert len(load_speech("speech_commands", data_dir, 35).y_train) == 6 * len(COMMANDS)


def test_a_download_is_whole_or_not_there(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """torchaudio's download, with a small archive in the place of Google's."""
    from torchaudio.datasets import speechcommands

    official = tmp_path / "official.tar.gz"
    with tarfile.open(official, "w:gz") as tar:
        tar.add(data_dir / FOLDER, ".")

    def fetch(url: str, target: str, hash_prefix: str) -> None:
        assert url.endswith("speech_commands_v0.02.tar.gz")
        assert len(hash_prefix) == 64
        Path(target).write_bytes(content)

    monkeypatch.setattr(speechcommands, "download_url_to_file", fetch)
    fresh = tmp_path / "fresh"
    content = official.read_bytes()[:5_000]
    with pytest.raises(DataError, match="could not be downloaded"):
        load_speech("speech_commands", fresh, 35)
    content = official.read_bytes()
    data = load_speech("speech_commands", fresh, 35)
    assert torch.equal(data.x_test, load_speech("speech_commands", data_dir, 35).x_test)
    assert [path.name for path in fresh.iterdir()] == ["SpeechCommands"]


@pytest.mark.parametrize("classes", [12, 35])
def test_generated_speech(classes: int):
    data = generated_speech(classes, 24)
    assert isinstance(data, Speech)
    for part in ("train", "valid", "test"):
        x, y = getattr(data, f"x_{part}"), getattr(data, f"y_{part}")
        assert x.shape == (24, RATE)
        assert x.dtype == torch.int16
        assert 0 <= int(y.min()) <= int(y.max()) < classes
    assert torch.equal(data.x_test, generated_speech(classes, 24).x_test)
    x, y = data.draw(torch.arange(data.train_count))
    assert len(x) == len(y) == data.train_count


@pytest.mark.skipif(not SUBSET.exists(), reason=f"{SUBSET.name} is not beside this checkout")
def test_the_subset_of_real_clips(tmp_path: Path):
    data = load_speech(str(SUBSET), tmp_path, 35)
    assert [len(y) for y in (data.y_train, data.y_valid, data.y_test)] == [3652, 520, 908]
    assert len(data.y_train.unique()) == 35
    folder = next(tmp_path.iterdir()) / FOLDER
    speakers = [
        {line.split("/")[1].split("_")[0] for line in (folder / name).read_text().splitlines()}
        for name in ("validation_list.txt", "testing_list.txt")
    ]
    assert not speakers[0] & speakers[1]
    data = load_speech("speech_commands", next(tmp_path.iterdir()), 12)
    assert (data.y_test == 10).sum() == (data.y_test == 11).sum() == 76
