"""Checkpoints that are not trained here: published ones, and a parent's weights under another rope.

Weights are hard links (symbolic ones across file systems), so a zero-shot node of a 26 GB model costs no disk.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from yarnlab.errors import UserError
from yarnlab.families.config import declare, stock_block
from yarnlab.families.config_file import complete
from yarnlab.families.keys import dropout, unread_keys
from yarnlab.families.parts import UnsupportedModel, experts, head_dim
from yarnlab.families.tensors import check_files, check_loaded, check_tied
from yarnlab.rope import Rope
from yarnlab.study.fields import in_one_line
from yarnlab.study.schema import Architecture
from yarnlab.weights import checkpoint_files, companions, replacing_checkpoint


class ArchitectureMismatch(UserError):
    """A published checkpoint is not what the study says it is."""


def adopt_published(
    source: Path,
    architecture: Architecture,
    vocab_size: int,
    rope: Rope,
    folder: Path,
    *,
    drop_sliding_window: bool,
    ignored_config: Sequence[str] = (),
) -> list[Path]:
    """Make a model folder of a published checkpoint: stock config, `rope` in it, weights linked; returns its files.

    Args:
        drop_sliding_window: attend to the whole context whatever the config says.
        ignored_config: keys of config.json that are left out; of dropout, that count as 0.

    Raises ArchitectureMismatch if its config.json differs from what the study declares, HubError, RopeMismatch,
    WrongWeights or UnsupportedModel if it can't be computed with as stock transformers does; nothing is written then.
    """
    from yarnlab.families.parity import check_parity
    from yarnlab.hub.published import translate_config

    published = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config = stock_config(translate_config(published), ignored_config, source)
    _check_architecture(config, architecture, vocab_size, rope, source)
    _check_declared_rope(config, rope, source)
    if drop_sliding_window:
        config.sliding_window = None
    check_weights(source, config)
    written = copy.deepcopy(config)
    declare(written, rope)
    if rope.method in ("llama3", "longrope"):  # whose window is not s·L by definition: 131,072 for Llama 3.1's 8 × 8192
        written.max_position_embeddings = config.max_position_embeddings
    check_parity(config, written, rope, where=str(source))
    return _write(source, written, folder)


def stock_config(translated: dict[str, Any], ignored: Sequence[str], where: Path) -> Any:
    """The stock config of what `translate_config` gives, without the `ignored` keys.

    Raises UnsupportedModel, in one line, if the installed transformers can't make it, if its class does not read a key
    that is set, or if it has dropout.
    """
    from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

    values = PreTrainedConfig._decode_special_floats(translated)  # infinity, as transformers writes it
    family = values.pop("model_type")
    if family not in CONFIG_MAPPING:
        raise UnsupportedModel(f"{where}: the installed transformers has no family {family}")
    values = {key: value for key, value in values.items() if key not in ignored}
    file = where / "config.json"
    try:
        config = AutoConfig.for_model(family, **values)
        unread = unread_keys(config, values)
    except Exception as error:  # each family checks its values by itself
        reason = " ".join(str(error).split())
        raise UnsupportedModel(f"{file}: family {family} refuses its settings: {reason}") from error
    for key in dropout(config):
        if key not in ignored:
            raise UnsupportedModel(
                f"{file}: `{key}: {getattr(config, key)}`, and models are trained without dropout here: add {key} to "
                "the `ignored_config` of the model's `hub` to have it as 0"
            )
        setattr(config, key, 0.0)
    if unread:
        raise UnsupportedModel(
            f"{file}: `{unread[0]}: {values[unread[0]]}` is not read by transformers' {type(config).__name__}, so the "
            f"model may be another than its code would make. If it means nothing, add {', '.join(unread)} to the "
            "`ignored_config` of the model's `hub`"
        )
    return config


def check_weights(folder: Path, config: Any) -> None:
    """WrongWeights unless the folder's files hold the weights of a model of this config; reads their headers alone."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    check_files(folder)
    check_tied(folder, config)
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        config=config,
        device_map="meta",
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # check_loaded names them
    )
    check_loaded(loaded[1], folder)


