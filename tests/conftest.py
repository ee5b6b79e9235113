"""What several tests share: a tiny tokenizer, corpus and model, built once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    """A data folder: tokenizer (512 tokens, digits split), corpora `train` (networkx) and `held` (accelerate)."""
    from yarnlab.corpus.packages import read_packages
    from yarnlab.corpus.tokenizer import save_tokenizer, train_tokenizer
    from yarnlab.corpus.tokens import build_corpus

    folder = tmp_path_factory.mktemp("data")
    documents = read_packages(("networkx",))
    tokenizer = train_tokenizer(documents, vocab_size=512, split_digits=True, sample=40, seed=0)
    save_tokenizer(tokenizer, folder / "tokenizer")
    train = {"corpus": {"packages": ["networkx"], "max_tokens": 60_000}, "seed": 0}
    held = {"corpus": {"packages": ["accelerate"], "min_tokens": 1024, "documents": 3}, "seed": 0}
    build_corpus(train, folder / "tokenizer", folder / "train", log=None)
    build_corpus(held, folder / "tokenizer", folder / "held", log=None)
    return folder


@pytest.fixture(scope="session")
def architecture():
    from yarnlab.study.schema import Architecture

    return Architecture(
        family="llama",
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        original_context=64,
        rope_theta=10000.0,
        initialisation="normal",
    )


@pytest.fixture
def tiny_model(architecture):
    """A fresh random model: sharper than at initialisation, so that differences show in its logits."""
    import torch

    from yarnlab.modeling import create_model

    model = create_model(architecture, vocab_size=512, seed=0).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    return model
