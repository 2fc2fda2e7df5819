"""Recordings from strangers: archives, clips, and lists of clips."""

import shutil
from pathlib import Path

from snnlib.dataset import DataError, load_speech
from tests.hostile import speech
from tests.hostile.attack import Attack, told


def test_archives_of_clips(tmp_path: Path):
    attack, path = Attack(tmp_path), tmp_path / "clips.tar"
    path.write_bytes(speech.packed(speech.tree()))
    assert len(load_speech(str(path), tmp_path / "whole", 35).y_train) == 2
    shutil.rmtree(tmp_path / "whole")
    for name, content in speech.archives():
        path.write_bytes(content)
        attack.case(name, lambda: told(lambda: load_speech(str(path), tmp_path / "cache"), DataError))
    attack.end(35)


def test_clips_and_lists(tmp_path: Path):
    attack = Attack(tmp_path)
    for name, content in speech.tree().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    replaced = {"bed/00000000_nohash_0.wav": speech.clips, "_background_noise_/hiss.wav": speech.clips}
    for place, cases in {**replaced, "testing_list.txt": speech.lists}.items():
        path = tmp_path / speech.FOLDER / place
        whole = path.read_bytes()
        for name, content in cases():
            path.write_bytes(content)
            read = lambda: told(lambda: load_speech("speech_commands", tmp_path, 35), DataError)  # noqa: E731
            attack.case(f"{place}_{name}", read)
        path.write_bytes(whole)
    attack.end(60)


def test_headers_of_clips_that_say_another_length(tmp_path: Path):
    """The library that reads them takes what is there."""
    attack = Attack(tmp_path)
    for name, content in speech.tree().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    for says in (
        {"riff": 2**32 - 1},
        {"riff": 0},
        {"data": 2**32 - 1},
        {"data": 2**31},
        {"data": 0},
        {"data": 7},
    ):
        (tmp_path / speech.FOLDER / "bed/00000000_nohash_0.wav").write_bytes(speech.wav(200, **says))
        read = lambda: told(lambda: load_speech("speech_commands", tmp_path, 35), DataError)  # noqa: E731
        attack.case(str(says), read, may_pass=True)
    attack.end(6)
