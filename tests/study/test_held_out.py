"""Evaluation text that is training text too is found by its names, before anything runs."""

from __future__ import annotations

from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yarnlab.study.check import find_problems
from yarnlab.study.check_held_out import overlap
from yarnlab.study.data import Asset, HubText, PythonPackages
from yarnlab.study.load import load_study

STUDIES = Path(__file__).resolve().parents[2] / "config" / "studies"


@pytest.mark.parametrize("spelling", ["Ruamel.yaml", "ruamel_yaml", "RUAMEL-YAML"])
def test_a_package_has_many_spellings(spelling):
    study = load_study(STUDIES / "smoke.yaml")
    corpora = {
        "train": PythonPackages(source="python-packages", packages=("ruamel.yaml",)),
        "held-out": PythonPackages(source="python-packages", packages=(spelling,), min_tokens=8192, documents=99),
    }
    found = find_problems(study.model_copy(update={"corpora": study.corpora | corpora}))
    expected = f"{spelling} is training text too (corpus train); evaluate on held-out text"
    assert (("corpora", "held-out", "packages"), expected) in found


@pytest.mark.parametrize(
    ("trained", "evaluated", "shared"),
    [
        ("data/train-*.parquet", "data/train-00007-of-00010.parquet", True),
        ("data/train-00007-of-00010.parquet", "data/*7-of-*.parquet", True),
        ("data/*.parquet", "*/test-0000?.parquet", True),
        ("data/train-[0-4]*", "data/train-[3-9]*", True),
        ("data/train-[0-4]*", "data/train-[5-9]*", False),
        ("data/train-*", "data/test-*", False),
        ("data/train-?.parquet", "data/train-10.parquet", False),
    ],
)
@pytest.mark.parametrize(("repository", "same"), [("lab/Text", True), ("lab/text", True), ("lab/other", False)])
def test_files_of_one_repository(trained, evaluated, shared, repository, same):
    """Patterns that can name the same file, whatever the asset is called under which the repository is fetched."""
    study = load_study(STUDIES / "paper.yaml")
    asset = study.evaluations.perplexity.corpora
    name = sorted(set(asset.values()))[0]
    other = next(phase.corpus for model in study.models.values() for phase in model.phases)
    text = {"source": "hub-text", "format": "text", "tokenizer": study.corpora[name].tokenizer}
    corpora = {
        name: HubText(asset="one", files=(evaluated,), min_tokens=131072, documents=99, **text),
        other: HubText(asset="two", files=(trained,), **text),
    }
    assets = {
        "one": Asset(type="dataset", repo="lab/text", revision="main"),
        "two": Asset(type="dataset", repo=repository, revision="v2"),
    }
    found = find_problems(
        study.model_copy(update={"corpora": study.corpora | corpora, "assets": study.assets | assets})
    )
    expected = (
        ("corpora", name, "files"),
        f"{evaluated} is training text too (corpus {other}); evaluate on held-out text",
    )
    assert (expected in found) == (shared and same)


PATTERNS = st.text(st.sampled_from("aé*?[]!-"), max_size=5)


@given(PATTERNS, PATTERNS, st.text(st.sampled_from("aéb[]!-"), max_size=5))
def test_a_name_that_both_patterns_match_is_an_overlap(one, other, name):
    if fnmatchcase(name, one) and fnmatchcase(name, other):
        assert overlap(one, other)


@given(st.text(st.sampled_from("ab*?"), max_size=3), st.text(st.sampled_from("ab*?"), max_size=3))
def test_an_overlap_has_a_name(one, other):
    """Patterns of this kind overlap in a name that is no longer than both together, or not at all."""
    names = ["".join(name) for length in range(7) for name in product("ab", repeat=length)]
    assert overlap(one, other) == any(fnmatchcase(name, one) and fnmatchcase(name, other) for name in names)
