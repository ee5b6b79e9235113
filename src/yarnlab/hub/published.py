"""Configs of published checkpoints in the form that stock transformers reads today.

The released YaRN checkpoints carry `rope_scaling` blocks for code of their own, which is never run here. What that code
computed is written down as stock `rope_parameters`; that the frequencies agree is checked when a checkpoint is adopted
(modeling.check_config) and, against the official classes' values, in the tests. File names and lines are those of the
official repository, github.com/jquesnelle/yarn @995db5b.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from yarnlab.hub.errors import HubError

DEFAULT_THETA = 10000.0
# Of the repositories' own code or of one machine, without a meaning for the stock classes.
DROPPED = (
    "_flash_attn_2_enabled",
    "_attn_implementation_autoset",
    "_commit_hash",
    "_name_or_path",
    "auto_map",
    "is_llama_config",
    "max_sequence_length",
    "pretraining_tp",
    "rope_scaling",
    "rope_theta",
    "torch_dtype",
    "transformer_engine",
    "transformers.js_config",
    "transformers_version",
    "use_cache",
    "unsloth_fixed",
    "unsloth_version",
    "use_flash_attention",
)
# Switches of LLongMA's own code, harmless only as published: (key, the values that change nothing).
OLD_SWITCHES: tuple[tuple[str, tuple[object, ...]], ...] = (
    ("ntk_alpha", (None, 1)),
    ("part_ntk_scale", (None, 1)),
    ("position_interpolation_scale", (None, 1)),
    ("use_xpos", (None, False)),
)
# rope_scaling blocks of today's transformers, which mean the same there.
STOCK = {
    "llama3": {"factor", "high_freq_factor", "low_freq_factor", "original_max_position_embeddings"},
    "longrope": {"attention_factor", "factor", "long_factor", "original_max_position_embeddings", "short_factor"},
}
# Keys that are whole numbers above 0 wherever they are one number; a family may have lists, or leave one open (null).
SIZES = (
    "head_dim",
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "vocab_size",
)
POSITIVE = (  # of a rope's block
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "factor",
    "high_freq_factor",
    "low_freq_factor",
    "original_max_position_embeddings",
    "partial_rotary_factor",
    "rope_theta",
)
DTYPES = ("float32", "float16", "bfloat16", "float64")
# The official finetune.py writes these into every block, whatever its type; a linear or larger base needs neither.
WRITTEN_ALWAYS = {"original_max_position_embeddings", "finetuned"}
STOCK_YARN_KEYS = {"attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"}


@dataclass(frozen=True)
class OfficialConstants:
    """What an official YaRN class has in its signature: no config can change it."""

    beta_fast: float
    beta_slow: float
    slope: float  # mscale = slope·ln s + 1

    def attention_factor(self, scale: float) -> float:
        return self.slope * math.log(scale) + 1.0 if scale > 1 else 1.0


OFFICIAL = {
    "llama": OfficialConstants(beta_fast=32, beta_slow=1, slope=0.1),  # LlamaYaRNScaledRotaryEmbedding.py:5-27
    "mistral": OfficialConstants(beta_fast=128, beta_slow=2, slope=0.07),  # modeling_mistral_yarn.py:147-150, 254
}


def translate_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json as keyword arguments of the stock config class, `model_type` among them.

    `rope_parameters` is complete wherever the config says anything about the rope. For the YaRN-Mistral releases
    `sliding_window` is None: their windows (65,536 and 131,072) are the whole context, and a window that is not longer
    than the input costs a mask of its square (docs/deviations.md).

    Raises HubError naming the repository and the key for whatever has no stock form.
    """
    name = str(config.get("_name_or_path") or "config.json")
    family = config.get("model_type")
    if not isinstance(family, str):
        raise HubError(f"{name}: config.json has no `model_type`, so that no stock class can be chosen")
    if config.get("quantization_config"):
        raise HubError(f"{name}: `quantization_config` is set: use the unquantised repository")
    for key, neutral in OLD_SWITCHES:
        if config.get(key) not in neutral:
            raise HubError(f"{name}: `{key}: {config[key]}` has no stock form; this checkpoint can't be evaluated")
    for key in ("rope_scaling", "rope_parameters"):
        if not isinstance(config.get(key), Mapping | None):
            raise HubError(f"{name}: `{key}` is {config[key]!r} and has to be a mapping")
    _check_numbers(config, name)
    dropped = {*DROPPED, *(key for key, _ in OLD_SWITCHES)}
    stock = {key: value for key, value in config.items() if key not in dropped}
    if config.get("rope_parameters"):
        _check_one_rope(config, family, name)
    elif config.get("rope_scaling") or family in OFFICIAL:
        stock["rope_parameters"] = _rope(config, family, name)
    elif config.get("rope_theta") is not None:  # the class knows what else its family's rope is (gpt-oss: YaRN)
        stock["rope_theta"] = _base(config["rope_theta"], name)
    if dtype := config.get("dtype") or config.get("torch_dtype"):
        if str(dtype).removeprefix("torch.") not in DTYPES:
            raise HubError(f"{name}: `dtype` is {dtype!r}; weights are read that are {', '.join(DTYPES)}")
        stock["dtype"] = dtype
    if family == "mistral" and _is_official(config):
        stock["sliding_window"] = None
    return stock


