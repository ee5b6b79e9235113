"""The lines that long work prints: its count, its speed with the unit that gives a number above one, the time left."""

import pytest

from yarnlab.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until a test moves it: `clock[0] += seconds`."""
    now = [0.0]
    monkeypatch.setattr("yarnlab.progress.time.monotonic", lambda: now[0])
    return now


def lines(path):
    return [line.split(" ", 1)[1] for line in path.read_text().splitlines()]


def test_what_is_slow_says_seconds_for_each_and_what_is_fast_how_many_a_second(clock, tmp_path):
    progress = Progress("zero_shot base", 48, log=tmp_path / "slow", unit="document")
    clock[0] += 100
    progress.advance(2, "a.py")
    assert lines(tmp_path / "slow") == ["zero_shot base: 2/48 documents, 50.0 s/document, 38:20 left, a.py"]
    progress = Progress("train base", 100, log=tmp_path / "fast")
    clock[0] += 10
    progress.advance(40)
    assert lines(tmp_path / "fast") == ["train base: 40/100 steps, 4.00 steps/s, 00:15 left"]


def test_what_an_earlier_attempt_made_counts_for_the_total_and_not_for_the_speed(clock, tmp_path):
    progress = Progress("passkey base", 10, log=tmp_path / "log", unit="trial")
    progress.skip(6)
    clock[0] += 20
    progress.advance(2)
    assert lines(tmp_path / "log") == [
        "passkey base: continuing after 6 of 10 trials",
        "passkey base: 8/10 trials, 10.0 s/trial, 00:20 left",
    ]


def test_lines_come_at_most_every_five_seconds_and_the_last_one_always(clock, tmp_path):
    progress = Progress("train base", 20, log=tmp_path / "log")
    for _ in range(20):
        clock[0] += 1
        progress.advance()
    assert [line.split(": ")[1].split("/")[0] for line in lines(tmp_path / "log")] == ["5", "10", "15", "20"]


def test_of_steps_side_by_side_those_under_way_count_as_half_made(clock, tmp_path):
    progress = Progress("zero_shot base", 9, log=tmp_path / "log", unit="document")
    progress.side_by_side = 2
    for done in range(1, 10):  # one of two processes ends a step of 100 s every 50 s
        clock[0] += 100 if done == 1 else 50
        progress.advance()
    said = lines(tmp_path / "log")
    assert said[0] == "zero_shot base: 1/9 documents, 66.7 s/document, 08:53 left"
    assert said[4] == "zero_shot base: 5/9 documents, 54.5 s/document, 03:38 left"
    assert said[-1] == "zero_shot base: 9/9 documents, 55.6 s/document, 00:00 left"
