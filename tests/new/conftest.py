"""Folders with small models and text, as a user has them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is recorded of models stands beside the lock of this test."""
    monkeypatch.setenv("YARNLAB_HUB_LOCK", str(tmp_path / "hub.lock.yaml"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def model_folder(tmp_path: Path, tiny_data: Path) -> Callable[..., Path]:
    """Saves a random model of a family, with a tokenizer of 512 tokens."""

    def save(family: str = "llama", **settings: object) -> Path:
        import torch
        from transformers import CONFIG_MAPPING, AutoModelForCausalLM

        shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        shape |= {"vocab_size": 512, "max_position_embeddings": 64}
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**{**shape, **settings}))
        folder = tmp_path / family
        model.save_pretrained(folder)
        for file in (tiny_data / "tokenizer").iterdir():
            shutil.copy(file, folder)
        return folder

    return save


@pytest.fixture
def books(tmp_path: Path) -> Path:
    """Files of text, all different and of some hundred tokens."""
    folder = tmp_path / "books"
    folder.mkdir()
    for number in range(30):
        words = (f"chapter {number} line {line} of {(number * line) % 97} nodes and edges" for line in range(40))
        (folder / f"{number:02d}.txt").write_text("\n".join(words))
    return folder
