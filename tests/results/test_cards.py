"""The cards that an analysis writes: each model's own numbers, with n."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from results.synthetic import L, write_study
from yarnlab.results.cards import write_cards
from yarnlab.results.results import load


def complete(study, name: str, parent: str | None) -> None:
    """What the synthetic study lacks: the model itself."""
    folder = study / "models" / name
    (folder / "config.json").write_text(json.dumps({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}))
    manifest = json.loads((folder / "manifest.json").read_text())
    shape = {"family": "llama", "num_hidden_layers": 2, "original_context": L}
    rope = {"method": "none" if parent is None else "yarn", "scale": 1 if parent is None else 16}
    manifest["spec"] = {"architecture": shape, "rope": rope, "parent": parent, "phases": [], "seed": 42}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_card_has_the_models_own_results(tmp_path):
    study = write_study(tmp_path / "study")
    complete(study, "base", None)
    complete(study, "yarn-s16", "base")
    write_cards(load(study))
    text = (study / "models" / "yarn-s16" / "README.md").read_text()
    rows = pd.read_parquet(study / "evaluations" / "perplexity" / "yarn-s16.parquet")
    own = rows[rows["length"] == 4096]
    assert f"| 4,096 | {np.exp(own['nll'].mean()):.3f} | {len(own)} |" in text and len(own) == 12
    trials = pd.read_parquet(study / "evaluations" / "passkey" / "yarn-s16.parquet")
    length = int(trials["length"].max())
    own = trials[trials["length"] == length]
    assert f"| {length:,} | {100 * own['hit'].mean():.0f} % | {len(own)} |" in text
    assert not (study / "models" / "pi-s16" / "README.md").exists()  # of which no folder is there


def test_without_results_it_says_so(tmp_path):
    study = write_study(tmp_path / "study", skip=("perplexity", "passkey"))
    complete(study, "base", None)
    write_cards(load(study))
    assert "None at hand yet" in (study / "models" / "base" / "README.md").read_text()
