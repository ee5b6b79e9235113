"""The key of a stage's code changes with its code and with nothing else."""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path

import pytest

from yarnlab import code
from yarnlab.evaluation.battery import question_tokens
from yarnlab.study.evaluations import KINDS


@pytest.fixture
def copy(tmp_path, monkeypatch) -> Path:
    """A copy of the package that may be edited."""
    target = tmp_path / "yarnlab"
    shutil.copytree(code.SOURCE, target, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "SOURCE", target)
    yield target
    code._sources.cache_clear()


def keys() -> dict[str, str]:
    code._sources.cache_clear()
    return {stage: code.code_key(stage) for stage in [*code.ENTRY, *KINDS, *code.VERSIONED]}


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def test_comments_docstrings_and_layout_change_nothing(copy):
    before = keys()
    for file in copy.rglob("*.py"):
        text = file.read_text().replace('"""', '"""Reworded. ', 1)
        file.write_text(text + "\n\n# a comment\n")
    assert keys() == before


def test_code_changes_the_stages_that_import_it(copy):
    """The passkey protocol affects passkey alone; what several evaluations share affects those."""
    before = keys()
    edit(copy / "evaluation" / "passkey.py", "TOKENS_PER_BATCH = 8192", "TOKENS_PER_BATCH = 4096")
    after = keys()
    assert {stage for stage in before if before[stage] != after[stage]} == {"passkey"}
    edit(copy / "evaluation" / "nll.py", "LOGIT_CHUNK = 1024", "LOGIT_CHUNK = 2048")
    last = keys()
    changed = {stage for stage in after if after[stage] != last[stage]}
    assert changed == {"perplexity", "zero_shot", "sliding_window", "dynamic", "key_cache", "temperature", "ramp"}


def test_how_long_questions_are_changes_the_benchmarks(copy):
    """It decides what every question of held-out-code is cut from, wherever the rule stands."""
    before = keys()
    file = copy / Path(inspect.getfile(question_tokens)).relative_to(Path(code.__file__).parent)
    edit(file, "LEAST_QUESTION = 4, 16", "LEAST_QUESTION = 4, 17")
    assert {stage for stage, key in keys().items() if before[stage] != key} == {"benchmarks"}


def test_how_a_study_file_is_read_and_checked_changes_nothing(copy):
    """Results depend on the values that a stage gets, which its spec holds, not on the reader's messages."""
    before = keys()
    for module in ("read", "load", "check", "check_evaluations", "check_held_out"):
        with (copy / "study" / f"{module}.py").open("a") as file:
            file.write("\nEDITED = 1\n")
    assert keys() == before


def test_a_formula_changes_every_evaluation_but_no_training(copy):
    """Training is keyed by a VERSION: a refactoring must not cost a training run."""
    before = keys()
    edit(copy / "rope.py", "rotations * 2 * math.pi", "rotations * math.pi * 2")
    after = keys()
    changed = {stage for stage in before if before[stage] != after[stage]}
    assert {"perplexity", "zero_shot", "passkey"} <= changed
    assert "train" not in changed
    edit(copy / "training" / "version.py", "VERSION = 2", "VERSION = 99")
    assert keys()["train"] == "v99"


def test_templates_count(copy):
    before = keys()
    template = next((copy / "results" / "report" / "templates").iterdir())
    template.write_text(template.read_text() + " ")
    assert {stage for stage, key in keys().items() if before[stage] != key} == {"report"}


@pytest.mark.parametrize("text", ["", "{}", '{"reader": "another", "files": {}}', "[1]"])
def test_what_is_kept_saves_reading_and_is_never_trusted_blindly(copy, monkeypatch, text):
    """A second start parses nothing, one after an edit that file alone; whatever else lies there is replaced."""
    before, really, read = keys(), code._read, []
    monkeypatch.setattr(code, "_read", lambda source: read.append(source) or really(source))
    assert keys() == before and not read
    edit(copy / "evaluation" / "passkey.py", "TOKENS_PER_BATCH = 8192", "TOKENS_PER_BATCH = 4096")
    assert keys()["passkey"] != before["passkey"] and len(read) == 1
    edit(copy / "evaluation" / "passkey.py", "TOKENS_PER_BATCH = 4096", "TOKENS_PER_BATCH = 8192")
    (kept,) = (copy / "__pycache__").glob("sources.*.json")
    kept.write_text(text)
    assert keys() == before
    assert keys() == before and len(read) == 1 + len([*copy.rglob("*.py")])


def test_where_nothing_can_be_kept_the_keys_are_the_same(copy):
    """As in a read-only installation; a folder in the file's place stops root too."""
    before = keys()
    (kept,) = (copy / "__pycache__").glob("sources.*.json")
    kept.unlink()
    kept.mkdir()
    assert keys() == before
    assert [*(copy / "__pycache__").iterdir()] == [kept]