def _rope(config: Mapping[str, Any], family: str, name: str) -> dict[str, Any]:
    """Stock `rope_parameters`."""
    scaling = _without_echoes(config.get("rope_scaling") or {})
    # Some writers copy the base into the block.
    copied = scaling.get("rope_theta")
    theta = _base(config.get("rope_theta") if copied is None else copied, name)
    if not scaling:
        return {"rope_type": "default", "rope_theta": theta}
    kind = scaling.get("rope_type") or scaling.get("type")
    if kind == "su":  # as Phi-3's first files call it
        kind = "longrope"
    if kind in STOCK:
        _only(scaling, STOCK[kind], name)
        return {**{k: v for k, v in scaling.items() if k != "type"}, "rope_type": kind, "rope_theta": theta}
    if kind == "yarn":
        return _yarn(scaling, theta, family, name, official=_is_official(config))
    if kind in ("linear", "dynamic"):
        _only(scaling, {"factor", *(WRITTEN_ALWAYS if kind == "linear" else ())}, name)
        # Its frequencies need no window, whoever extends the model further does.
        window = {key: value for key, value in scaling.items() if key == "original_max_position_embeddings"}
        return {"rope_type": kind, "rope_theta": theta, "factor": _number(scaling, "factor", name), **window}
    if kind == "ntk":  # the base itself is larger (LlamaNTKScaledRotaryEmbedding.py:6)
        _only(scaling, {"factor", *WRITTEN_ALWAYS}, name)
        head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        larger = theta * _number(scaling, "factor", name) ** (head_dim / (head_dim - 2))
        return {"rope_type": "default", "rope_theta": larger}
    if kind == "default":
        return {"rope_type": "default", "rope_theta": theta}
    raise HubError(
        f"{name}: `rope_scaling.type: {kind}` is not supported: no method of `rope` has these frequencies. Declare the "
        "model that it was made from"
    )


def _without_echoes(scaling: Mapping[str, Any]) -> dict[str, Any]:
    """A block without vLLM's names for the attention factor, where they say what `attention_factor` says."""
    factor = scaling.get("attention_factor")
    if factor is None:
        return dict(scaling)
    usual = 0.1 * math.log(max(scaling.get("factor") or 1.0, 1.0)) + 1.0  # of vLLM's yarn, which multiplies it
    said = {"short_mscale": factor, "long_mscale": factor, "attn_factor": factor / usual}
    return {k: v for k, v in scaling.items() if k not in said or not math.isclose(v, said[k], rel_tol=1e-6)}


