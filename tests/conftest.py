"""What several tests share: a tiny tokenizer, corpus and model, built once."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
# torch then asks the driver's library whether there is a GPU, where CUDA itself would make later forks unusable.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
# Two files are tested at a time: a thread each, since waiting OpenMP threads would take the other's core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The same kernels on every machine; what measures one is tested by itself (machine/).
os.environ.setdefault("YARNLAB_MACHINE", "default")


def pytest_configure(config: pytest.Config) -> None:
    """Tests without the mark `gpu` compute on CPUs, on a machine with GPUs too; torch is imported later than this."""
    if not asks_for_gpus(config.option.markexpr):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def asks_for_gpus(marks: str) -> bool:
    """Whether `-m MARKS` names the tests that need a GPU, and not to leave them out."""
    return re.search(r"(?<!not )\bgpu\b", marks) is not None


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    """A data folder: tokenizer (512 tokens, digits split), corpora `train` (networkx) and `held` (accelerate)."""
    from yarnlab.corpus.build import build_corpus
    from yarnlab.corpus.packages import read_packages
    from yarnlab.corpus.tokenizer import save_tokenizer, train_tokenizer

    folder = tmp_path_factory.mktemp("data")
    documents = read_packages(("networkx",))
    tokenizer = train_tokenizer(documents, vocab_size=512, split_digits=True, sample=40, seed=0)
    save_tokenizer(tokenizer, folder / "tokenizer")
    train = {"corpus": {"source": "python-packages", "packages": ["networkx"], "max_tokens": 60_000}, "seed": 0}
    held = {
        "corpus": {"source": "python-packages", "packages": ["accelerate"], "min_tokens": 1024, "documents": 3},
        "seed": 0,
    }
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
        tie_word_embeddings=True,
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


@pytest.fixture
def tiny_task(tiny_data, architecture, tiny_model):
    """Makes an evaluation's task: settings -> Task on the tiny model and the corpus `held`, with its settings beside."""
    from dataclasses import dataclass, field

    from yarnlab.corpus.tokens import TokenisedCorpus
    from yarnlab.evaluation.base import Task
    from yarnlab.progress import Progress
    from yarnlab.rope import make_rope

    @dataclass(frozen=True)
    class TinyTask(Task):
        settings: dict = field(default_factory=dict)

    def make(settings: dict, *, seed: int = 0, model=tiny_model, rope=None) -> Task:
        rope = rope or make_rope("none", original_context=64, head_dim=architecture.head_dim)
        return TinyTask(
            settings={"corpus": "held", "models": ["tiny"], "precision": "fp32", "threads": 1, **settings},
            seed=seed,
            columns={"model": "tiny", "arm": "tiny", "method": rope.method, "scale": float(rope.scale), "seed": 0},
            architecture=architecture,
            corpus=TokenisedCorpus.open(tiny_data / "held"),
            model=model,
            rope=rope,
            tokenizer=tiny_data / "tokenizer",
            progress=lambda total, unit: Progress("test", total, log=None, unit=unit),
        )

    return make
