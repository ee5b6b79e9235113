"""docs/deviations.md names arms, corpora, methods and variants that exist."""

from __future__ import annotations

import re
from pathlib import Path

from yarnlab.rope import METHODS
from yarnlab.study.load import load_study

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


def test_what_is_said_to_have_no_arm_has_none():
    """Entries 12, 13, 14, 15, 19, 21 and 26; whoever adds such an arm has an entry to rewrite."""
    studies = [load_study(ROOT / "config" / "studies" / f"{name}.yaml") for name in ("paper", "released")]
    for study in studies:
        for name, model in study.models.items():
            for phase in model.phases:
                assert phase.precision == "bf16" and phase.betas == (0.9, 0.95) and phase.weight_decay == 0, name
                assert phase.schedule in ("constant", "linear") and phase.max_grad_norm == 1, name
                assert phase.corpus in ("pg19", "mistral-mix"), name
            if model.phases and study.models[model.parent].hub is not None:
                assert model.rope.scale <= 16, name
            if model.hub is not None and model.hub.architecture.family == "mistral":
                assert model.hub.drop_sliding_window, name
            assert model.rope is None or model.rope.method != "pi" or study.architecture(name).family == "llama", name
