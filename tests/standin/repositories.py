"""Tiny models and datasets laid out like the real repositories that config/studies/paper.yaml names.

File names, columns, config keys and special tokens are those of the hub; sizes are not. `build(root, study)` writes
`root/{models,datasets}/<owner>/<name>/…`, which the stand-in hub serves.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .released import RELEASED

SHARD = "{}-00000-of-00001.parquet".format
TEXT_PACKAGES = ("networkx",)


def build(root: Path, study: dict[str, Any]) -> None:
    """Write every repository that a (shrunken) study's assets name."""
    texts = list(_texts())
    tokenizer = llama_tokenizer(texts, 512)
    for name, asset in study["assets"].items():
        folder = root / f"{asset['type']}s" / asset["repo"]
        folder.mkdir(parents=True, exist_ok=True)
        if asset["type"] == "model":
            origin = next((m["hub"] for m in study["models"].values() if m.get("hub", {}).get("asset") == name), None)
            write_model(folder, asset["repo"], origin, tokenizer, seed=len(name))
        else:
            _DATASETS[asset["repo"]](folder, texts, tokenizer, study)


def llama_tokenizer(texts: list[str], vocab_size: int):
    """A SentencePiece-like BPE as Llama's fast tokenizer is: ▁ for spaces, digits apart, bytes as a last resort."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.Split("▁", "merged_with_next")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=["<unk>", "<s>", "</s>", *byte_tokens], show_progress=False
    )
    tokenizer.train_from_iterator(texts[:40], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if token["id"] < 3]
    return Tokenizer.from_str(json.dumps(data))


def write_model(folder: Path, repo: str, origin: dict[str, Any] | None, tokenizer, *, seed: int) -> None:
    """A checkpoint with random weights and the config that the repository really has (old keys and all)."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    assert origin is not None, f"no model of the study is made from {repo}"
    shape = origin["architecture"]
    config = {
        "model_type": shape["family"],
        "vocab_size": origin["vocab_size"],
        **{key: shape[key] for key in (
            "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
            "tie_word_embeddings",
        )},
        "rope_theta": shape["rope_theta"],
        "max_position_embeddings": shape["original_context"],
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.31.0.dev0",
        **_old_keys(repo, shape),
    }  # fmt: skip
    torch.manual_seed(seed)
    if shape["head_dim"] != shape["hidden_size"] // shape["num_attention_heads"]:
        config["head_dim"] = shape["head_dim"]
    if config["rope_theta"] is None:
        del config["rope_theta"]
    stock = {k: v for k, v in config.items() if k not in ("rope_scaling", "rope_theta", "auto_map", "model_type")}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(shape["family"], **stock)).to(torch.bfloat16)
    folder.mkdir(parents=True, exist_ok=True)
    if repo in ("conceptofmind/LLongMA-2-7b", "emozilla/NTK-Llama-2-7b-8k"):
        _write_bin(folder, model)
    else:
        model.save_pretrained(folder, max_shard_size="200KB")
    for file in ("generation_config.json", "config.json"):
        (folder / file).unlink(missing_ok=True)
    (folder / "config.json").write_text(json.dumps({"architectures": [type(model).__name__], **config}, indent=2))
    (folder / "generation_config.json").write_text(
        json.dumps({"bos_token_id": 1, "eos_token_id": 2, "do_sample": True, "temperature": 0.6, "top_p": 0.9})
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({
            "tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
            "add_bos_token": True, "add_eos_token": False, "model_max_length": 1000000000000000019884624838656,
        })
    )  # fmt: skip
    (folder / "special_tokens_map.json").write_text(
        json.dumps({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})
    )
    (folder / "README.md").write_text(f"# {repo}\n")
    for code in {value.partition(".")[0] for value in config.get("auto_map", {}).values()}:
        (folder / f"{code}.py").write_text("raise SystemExit('code of a repository was run')\n")


