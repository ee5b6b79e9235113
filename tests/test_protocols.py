"""Code that decides a protocol's numbers does not change without a decision about the protocol's version."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from bless_protocols import ENTRIES, LOCK, bless, imported, modules, problem

from yarnlab import fingerprint
from yarnlab.study.evaluations import KINDS

SCORE_TOKENS = ("perplexity", "context", "short_texts", "sliding_window", "dynamic", "key_cache")
OF_PERPLEXITY = ("zero_shot", "temperature", "ramp")  # they score documents as it does


@pytest.fixture
def copy(tmp_path, monkeypatch) -> Path:
    """A copy of the package that may be edited, blessed as it is in a lock file of its own."""
    target = tmp_path / "yarnlab"
    shutil.copytree(fingerprint.SOURCE, target, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(fingerprint, "SOURCE", target)
    bless(target, tmp_path / "lock")
    return target


def problems(copy: Path) -> dict[str, str]:
    found = {stage: problem(stage, copy, copy.with_name("lock")) for stage in ENTRIES}
    return {stage: said for stage, said in found.items() if said}


def append(file: Path, text: str = "\n_EDITED = 1\n") -> None:
    file.write_text(file.read_text() + text)


@pytest.mark.parametrize("stage", ENTRIES)
def test_its_code_is_as_it_was_when_somebody_decided(stage):
    assert not (said := problem(stage)), said


def test_every_module_of_training_and_evaluation_is_looked_at(copy):
    """But for those that compute nothing; a module that nobody imports is missed."""
    decided = {module for stage in ENTRIES for module in modules(stage, copy)}
    files = {f"{folder}.{file.stem}" for folder in ("training", "evaluation") for file in (copy / folder).glob("*.py")}
    computes_nothing = {"training.__init__", "training.version", "training.launch", "training.lock"}
    assert files - decided == computes_nothing | {"evaluation.__init__"}


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("training/loop.py", {"train"}),
        ("evaluation/passkey.py", {"passkey"}),
        ("evaluation/nll.py", {*SCORE_TOKENS, *OF_PERPLEXITY}),
        ("corpus/build.py", {"corpus"}),
        ("hub/convert.py", {"asset"}),
        ("modeling.py", {"train", *KINDS}),
        ("attention/__init__.py", {"train", *KINDS}),
        ("attention/chunks.py", {"train", *KINDS}),
        ("families/parity.py", set()),
        ("rope.py", set()),
        ("tracking/records.py", set()),
        ("results/statistics.py", set()),
    ],
)
def test_an_edit_asks_for_a_decision_about_what_it_decides(copy, file, stages):
    append(copy / file)
    found = problems(copy)
    assert found.keys() == stages
    module = file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    assert all(f"but {module} changed" in said and "python tests/bless_protocols.py" in said for said in found.values())
    bless(copy, copy.with_name("lock"))
    assert not problems(copy)


def test_comments_and_docstrings_ask_for_nothing(copy):
    for file in copy.rglob("*.py"):
        file.write_text(file.read_text().replace('"""', '"""Reworded. ', 1) + "\n\n# a comment\n")
    assert not problems(copy)


def test_a_module_that_comes_in_is_looked_at(copy):
    """A helper moved to a file of its own, imported inside a function."""
    (copy / "evaluation" / "helper.py").write_text("VALUE = 1\n")
    append(copy / "evaluation" / "dynamic.py", "\n\ndef helper():\n    from yarnlab.evaluation import helper\n")
    assert "evaluation.helper" in imported((copy / "evaluation" / "dynamic.py").read_text())
    assert "evaluation.dynamic, evaluation.helper changed" in problems(copy)["dynamic"]


def test_a_raised_version_is_written_down_too(copy, monkeypatch):
    monkeypatch.setitem(fingerprint.VERSIONS, "train", 99)
    assert "train: train@99, but the version was train@" in problems(copy)["train"]
    bless(copy, copy.with_name("lock"))
    assert not problems(copy)


def test_the_lock_is_tracked():
    assert LOCK.read_text().startswith('{\n "protocols": {\n')
