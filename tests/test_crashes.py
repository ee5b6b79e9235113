"""The short form of the crash campaign (benchmarks/faults.py), and that what it looks at shows what is wrong."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import faults  # noqa: E402

KILLS = 12


@pytest.mark.slow
def test_a_dozen_signals_cost_nothing(tmp_path):
    command = [sys.executable, ROOT / "benchmarks" / "faults.py", "--kills", str(KILLS), "--folder", tmp_path / "study"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert re.search(rf"^\| all \| \| {KILLS} \| {KILLS} \| 0 \|$", done.stdout, re.MULTILINE), done.stdout


def test_the_long_form_meets_every_kind_of_work_with_every_signal_and_target():
    drawn = faults.draw(100, 21, [*faults.CLASSES])
    assert {(fault.kind, fault.signal, fault.to) for fault in drawn} == {
        (kind, number, to) for kind in faults.CLASSES for number in faults.SIGNALS for to in faults.TO
    }
    assert [vars(fault) for fault in drawn] == [vars(fault) for fault in faults.draw(100, 21, [*faults.CLASSES])]


@pytest.fixture
def place(tmp_path) -> Path:
    root = tmp_path / "results" / "smoke"
    for name, text in {
        "models/base/model.safetensors": "weights",
        "tables/cost.csv": "stage,seconds,n\ntrain,1.5,3\n",
        "training/base.jsonl": '{"step": 1, "loss": 2.5, "seconds": 0.25}\n',
        "claims.json": '{"claims": [{"id": "1", "number": 0.1, "command": "here"}]}',
        "models/base/manifest.json": '{"ended": "early", "outputs": {"models/base/model.safetensors": {"bytes": 7}}}',
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "old", "new", "differs"),
    [
        ("models/base/model.safetensors", "weights", "weighty", True),
        ("tables/cost.csv", "1.5,3", "2.5,3", False),
        ("tables/cost.csv", "1.5,3", "1.5,4", True),
        ("training/base.jsonl", "2.5", "2.5000000000000004", True),
        ("training/base.jsonl", "0.25", "0.5", False),
        ("claims.json", "0.1", "0.10000000000000002", True),
    ],
)
def test_what_is_not_the_same_bit_for_bit_is_seen(place, file, old, new, differs):
    before = faults.content(place)
    path = place / "results" / "smoke" / file
    path.write_text(path.read_text().replace(old, new))
    assert (faults.content(place) != before) == differs


def test_what_was_made_again_is_counted_in_bytes(place):
    finished: dict[str, tuple[str, int]] = {}
    assert faults.made_again(place, finished) == {}
    manifest = place / "results/smoke/models/base/manifest.json"
    written = json.loads(manifest.read_text())
    manifest.unlink()
    assert faults.made_again(place, finished) == {}  # Snakemake deletes it before a job that may put it back
    manifest.write_text(json.dumps(written))
    assert faults.made_again(place, finished) == {}
    manifest.write_text(json.dumps(written | {"ended": "late"}))
    assert faults.made_again(place, finished) == {"models/base/manifest.json": 7}