def _old_keys(repo: str, shape: dict[str, Any]) -> dict[str, Any]:
    """What the published config.json files hold beyond the base model's, lengths in proportion."""
    length = shape["original_context"]
    if repo in RELEASED:
        return RELEASED[repo](length)
    if repo == "togethercomputer/LLaMA-2-7B-32K":
        return {"rope_scaling": {"factor": 8.0, "type": "linear"}, "max_position_embeddings": 8 * length}
    if repo == "conceptofmind/LLongMA-2-7b":
        return {"rope_scaling": {"factor": 2.0, "type": "linear"}, "max_position_embeddings": 2 * length}
    if repo.startswith("mistralai/"):
        return {"sliding_window": max(1, length // 2)}
    if repo == "amazon/MistralLite":
        return {"sliding_window": max(1, length // 2)}
    return {}


def _write_bin(folder: Path, model) -> None:
    import torch

    tensors = list(model.state_dict().items())
    half = len(tensors) // 2
    names = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    for name, part in zip(names, (tensors[:half], tensors[half:]), strict=True):
        torch.save(dict(part), folder / name)
    weight_map = {key: names[i >= half] for i, (key, _) in enumerate(tensors)}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def _texts() -> Iterator[str]:
    from yarnlab.corpus.packages import read_packages

    for document in read_packages(TEXT_PACKAGES):
        if len(document.text) > 2_000:
            yield document.text


def _ids(texts: list[str], tokenizer, length: int, count: int) -> list[list[int]]:
    """`count` rows of `length` ids, cut one after the other from the texts."""
    wanted, stream = length * count, []
    for text in texts:
        if len(stream) >= wanted:
            break
        stream += tokenizer.encode(text[:20_000], add_special_tokens=False).ids
    assert len(stream) >= wanted, "the packages have too little text"
    return [stream[i * length : (i + 1) * length] for i in range(count)]


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(path, index=False)


def _smallest(study: dict[str, Any], asset: str) -> int:
    return next(c["min_tokens"] for c in study["corpora"].values() if c["asset"] == asset and "min_tokens" in c)


def _blocks(asset: str):
    def write(folder: Path, texts: list[str], tokenizer, study: dict[str, Any]) -> None:
        length = _smallest(study, asset)
        rows = [[1, *ids, 2] for ids in _ids(texts, tokenizer, length - 2, 24)]
        _write(
            folder / "data" / SHARD("train"),
            [{"input_ids": ids, "attention_mask": [1] * length, "labels": ids} for ids in rows],
        )

    return write


def _documents(asset: str, split: str):
    def write(folder: Path, texts: list[str], tokenizer, study: dict[str, Any]) -> None:
        length = _smallest(study, asset)
        rows = _ids(texts, tokenizer, length // 2, 2) + _ids(texts[::-1], tokenizer, length + 50, 6)
        _write(folder / "data" / SHARD(split), [{"input_ids": ids, "tokenized_len": len(ids)} for ids in rows])

    return write


def _books(folder: Path, texts: list[str], tokenizer, study: dict[str, Any]) -> None:
    books = ["\n".join(texts[i : i + 12]) for i in range(0, 96, 12)]
    rows = [
        {"short_book_title": f"Book {i}", "publication_date": 1850 + i, "url": f"http://book/{i}", "text": text}
        for i, text in enumerate(books)
    ]
    for split, part in (("train", rows[:6]), ("validation", rows[6:7]), ("test", rows[7:])):
        _write(folder / "data" / SHARD(split), part)


def _red_pajama(folder: Path, texts: list[str], tokenizer, study: dict[str, Any]) -> None:
    rows = [{"text": "\n".join(texts[i : i + 6]), "meta": "{}"} for i in range(0, 48, 6)]
    (folder / "arxiv_sample.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _arc(folder: Path, *_: Any) -> None:
    letters, options = np.array(["A", "B", "C", "D"]), np.array(["red", "green", "blue", "dark grey"])
    for split, count in (("train", 30), ("validation", 3), ("test", 4)):
        rows = [
            {"id": str(i), "question": f"Colour {i}?", "choices": {"text": options, "label": letters},
             "answerKey": "ABCD"[i % 4]} for i in range(count)
        ]  # fmt: skip
        _write(folder / "ARC-Challenge" / SHARD(split), rows)


def _hellaswag(folder: Path, *_: Any) -> None:
    options = np.array(["red", "green", "blue", "dark grey"])
    for split, count in (("train", 14), ("validation", 4), ("test", 2)):
        rows = [
            {"ind": i, "activity_label": "Cooking", "ctx_a": f"A pot has {i} eggs.", "ctx_b": "she",
             "ctx": f"A pot has {i} eggs. she", "endings": options, "source_id": str(i), "split": split,
             "split_type": "indomain", "label": str(i % 4)} for i in range(count)
        ]  # fmt: skip
        _write(folder / "data" / SHARD(split), rows)


def _truthful_qa(folder: Path, *_: Any) -> None:
    truths = {"choices": np.array(["yes", "no", "perhaps"]), "labels": np.array([1, 0, 1])}
    rows = [{"question": f"Is {i} odd?", "mc1_targets": truths, "mc2_targets": truths} for i in range(3)]
    _write(folder / "multiple_choice" / SHARD("validation"), rows)


def _mmlu(folder: Path, *_: Any) -> None:
    from yarnlab.evaluation.snapshots import mmlu_subjects

    options = np.array(["red", "green", "blue", "dark grey"])
    for subject in mmlu_subjects():
        row = {"question": "Which?", "subject": subject, "choices": options, "answer": 1}
        _write(folder / subject / SHARD("dev"), [row] * 5)
        _write(folder / subject / SHARD("test"), [row | {"answer": 2}])


_DATASETS = {
    "emozilla/pg19": _books,
    "emozilla/pg_books-tokenized-bos-eos-chunked-65536": _blocks("pg19-tokenized"),
    "emozilla/yarn-train-tokenized-16k-mistral": _blocks("mistral-mix"),
    "emozilla/proofpile-test-tokenized": _documents("proofpile-tokenized", "test"),
    "emozilla/proofpile-test-tokenized-mistral": _documents("proofpile-tokenized-mistral", "train"),
    "emozilla/govreport-test-tokenized": _documents("govreport-tokenized", "test"),
    "togethercomputer/RedPajama-Data-1T-Sample": _red_pajama,
    "allenai/ai2_arc": _arc,
    "Rowan/hellaswag": _hellaswag,
    "cais/mmlu": _mmlu,
    "truthfulqa/truthful_qa": _truthful_qa,
}
