"""The step log on a full disk: one message that names the file and says what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from yarnlab.errors import SHOWN
from yarnlab.training import journal
from yarnlab.training.checkpoint import TrainState
from yarnlab.training.journal import Journal, JournalFailed
from yarnlab.training.parallel import Group

LINE = {"step": 1, "loss": 2.0, "tokens_per_second": 10.0}
CONTINUES = "No space left on device; run the same command again; it continues"


def opened(folder: Path, log: Path | None = None) -> Journal:
    return Journal("base", folder / "state", folder / "base.jsonl", log, 1, TrainState(), Group())


@pytest.mark.parametrize("which", ["own", "metrics"])
def test_a_line_that_finds_no_room_is_told_with_its_file(tmp_path, which):
    """The message is that of the line, not of the closing after it, and is shown without a traceback."""
    made = opened(tmp_path)
    file = {"own": tmp_path / "state" / journal.OWN, "metrics": tmp_path / "base.jsonl"}[which]
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


def test_a_log_that_can_not_be_cut_is_told_with_its_file(tmp_path, monkeypatch):
    """Before the first step, where the log is cut to the steps of the checkpoint."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(JournalFailed, match=f"steps.jsonl: {CONTINUES}$"):
        opened(tmp_path)
