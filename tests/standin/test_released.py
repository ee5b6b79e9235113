"""Every release whose config is known becomes the model that released.yaml declares, and no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from yarnlab.checkpoints import adopt_published
from yarnlab.hub.convert import convert, target_name, write_index
from yarnlab.modeling import RopeMismatch, load_model
from yarnlab.study.read import read_study
from yarnlab.study.schema import Architecture, RopeChoice

from .released import RELEASED
from .repositories import llama_tokenizer, write_model
from .shrink import _model

STUDY, _ = read_study(Path(__file__).parents[2] / "config" / "studies" / "released.yaml")
ARMS = {
    name: STUDY["assets"][name]["repo"]
    for name in STUDY["models"]
    if STUDY["assets"].get(name, {}).get("repo") in RELEASED
}


@pytest.fixture(scope="module")
def tokenizer():
    return llama_tokenizer(["The grass is green. " * 20], 512)


def test_all_releases_but_one_have_a_stand_in():
    """What an NTK-by-parts release says of its rope is not known."""
    absent = {name for name, model in STUDY["models"].items() if name.startswith("released-") and model} - set(ARMS)
    assert absent == {"released-ntk-by-parts-32k"} and len(ARMS) == len(RELEASED) == 11


@pytest.mark.parametrize("arm", ARMS)
def test_a_release_becomes_the_declared_model(arm, tokenizer, tmp_path):
    """Its own old config, read without its own code: stock, with the weights linked and the declared frequencies in
    force; and refused where the study says another scale."""
    model = _model(STUDY["models"][arm])
    source, shape = tmp_path / "asset", Architecture(**model["hub"]["architecture"])
    write_model(source, ARMS[arm], model["hub"], tokenizer, seed=0)
    if bins := sorted(source.glob("*.bin")):
        write_index(source, [convert(file, "", source / target_name(file.name)).file for file in bins])

    def adopt(choice: dict, folder: Path) -> None:
        rope = RopeChoice(**choice).make(shape)
        drop = model["hub"].get("drop_sliding_window", False)
        adopt_published(source, shape, model["hub"]["vocab_size"], rope, folder, drop_sliding_window=drop)

    adopt(model["rope"], tmp_path / "model")
    made = json.loads((tmp_path / "model/config.json").read_text())
    assert "auto_map" not in made and made.get("sliding_window") is None
    weights = next((tmp_path / "model").glob("*.safetensors"))
    assert weights.stat().st_ino == (source / weights.name).stat().st_ino
    rope = RopeChoice(**model["rope"]).make(shape)
    with torch.no_grad():
        logits = load_model(tmp_path / "model", rope)(torch.arange(3, 200)[None]).logits
    assert logits.isfinite().all()
    wrong = {"theta": 30000.0} if "theta" in model["rope"] else {"scale": 2 * model["rope"]["scale"]}
    with pytest.raises(RopeMismatch, match="Correct the study's `rope`"):
        adopt(model["rope"] | wrong, tmp_path / "other")
    assert not (tmp_path / "other").exists()
