"""config/studies/paper.yaml and released.yaml at 1/32 of their lengths and with a few of their arms: the same DAG."""

from __future__ import annotations

from typing import Any

SHORTER = 32
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 8,
}
KEPT = (
    "llama-2-7b", "mistral-7b", "llama-7b", "yarn-7b-s16", "yarn-7b-s32", "yarn-7b-8k", "yarn-mistral-s8", "yarn-32k",
    "pi-32k", "paper-ramp-32k", "together-7b-32k", "llongma-2-7b",
)  # fmt: skip


RELEASED_KEPT = (
    "llama-2-7b", "llama-7b", "mistral-7b", "released-7b-64k", "released-7b-8k", "released-ntk-7b-8k",
    "released-mistral-128k", "released-pi-32k",
)  # fmt: skip


def shrink(
    study: dict[str, Any], models: tuple[str, ...] = KEPT, kinds: tuple[str, ...] | None = None
) -> dict[str, Any]:
    """A study that two CPU cores run in minutes; `models`, their parents and `kinds` of evaluations are kept."""
    small = {**study, "models": {}, "corpora": {}}
    for name in models:
        small["models"][name] = _model(study["models"][name])
    for name, corpus in study["corpora"].items():
        small["corpora"][name] = _corpus(corpus)
    small["evaluations"] = {
        kind: _evaluation(kind, evaluation, models)
        for kind, evaluation in study["evaluations"].items()
        if kinds is None or kind in kinds
    }
    if kinds is not None:
        read = {name for one in small["evaluations"].values() for name in _corpora(one)}
        small["corpora"] = {name: corpus for name, corpus in small["corpora"].items() if name in read}
    used = {corpus.get(key) for corpus in small["corpora"].values() for key in ("asset", "tokenizer")}
    used |= {m["hub"].get(key) for m in small["models"].values() if "hub" in m for key in ("asset", "tokenizer")}
    used |= set(small["evaluations"].get("benchmarks", {}).get("snapshots", {}).values())
    # A commit is the real repository's: the stand-in has its own, found through the branch.
    small["assets"] = {name: {**asset, "revision": "main"} for name, asset in study["assets"].items() if name in used}
    return small


def _corpora(evaluation: dict[str, Any]) -> list[str]:
    corpus = evaluation["corpus"]
    return list(corpus.values()) if isinstance(corpus, dict) else [corpus]


def _shorter(tokens: int) -> int:
    return max(1, tokens // SHORTER)


def _model(model: dict[str, Any]) -> dict[str, Any]:
    small = dict(model)
    if "hub" in model:
        shape = model["hub"]["architecture"]
        few = {"num_key_value_heads": 2} if shape["num_key_value_heads"] < shape["num_attention_heads"] else {}
        architecture = {**shape, **SHAPE, **few, "original_context": _shorter(shape["original_context"])}
        small["hub"] = {**model["hub"], "architecture": architecture, "vocab_size": 512}
    if "train" in model:
        train = model["train"]
        small["train"] = {
            **train,
            "steps": 4 if train["steps"] <= 400 else 6,
            "warmup_steps": 1,
            "seq_len": _shorter(train["seq_len"]),
            "global_batch": 4,
            "lr": 1e-3,
            "precision": "fp32",
            "checkpoint_minutes": 0.001,
            "parallel": {**train["parallel"], "processes": 2, "threads": 1},
        }
    return small


def _corpus(corpus: dict[str, Any]) -> dict[str, Any]:
    small = dict(corpus)
    for key in ("min_tokens", "max_tokens"):
        if key in corpus:
            small[key] = _shorter(corpus[key])
    if "documents" in corpus:
        small["documents"] = min(3, corpus["documents"])
    if "blocks" in corpus:
        small["blocks"] = {**corpus["blocks"], "length": _shorter(corpus["blocks"]["length"])}
    return small


def _evaluation(kind: str, evaluation: dict[str, Any], models: tuple[str, ...]) -> dict[str, Any]:
    small = {**evaluation, "threads": 1, "models": [name for name in evaluation["models"] if name in models]}
    for key in ("window", "stride", "max_length", "max_tokens", "length", "tail"):
        if key in evaluation:
            small[key] = _shorter(evaluation[key])
    if "documents" in evaluation:
        small["documents"] = min(3, evaluation["documents"])
    if kind == "perplexity":
        small["lengths"] = {key: 4 * _shorter(evaluation["lengths"][key]) for key in ("start", "step")}
        small["lengths"]["stop"] = _shorter(evaluation["lengths"]["stop"])
    elif kind == "context":
        small["contexts"] = [_shorter(n) for n in evaluation["contexts"]]
    elif kind == "short_texts":
        small["lengths"] = [_shorter(n) for n in evaluation["lengths"]]
    elif kind == "dynamic":
        small["lengths"] = sorted({_shorter(n) for n in evaluation["lengths"] if _shorter(n) > small["tail"]})
    elif "passkey" in kind:
        small["lengths"] = [_shorter(n) for n in evaluation["lengths"] if _shorter(n) in (1024, 2048)]
        small["trials"] = 10 if kind == "passkey" else 2
    elif kind == "temperature":
        small |= {"scales": [4], "factors": {"start": 1.0, "stop": 1.2, "step": 0.1}}
    elif kind == "benchmarks":
        small["models"] = small["models"][:1]
    return small
