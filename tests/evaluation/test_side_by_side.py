"""Parts computed by several processes must be those of one, in order, and a lost process must not be waited for."""

from __future__ import annotations

import multiprocessing
import os
import signal

import numpy as np
import pandas as pd
import pytest

from yarnlab.errors import UserError
from yarnlab.evaluation.side_by_side import ProcessLost, side_by_side


class Counted:
    """Stands for a Progress."""

    def __init__(self):
        self.steps, self.notes, self.said = 0, [], []

    def advance(self, count=1, note=""):
        self.steps += count
        self.notes.append(note)

    def skip(self, count):
        self.steps += count

    def say(self, text):
        self.said.append(text)


def test_every_part_once_in_order_by_several_processes():
    """What is given is in the order of the parts; steps and messages arrive where they are counted."""
    progress = Counted()

    def work(number, progress):
        progress.advance(2, note=str(number))
        progress.say(f"part {number}")
        return number, os.getpid()

    found = side_by_side(work, 9, progress, processes=3)
    assert [number for number, _ in found] == list(range(9))
    assert os.getpid() not in {process for _, process in found} and len({process for _, process in found}) > 1
    assert progress.side_by_side == 3  # by which it estimates the time left
    assert progress.steps == 18 and sorted(progress.notes) == sorted(map(str, range(9))) and len(progress.said) == 9


def test_one_process_or_one_part_is_not_forked():
    for parts, processes in ((3, 1), (1, 4)):
        found = side_by_side(lambda number, _: os.getpid(), parts, Counted(), processes=processes)
        assert found == [os.getpid()] * parts


def test_a_mistake_is_raised_here():
    """The user's error as it is, one message; no process is left."""

    def work(number, progress):
        if number == 1:
            raise UserError("the text is empty")
        return number

    with pytest.raises(UserError, match=r"^the text is empty$"):
        side_by_side(work, 4, Counted(), processes=2)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("end", ["killed", "bug"])
def test_a_process_that_ends_early_ends_the_evaluation(end, capfd):
    """Killed as where memory runs out, or by a bug, whose traceback is in the log: nobody waits for its part."""

    def work(number, progress):
        if number == 1 and end == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        return number // (number - 1 if number == 1 else 1)

    with pytest.raises(ProcessLost, match="one of the 2 processes of this evaluation ended early"):
        side_by_side(work, 6, Counted(), processes=2)
    assert ("ZeroDivisionError" in capfd.readouterr().err) == (end == "bug")
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("kind", ["zero_shot", "perplexity", "temperature"])
def test_a_table_does_not_tell_how_many_processes_made_it(tiny_task, tmp_path, kind):
    """Bit for bit, per-token losses too; what the processes computed is kept for the next attempt. `temperature` has
    parts that would ask for processes themselves."""
    import dataclasses

    from yarnlab.evaluation.partial_results import PartialResults
    from yarnlab.study.evaluations import KINDS

    settings = {
        "zero_shot": {"methods": ["none", "yarn"], "scales": [2], "max_length": 128},
        "temperature": {
            "method": "ntk-by-parts",
            "scales": [2],
            "factors": {"start": 1.0, "stop": 1.1, "step": 0.1},
            "segments": 2,
            "max_length": 128,
            "documents": 2,
        },
        "perplexity": {"lengths": {"start": 64, "stop": 128, "step": 64}},
    }[kind]
    task = tiny_task(settings)

    def evaluate(processes, kept):
        chosen = dataclasses.replace(task, processes=processes, partial_results=PartialResults(kept))
        return KINDS[kind].model_validate(task.settings).evaluate(chosen)

    alone, together = evaluate(1, tmp_path / "alone"), evaluate(2, tmp_path / "together")
    pd.testing.assert_frame_equal(together.table, alone.table, check_exact=True)
    if alone.nll is not None:
        assert np.array_equal(together.nll, alone.nll)
    names = {folder: sorted(file.name for file in (tmp_path / folder).iterdir()) for folder in ("alone", "together")}
    assert names["alone"] == names["together"] and len(names["alone"]) > 1
