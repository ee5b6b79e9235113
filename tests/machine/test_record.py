"""A machine is measured once; what can't be kept is not measured; nothing of it ever ends a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from yarnlab.machine import record
from yarnlab.machine.choice import DTYPES, LENGTHS, PRODUCTS, attention_work

FOUND = {"precision": "fp32", "kernels": {}}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An environment's folder and a home of its own, and a count of measurements."""
    monkeypatch.delenv(record.VARIABLE)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "environment"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    record.this_machine.cache_clear()
    yield tmp_path
    record.this_machine.cache_clear()


@pytest.fixture
def made(monkeypatch) -> list[str]:
    """One entry for each measurement; each finds something else."""
    made: list[str] = []

    def measured():
        made.append(record.now())
        return {**FOUND, "number": len(made), "measured": made[-1]}

    monkeypatch.setattr(record, "_measured", measured)
    return made


def another_process() -> dict:
    record.this_machine.cache_clear()
    return record.this_machine()


def test_a_machine_is_measured_once(made, place):
    assert another_process()["number"] == another_process()["number"] == 1 == len(made)
    assert (place / "environment" / "machine.json").is_file() and not (place / "cache").exists()


def test_asked_to_it_is_measured_anew(made):
    another_process()
    assert record.measure()["number"] == another_process()["number"] == 2 == len(made)


@pytest.mark.parametrize(
    "change",
    [
        lambda patch: patch.setattr(record, "cpu_name", lambda: "another"),
        lambda patch: patch.setattr(record, "processor_flags", lambda: frozenset({"avx2"})),
        lambda patch: patch.setattr(record.metadata, "version", lambda package: "3.0"),
        lambda patch: patch.setattr(record, "VERSION", 99),
        lambda patch: patch.setenv("ATEN_CPU_CAPABILITY", "avx2"),
    ],
)
def test_another_machine_has_a_record_of_its_own(made, change):
    another_process()
    with pytest.MonkeyPatch.context() as patch:
        change(patch)
        assert another_process()["number"] == another_process()["number"] == 2
    assert another_process()["number"] == 1


def test_of_several_at_once_one_measures(monkeypatch, made):
    """The others wait for it and take what it found."""
    all_asked = threading.Barrier(3)  # one that asks after the measurement has ended measures anew
    exclusive = record._exclusive

    def once_all_have_asked(file: Path):
        all_asked.wait(60)
        return exclusive(file)

    monkeypatch.setattr(record, "_exclusive", once_all_have_asked)
    found: list[dict] = []
    threads = [threading.Thread(target=lambda: found.append(record.measure())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 3 and len(made) == len({one["number"] for one in found}) == 1


def test_a_record_made_since_the_file_was_read_is_taken(monkeypatch, made):
    """Another process measures after this one found nothing and before it asks for the lock: they agree, whatever
    their clocks say."""
    exclusive = record._exclusive

    def late(file: Path):
        monkeypatch.setattr(record, "_exclusive", exclusive)
        record.measure()
        return exclusive(file)

    monkeypatch.setattr(record, "_exclusive", late)
    behind = iter(range(9, 0, -1))  # the other's clock is the slower one
    monkeypatch.setattr(record, "now", lambda: f"2026-01-01T00:00:0{next(behind)}.000Z")
    assert another_process()["number"] == another_process()["number"] == 1 == len(made)


def blocked(folder: Path) -> None:
    """Nothing can be made in it, whoever asks: it is a file."""
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("")


def test_where_the_environment_is_read_only_the_users_cache_keeps_it(made, place):
    blocked(place / "environment")
    assert another_process()["number"] == another_process()["number"] == 1 == len(made)
    assert (place / "cache" / "yarnlab" / "machine.json").is_file()


def test_what_cannot_be_kept_is_not_measured(made, place):
    """Else processes of one training would each find something of their own."""
    blocked(place / "environment")
    blocked(place / "cache")
    assert another_process() == {} and not made


def test_a_damaged_file_is_written_anew(made, place):
    another_process()
    (place / "environment" / "machine.json").write_text("{")
    assert another_process()["number"] == another_process()["number"] == 2


def test_a_measurement_that_fails_leaves_the_defaults(monkeypatch, capsys):
    def fails(*arguments, **options):
        raise subprocess.CalledProcessError(1, "python", stderr="Traceback …\nRuntimeError: no torch")

    monkeypatch.setattr(subprocess, "run", fails)
    assert another_process() == {}
    assert "RuntimeError: no torch); the defaults stand" in capsys.readouterr().err


def test_defaults_can_be_asked_for(made, monkeypatch):
    monkeypatch.setenv(record.VARIABLE, "default")
    assert another_process() == {} and not made


def test_the_verb_shows_the_record_or_says_that_there_is_none(monkeypatch):
    from typer.testing import CliRunner

    from yarnlab.cli import app

    work = attention_work(256, False)
    shown = {
        "processor": "a processor", "torch": "2", "measured": "2026", "precision": "fp32", "default_precision": "bf16",
        "kernels": {"fp32": {work: "sdpa"}}, "seconds": {PRODUCTS: {"fp32": 0.01}, work: {"fp32 sdpa": 0.004}},
    }  # fmt: skip
    monkeypatch.setattr(record, "_measured", lambda: shown)
    said = CliRunner().invoke(app, ["machine"]).output
    assert "precision auto: fp32 (by the processor's flags bf16)" in said
    assert f"{work}: fp32 sdpa 4 ms; chosen: fp32 sdpa" in said
    monkeypatch.setattr(record, "_measured", lambda: {**shown, "measured": "0", "processor": "another"})
    assert "a processor" in CliRunner().invoke(app, ["machine"]).output
    assert "another" in CliRunner().invoke(app, ["machine", "--measure"]).output
    record.this_machine.cache_clear()
    monkeypatch.setenv(record.VARIABLE, "default")
    assert "nothing is measured" in CliRunner().invoke(app, ["machine"]).output


def test_the_manifest_of_what_a_gpu_computed_names_no_cpu(made):
    assert record.facts("cuda") == {} and not made
    assert record.facts("cpu")["measured"]["number"] == 1


@pytest.mark.slow
def test_this_machine_is_measured_in_seconds(place):
    """The real thing: every work, times that are times, and a record that JSON and people can read."""
    os.environ.pop("YARNLAB_MACHINE", None)
    found = record.this_machine()
    works = {attention_work(length, gradients) for length in LENGTHS for gradients in (False, True)}
    assert found["seconds"].keys() == works | {PRODUCTS}
    for seconds in found["seconds"].values():
        assert {how.split()[0] for how in seconds} in ({"fp32"}, set(DTYPES))
        assert all(0 < s < 10 for s in seconds.values())
    assert found["precision"] in DTYPES and found["took_s"] < 60
    (kept,) = json.loads(record.files()[0].read_text()).values()
    assert kept == found
    said = record.described(found)
    assert f"precision auto: {found['precision']}" in said and all(work in said for work in works)
