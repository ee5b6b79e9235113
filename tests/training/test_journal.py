"""The step log on a full disk: one message that names the file and says what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from yarnlab.errors import SHOWN
from yarnlab.training.checkpoint import TrainState
from yarnlab.training.journal import Journal, JournalFailed
from yarnlab.training.parallel import Group

LINE = {"step": 1, "loss": 2.0, "tokens_per_second": 10.0}
CONTINUES = "No space left on device; run the same command again; it continues"


def opened(folder: Path, log: Path | None = None, **notes: list) -> Journal:
    return Journal("base", folder / "base.jsonl", log, 1, TrainState(), notes, Group())


def test_a_line_that_finds_no_room_is_told_with_its_file(tmp_path):
    """The message is that of the line, not of the closing after it, and is shown without a traceback."""
    made, file = opened(tmp_path), tmp_path / "base.jsonl"
    file.unlink()
    file.symlink_to("/dev/full")
    with pytest.raises(JournalFailed) as raised, made:
        made.step(LINE)
    assert str(raised.value) == f"{file}: {CONTINUES}" and isinstance(raised.value, SHOWN)


def test_a_progress_line_that_finds_no_room_is_told_with_the_logs_name(tmp_path):
    """The step itself is in the step log."""
    log = tmp_path / "train.log"
    log.symlink_to("/dev/full")
    with pytest.raises(JournalFailed, match=f"^{log}: {CONTINUES}$"), opened(tmp_path, log) as made:
        made.step(LINE)
    assert json.loads((tmp_path / "base.jsonl").read_text()) == LINE


def test_the_finished_log_is_what_was_noted_whatever_became_of_the_file(tmp_path):
    """Its hash goes into the manifest, so what was damaged while the training ran must not stay."""
    before = [LINE | {"step": step} for step in (1, 2)]
    with opened(tmp_path, steps=before) as made:
        made.step(LINE | {"step": 3})
        log = tmp_path / "base.jsonl"
        assert made.last["step"] == 3 and [*map(json.loads, log.read_text().splitlines())] == made.notes()["steps"]
        good = log.read_bytes()
        log.write_bytes(good.replace(b"2.0", b"3.0"))
    assert log.read_bytes() == good


def test_a_log_that_can_not_be_cut_is_told_with_its_file(tmp_path, monkeypatch):
    """Before the first step, where the log is cut to the steps of the checkpoint."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(JournalFailed, match=f"base.jsonl: {CONTINUES}$"):
        opened(tmp_path)
