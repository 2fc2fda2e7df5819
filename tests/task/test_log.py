"""The figures of a run, in its file and in memory."""

import json
from pathlib import Path

from snnlib.task._log import Log

LINES = [b'{"step": 1, "loss": 0.50}\n', b'{"step": 2, "loss": NaN}\n', b'{"step": 3, "loss": 0.1}\n']


def test_what_came_after_the_checkpoint_is_gone_with_the_first_line(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    before = b"".join(LINES) + b'{"step": 4, "lo'
    path.write_bytes(before)
    log = Log(tmp_path, 2)
    assert [line["step"] for line in log.lines()] == [1, 2]
    assert path.read_bytes() == before  # what is resumed may not fit
    log.write(3, loss=0.25)
    log.close()
    assert path.read_bytes().startswith(LINES[0] + LINES[1])
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]
    assert log.lines()[-1] == json.loads(path.read_text().splitlines()[-1]) == {"step": 3, "loss": 0.25}


def test_a_new_log_is_empty(tmp_path: Path):
    log = Log(tmp_path, 0)
    assert log.lines() == []
    log.open()
    log.close()
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""
