"""The shrunken paper study, which the end-to-end test runs against the stand-in hub."""

from __future__ import annotations

import json
from pathlib import Path

from yarnlab.study.load import load_study
from yarnlab.study.read import read_study

from .shrink import shrink

PAPER = Path(__file__).parents[2] / "config" / "studies" / "paper.yaml"


def test_it_is_sound_and_has_the_paper_studys_own_keys(tmp_path):
    data = read_study(PAPER)[0]
    file = tmp_path / "paper.yaml"
    file.write_text(json.dumps(shrink(data)))
    small = load_study(file)
    assert set(small.evaluations.model_fields_set) == set(data["evaluations"])
    assert all(phase.parallel.sharding == "fsdp" for model in small.models.values() for phase in model.phases)
