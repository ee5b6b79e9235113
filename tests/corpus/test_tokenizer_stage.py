"""The stage that trains the tokenizer says what it does while it lasts."""

from __future__ import annotations

from yarnlab.stages.data import make_tokenizer
from yarnlab.stages.layout import Layout


def test_its_log_says_what_is_read_and_trained(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    spec = {
        "corpus": {"packages": ["networkx"]},
        "tokenizer": {"vocab_size": 300, "split_digits": True, "sample_documents": 3},
        "seed": 0,
    }
    log = tmp_path / "tokenizer.log"
    make_tokenizer(Layout(tmp_path / "results" / "demo"), "tokenizer", spec, "0", log)
    reading, training = log.read_text().splitlines()
    assert reading.endswith("tokenizer: reading networkx")
    assert "tokenizer: training 300 tokens on 3 of " in training