def _check_one_rope(config: Mapping[str, Any], family: str, name: str) -> None:
    """HubError if the older keys say something else than `rope_parameters`, which the stock class would read alone."""
    blocks = config["rope_parameters"]
    block = blocks.get("full_attention", blocks)
    older: dict[str, Any] = dict(config.get("rope_scaling") or {})
    if "type" in older or "rope_type" in older:
        older["rope_type"] = older.get("rope_type") or older["type"]
    if config.get("rope_theta") is not None:
        older.setdefault("rope_theta", config["rope_theta"])
    for key, value in older.items():
        if key != "type" and value is not None and block.get(key, value) != value:
            raise HubError(
                f"{name}: `rope_parameters` has {key}: {block[key]}, the older keys (`rope_scaling`, `rope_theta`) "
                f"have {value}. Keep the one that the model was trained with"
            )
    if "rope_type" in older and "rope_type" not in block and older["rope_type"] != "default":
        raise HubError(f"{name}: `rope_scaling` is of type {older['rope_type']}, `rope_parameters` of none")


def _check_numbers(config: Mapping[str, Any], name: str) -> None:
    """HubError for a size, or a number of a rope, that is none: the stock class computes with it unasked."""
    for key in SIZES:
        value = config.get(key)
        if isinstance(value, str | float | int) and not (type(value) is int and value > 0):
            raise HubError(f"{name}: `{key}` is {value!r} and has to be a whole number above 0")
    for where in ("rope_parameters", "rope_scaling"):
        blocks = config.get(where) or {}
        for block in [blocks, *(value for value in blocks.values() if isinstance(value, Mapping))]:
            for key in POSITIVE:
                if (where, key) == ("rope_scaling", "rope_theta"):
                    _base(block.get(key), name)
                elif block.get(key) is not None:
                    _number(block, key, name, where)


def _is_official(config: Mapping[str, Any]) -> bool:
    """Whether a yarn block was written for the official classes and not for today's transformers.

    `finetuned` is a key of theirs alone; the camera-ready's LLaMA-1 release lacks it but names their file.
    """
    scaling = config.get("rope_scaling") or {}
    files = " ".join(str(value) for value in (config.get("auto_map") or {}).values())
    kind = scaling.get("rope_type") or scaling.get("type")
    return kind == "yarn" and config.get("model_type") in OFFICIAL and ("finetuned" in scaling or "_yarn." in files)


def _yarn(scaling: Mapping[str, Any], theta: float, family: str, name: str, *, official: bool) -> dict[str, Any]:
    factor = _number(scaling, "factor", name)
    common = {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": int(_number(scaling, "original_max_position_embeddings", name)),
    }
    if not official:
        _only(scaling, {"factor", "original_max_position_embeddings", *STOCK_YARN_KEYS}, name)
        return {**common, "rope_theta": theta, **{k: v for k, v in scaling.items() if k in STOCK_YARN_KEYS}}
    _only(scaling, {"factor", *WRITTEN_ALWAYS}, name)
    constants = OFFICIAL[family]
    return {
        **common,
        # No base is passed to the class, which then takes 10,000 whatever rope_theta says (_init_rope of
        # modeling_llama_yarn.py:494-499 and of modeling_mistral_yarn.py).
        "rope_theta": DEFAULT_THETA,
        "beta_fast": float(constants.beta_fast),
        "beta_slow": float(constants.beta_slow),
        "truncate": True,
        "attention_factor": constants.attention_factor(factor),
    }


def _base(theta: object, name: str) -> float:
    """`rope_theta`, however the number is written; the default where there is none."""
    if theta is None:
        return DEFAULT_THETA
    if isinstance(theta, str):
        with suppress(ValueError):
            theta = float(theta)
    return _positive(theta, "rope_theta", name)


def _number(block: Mapping[str, Any], key: str, name: str, where: str = "rope_scaling") -> float:
    return _positive(block.get(key), f"{where}.{key}", name)


def _positive(value: object, key: str, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise HubError(f"{name}: `{key}` is {value!r} and has to be a number above 0")
    return float(value)


def _only(scaling: Mapping[str, Any], known: set[str], name: str) -> None:
    """A key that is not understood could change the frequencies."""
    if unknown := sorted(scaling.keys() - known - {"type", "rope_type", "rope_theta"}):
        kind = scaling.get("rope_type") or scaling.get("type")
        raise HubError(f"{name}: `rope_scaling.{unknown[0]}` is not known for type {kind}")
