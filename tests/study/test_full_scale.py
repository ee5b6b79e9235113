"""The studies at full scale: sound, complete, and with mistakes that only they can have."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from yarnlab.study.load import load_study
from yarnlab.study.read import StudyError
from yarnlab.study.schema import Study
from yarnlab.study.sections import section

STUDIES = Path(__file__).parents[2] / "config" / "studies"


@pytest.fixture(scope="module")
def paper() -> Study:
    return load_study(STUDIES / "paper.yaml")


@pytest.mark.parametrize("name", ["released", "template"])
def test_the_other_studies_are_sound(name):
    assert load_study(STUDIES / f"{name}.yaml").study == name


def test_the_papers_runs_have_the_papers_settings(paper):
    """paper_spec: §4.1 and App. B.4 of v2, train.sh for lengths and steps."""
    wanted = {
        "yarn-7b-s16": (16, 400, 65536, 2e-5),
        "yarn-7b-s32": (32, 200, 65536, 2e-5),
        "yarn-13b-s16": (16, 400, 65536, 2e-5),
        "yarn-13b-s32": (32, 200, 65536, 2e-5),
        "yarn-7b-8k": (2, 400, 8192, 2e-5),
        "ntk-7b-8k": (2, 400, 8192, 2e-5),
        "yarn-mistral-s8": (8, 1000, 16384, 1e-6),
        "yarn-mistral-s16": (16, 500, 16384, 1e-6),
        "yarn-32k": (16, 400, 32768, 2e-5),
    }
    for arm, (scale, steps, seq_len, lr) in wanted.items():
        train = paper.models[arm].train
        assert (paper.rope(arm).scale, train.steps, train.seq_len, train.lr) == (scale, steps, seq_len, lr), arm
        assert (train.global_batch, train.warmup_steps, train.betas, train.weight_decay) == (64, 20, (0.9, 0.95), 0.0)


def test_mistral_has_the_constants_of_its_code_and_an_arm_with_the_papers(paper):
    """modeling_mistral_yarn.py:147-150, 254: beta 2 and 128, √(1/t) = 0.07 ln s + 1; the paper says 1, 32 and 0.1."""
    assert paper.rope("yarn-mistral-s8").attention_factor == pytest.approx(1.14556, abs=1e-5)
    assert paper.rope("yarn-mistral-s8-paper").attention_factor == pytest.approx(1.20794, abs=1e-5)
    assert paper.rope("yarn-mistral-s8").correction_range() == (16, 46)
    assert paper.rope("yarn-mistral-s8-paper").correction_range() == (25, 50)


def test_each_model_is_read_with_its_own_tokenizers_corpus(paper):
    assert section(paper, "perplexity", "yarn-mistral-s8")["evaluation"]["corpus"] == "proofpile-mistral"
    assert section(paper, "perplexity", "code-llama-13b")["evaluation"]["corpus"] == "proofpile"


def test_a_published_models_section_names_its_asset_and_no_parent(paper):
    spec = section(paper, "train", "mistral-7b")
    assert (spec["kind"], spec["asset"], spec["parent"], spec["drop_sliding_window"]) == (
        "hub",
        "mistral-7b",
        None,
        True,
    )
    assert section(paper, "train", "yarn-7b-s16")["parent"] == "llama-2-7b"


MISTAKES = [
    ({"assets": {"llama-2-7b": {"type": "dataset"}}}, "is a dataset, a model is needed"),
    ({"assets": {"llama-2-7b": {"repo": "no-owner"}}}, "assets.llama-2-7b.repo"),
    ({"assets": {"unused": {"type": "dataset", "repo": "a/b", "revision": "main"}}}, "is used by no corpus"),
    ({"corpora": {"pg19": {"asset": "pg20"}}}, "there is no asset 'pg20'"),
    ({"corpora": {"pg19": {"tokenizer": "mistral-7b"}}}, "is tokenised by mistral-7b, the model yarn-7b-s16 reads ids"),
    (
        {"evaluations": {"perplexity": {"corpus": {"mistral-7b": "proofpile"}}}},
        "evaluations.perplexity.corpus.mistral-7b: is tokenised by llama-2-7b, the model mistral-7b reads ids",
    ),
    ({"corpora": {"proofpile": {"documents": None}}}, "needs `min_tokens` and `documents`"),
    ({"corpora": {"pg19": {"min_tokens": 8192}}}, "blocks need documents of at least seq_len"),
    ({"corpora": {"redpajama": {"column": None}}}, "format jsonl needs a `column`"),
    ({"evaluations": {"perplexity": {"corpus": {"mistral-7b": None}}}}, "names no corpus for mistral-7b"),
    ({"models": {"llama-2-7b": {"from": "mistral-7b"}}}, "exactly one of `pretrain`, `hub` and `from`"),
    ({"models": {"yarn-7b-s16": {"train": {"parallel": {"processes": 7}}}}}, "must divide global_batch 64"),
    ({"models": {"yarn-7b-s16": {"train": {"parallel": {"context": 3}}}}}, "context 3 must divide"),
    (
        {"models": {"yarn-7b-s16": {"train": {"precision": "pure-bf16", "parallel": {"sharding": "replicate"}}}}},
        "needs `sharding: fsdp`",
    ),
    (
        {"corpora": {"proofpile": {"asset": "pg19-tokenized", "files": ["data/train-*.parquet"]}}},
        "is training text too",
    ),
]


@pytest.mark.parametrize(("change", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_mistakes_of_full_scale_studies(tmp_path, change, message):
    (tmp_path / "paper.yaml").write_text((STUDIES / "paper.yaml").read_text())
    (tmp_path / "changed.yaml").write_text(yaml.safe_dump({"extends": "paper.yaml", "study": "changed", **change}))
    with pytest.raises(StudyError) as caught:
        load_study(tmp_path / "changed.yaml")
    assert message in str(caught.value)
