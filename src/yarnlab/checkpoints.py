"""Checkpoints that are not trained here: published ones, and a parent's weights under another rope.

Weights are hard links (symbolic ones across file systems), so a zero-shot node of a 26 GB model costs no disk.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from yarnlab.errors import UserError
from yarnlab.rope import Rope
from yarnlab.study.schema import Architecture
from yarnlab.weights import TOKENIZER_FILES, checkpoint_files, replacing_checkpoint


class ArchitectureMismatch(UserError):
    """A published checkpoint is not what the study says it is."""


def adopt_published(
    source: Path, architecture: Architecture, vocab_size: int, rope: Rope, folder: Path, *, drop_sliding_window: bool
) -> list[Path]:
    """Make a model folder of a published checkpoint: stock config, `rope` in it, weights linked; returns its files.

    Raises ArchitectureMismatch if its config.json differs from what the study declares.
    """
    from transformers import AutoConfig

    from yarnlab.hub.published import translate_config

    translated = translate_config(json.loads((source / "config.json").read_text(encoding="utf-8")))
    config = AutoConfig.for_model(translated.pop("model_type"), **translated)
    _check_architecture(config, architecture, vocab_size, rope, source)
    _check_declared_rope(config, rope, source)
    if drop_sliding_window:
        config.sliding_window = None
    return _write(source, config, rope, folder)


def link_weights(source: Path, rope: Rope, folder: Path) -> list[Path]:
    """The weights of `source` under a config with another rope; returns the new folder's files.

    A rope without a stock form (dynamic ones) keeps the source's config: `modeling.set_rope` puts it in force.
    """
    from transformers import AutoConfig

    return _write(source, AutoConfig.from_pretrained(source), rope, folder)


def _write(source: Path, config: Any, rope: Rope, folder: Path) -> list[Path]:
    try:
        config.rope_parameters = rope.to_hf()
        config.max_position_embeddings = rope.context
    except ValueError:
        pass
    found = [*source.glob("*.safetensors"), *source.glob("*.safetensors.index.json")]
    weights = [file for file in found if not file.name.startswith(".")]  # what a killed process left half written
    if not weights:
        raise ArchitectureMismatch(f"{source} holds no safetensors weights")
    with replacing_checkpoint(folder) as temporary:
        config.save_pretrained(temporary)
        for file in weights:
            _link(file, temporary / file.name)
        for name in TOKENIZER_FILES:
            if (source / name).exists():
                _link(source / name, temporary / name)
    return checkpoint_files(folder)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:
        target.symlink_to(source.resolve())


def _check_architecture(config: Any, declared: Architecture, vocab_size: int, rope: Rope, where: Path) -> None:
    heads = config.num_attention_heads
    found = {
        "family": config.model_type,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": heads,
        "num_key_value_heads": getattr(config, "num_key_value_heads", None) or heads,
        "head_dim": getattr(config, "head_dim", None) or config.hidden_size // heads,
        "rope_theta": float(config.rope_parameters["rope_theta"]),
        "tie_word_embeddings": config.tie_word_embeddings,
        "vocab_size": config.vocab_size,
    }
    if rope.method == "ntk-aware":  # which is nothing but another base: the frequencies are compared
        del found["rope_theta"]
    expected = declared.model_dump() | {"vocab_size": vocab_size}
    wrong = [
        f"{key} is {value}, the study says {expected[key]}" for key, value in found.items() if value != expected[key]
    ]
    if wrong:
        raise ArchitectureMismatch(f"{where / 'config.json'}: {'; '.join(wrong)}. Correct the model's `architecture`")


def _check_declared_rope(config: Any, rope: Rope, where: Path) -> None:
    """What the checkpoint was made with must be what the study declares; raises RopeMismatch."""
    from yarnlab.modeling import check_config

    check_config(config, rope, where=str(where))
