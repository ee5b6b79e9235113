"""The stage that trains the tokenizer says what it does while it lasts, and is not run twice for one result."""

from __future__ import annotations

import pytest

from yarnlab.stages.data import make_tokenizer
from yarnlab.stages.layout import Layout

SPEC = {
    "corpus": {"packages": ["networkx"]},
    "tokenizer": {"vocab_size": 300, "split_digits": True, "sample_documents": 3},
    "seed": 0,
}


def test_its_log_says_what_is_read_and_trained(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    log = tmp_path / "tokenizer.log"
    make_tokenizer(Layout(tmp_path / "results" / "demo"), "tokenizer", SPEC, "0", log)
    reading, training = log.read_text().splitlines()
    assert reading.endswith("tokenizer: reading networkx")
    assert "tokenizer: training 300 tokens on 3 of " in training


@pytest.mark.parametrize(("asked", "again"), [("", False), ("tokenizer", True)])
def test_one_that_is_finished_is_put_back(tmp_path, monkeypatch, asked, again):
    """Snakemake, killed before it noted the job's end, deletes the manifest and starts the job once more."""
    layout = Layout(tmp_path / "results" / "demo")
    make_tokenizer(layout, "tokenizer", SPEC, "0", None)
    manifest = layout.manifest("tokenizer", "tokenizer")
    before = manifest.read_bytes()
    manifest.unlink()
    monkeypatch.setenv("YARNLAB_FORCED", asked)
    make_tokenizer(layout, "tokenizer", SPEC, "0", tmp_path / "log")
    assert ("training" in (tmp_path / "log").read_text()) == again
    assert (manifest.read_bytes() != before) == again
    make_tokenizer(layout, "tokenizer", SPEC | {"seed": 1}, "0", tmp_path / "log")
    assert "training" in (tmp_path / "log").read_text()
