"""`control_of`: which model is the control of which is said, checked, and told to the results; nobody else's changes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from yarnlab.results.results import Model
from yarnlab.study.load import load_study
from yarnlab.study.read import StudyError
from yarnlab.study.sections import section
from yarnlab.study.summary import summarise

STUDIES = Path(__file__).resolve().parents[2] / "config" / "studies"
FILE = "smollm2-control.yaml"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    shutil.copy(STUDIES / "smollm2.yaml", tmp_path)
    return Path(shutil.copy(STUDIES / FILE, tmp_path))


def test_the_results_are_told(file: Path) -> None:
    study = load_study(file)
    entries = summarise(study)["models"]
    assert Model.of("requantised", entries["requantised"]).control_of == "base"
    assert "control_of" not in entries["base"] and Model.of("base", entries["base"]).control_of is None
    own, its = (section(study, "asset", name)["asset"] for name in ("requantised", "smollm2"))
    assert own == its | {"requantise": "Q4_0"}  # the asset without it is what it was
    assert not any("control" in str(section(study, "train", name)) for name in entries)  # the weights are the same
    read = (section(study, "zero_shot", name)["evaluation"] for name in entries)
    assert next(read) == next(read)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("control_of: base", "control_of: basis", "control_of: there is no model 'basis'; did you mean 'base'?"),
        ("    requantise: Q4_0\n", "", "'requantised' is no model whose asset has `requantise`"),
        (
            "control_of: base",
            "control_of: requantised",
            "'requantised' is no model of the same file as 'requantised' without `requantise`",
        ),
        ("version: 0.1.2", "version: 0.1.3", "'base' is no model of the same file as 'requantised' without"),
        ("hidden_size: 576", "hidden_size: 512", "'requantised' and 'base' must have the same `architecture`"),
        ("requantise: Q4_0", "requantise: Q4_1", "weights that are Q4_1 already are not moved by it"),
        ("requantise: Q4_0", "requantise: Q4_K", "requantise: input should be 'Q4_0', 'Q4_1'"),
    ],
)
def test_a_mistake_is_one_line(file: Path, old: str, new: str, message: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(StudyError) as raised:
        load_study(file)
    (line,) = str(raised.value).splitlines()
    assert message in line and line.startswith(str(file))
