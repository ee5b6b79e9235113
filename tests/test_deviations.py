"""docs/deviations.md names arms, corpora, methods and variants that exist."""

from __future__ import annotations

import re
from pathlib import Path

from yarnlab.rope import METHODS
from yarnlab.study import load_study

ROOT = Path(__file__).parents[1]
OTHER = {"pure-bf16", "-s16", "--truncate", "--grad-norm", "--dynamic-linear"}  # settings, a suffix, official options


def test_every_name_exists():
    studies = [load_study(ROOT / "config" / "studies" / f"{name}.yaml") for name in ("paper", "micro")]
    known = {name for study in studies for name in (*study.models, *study.corpora)} | set(METHODS)
    known |= {name for study in studies for name in study.evaluations.ramp.variants}
    named = set(re.findall(r"`([a-z0-9-]*-[a-z0-9-]*)`", (ROOT / "docs" / "deviations.md").read_text()))
    assert len(named) > 15
    assert named - known - OTHER == set()


def test_every_entry_has_its_number_once():
    numbers = re.findall(r"^\*\*(\d+)\. ", (ROOT / "docs" / "deviations.md").read_text(), flags=re.MULTILINE)
    assert numbers == [str(i + 1) for i in range(len(numbers))] and len(numbers) > 40