def check_trainable(folder: Path) -> None:
    """UnsupportedModel for a checkpoint that can be evaluated and extended, but not trained: of a mixture of experts.

    Their routers are trained with a loss of their own, whose means over parts of a batch are not those of the whole, so
    that the result would depend on who computes it; and the plan knows no operations of layers that are left out.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    if key := experts(config):
        raise UnsupportedModel(
            f"{folder}: family {config.model_type} has experts (`{key}: {getattr(config, key)}`), whose router loss is "
            "no part of the training here: evaluate it, or extend it without `train`"
        )


def link_weights(source: Path, rope: Rope, folder: Path) -> list[Path]:
    """The weights of `source` under a config with another rope; returns the new folder's files.

    Raises UnsupportedModel where the family's config can't hold it.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(source)
    declare(config, rope)
    return _write(source, config, folder)


def _write(source: Path, config: Any, folder: Path) -> list[Path]:
    found = [*source.glob("*.safetensors"), *source.glob("*.safetensors.index.json")]
    weights = [file for file in found if not file.name.startswith(".")]  # what a killed process left half written
    if not weights:
        raise ArchitectureMismatch(f"{source} holds no safetensors weights")
    with replacing_checkpoint(folder) as temporary:
        config.save_pretrained(temporary)
        complete(temporary)
        for file in (*weights, *companions(source)):
            target = temporary / file.relative_to(source)
            target.parent.mkdir(exist_ok=True)
            _link(file, target)
    return checkpoint_files(folder)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:
        target.symlink_to(source.resolve())


def architecture_of(config: Any, original_context: int) -> Architecture:
    """The shape that a stock config describes; `original_context` is not in every one.

    Raises UnsupportedModel for a config that lacks a part of it.
    """
    block = stock_block(config)
    share = block.get("partial_rotary_factor") or 1.0
    try:
        heads = config.num_attention_heads
        return Architecture(
            family=config.model_type,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=heads,
            num_key_value_heads=getattr(config, "num_key_value_heads", None) or heads,
            head_dim=head_dim(config),
            original_context=original_context,
            rope_theta=float(block["rope_theta"]),
            tie_word_embeddings=config.tie_word_embeddings,
            partial_rotary_factor=None if share == 1 else share,
        )
    except AttributeError as error:
        raise UnsupportedModel(
            f"family {config.model_type}: its config has no `{error.name}`, which the study's `architecture` is held "
            "against"
        ) from error
    except ValidationError as error:
        raise UnsupportedModel(
            f"family {config.model_type}: its config is not that of one decoder: {in_one_line(error)}"
        ) from error


def _check_architecture(config: Any, declared: Architecture, vocab_size: int, rope: Rope, where: Path) -> None:
    # Fields that a config does not have (how far the weights were trained, what methods take by default) stay declared.
    found = declared.model_dump() | architecture_of(config, declared.original_context).model_dump(exclude_unset=True)
    if rope.method == "ntk-aware":  # which is nothing but another base: the frequencies are compared
        found["rope_theta"] = declared.rope_theta
    expected = declared.model_dump() | {"vocab_size": vocab_size}
    found["vocab_size"] = config.vocab_size
    wrong = [f"{key} is {found[key]}, the study says {value}" for key, value in expected.items() if value != found[key]]
    if wrong:
        raise ArchitectureMismatch(f"{where / 'config.json'}: {'; '.join(wrong)}. Correct the model's `architecture`")


def _check_declared_rope(config: Any, rope: Rope, where: Path) -> None:
    """What the checkpoint was made with must be what the study declares; raises RopeMismatch."""
    from yarnlab.modeling import RopeMismatch, check_config

    check_config(config, rope, where=str(where))
    longest = config.max_position_embeddings
    if (declared := getattr(rope, "max_position_embeddings", None)) not in (None, longest):
        raise RopeMismatch(
            f"{where / 'config.json'}: its `max_position_embeddings` is {longest}, the study's `rope` says {declared}. "
            "Correct the study"
        )
    if stock_block(config).get("rope_type") == "dynamic" and longest != rope.original_context:
        raise RopeMismatch(
            f"{where / 'config.json'}: its dynamic rope scales inputs of more than {longest} tokens "
            f"(`max_position_embeddings`), the study's those of more than {rope.original_context}. Correct the model's "
            "`architecture`"
        )
