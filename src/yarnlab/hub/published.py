"""Configs of published checkpoints in the form that stock transformers reads today.

The released YaRN checkpoints carry `rope_scaling` blocks for code of their own. What that code computed is written
here as stock `rope_parameters`; that the frequencies agree is checked when a checkpoint is adopted
(modeling.check_config) and, against the official classes' values, in the tests.
"""

from __future__ import annotations

import math
from typing import Any

from yarnlab.hub.api import HubError

# Keys of the repositories' own code, which is never run.
DROPPED = (
    "auto_map",
    "rope_scaling",
    "rope_theta",
    "transformers_version",
    "_name_or_path",
    "use_cache",
    "torch_dtype",
    "architectures",
    "pretraining_tp",
    "_flash_attn_2_enabled",
    "max_sequence_length",
)
MISTRAL_SLOPE, MISTRAL_ALPHA, MISTRAL_BETA = 0.07, 2, 128  # modeling_mistral_yarn.py:147-150, 254


def translate_config(config: dict[str, Any]) -> dict[str, Any]:
    """A config.json as keyword arguments of the stock config class, `model_type` among them.

    Raises HubError for a rope that has no stock form here.
    """
    kept = {key: value for key, value in config.items() if key not in DROPPED}
    family = config.get("model_type")
    if family is None:
        raise HubError("config.json has no model_type")
    if "rope_parameters" not in config:
        kept["rope_parameters"] = _rope(config, str(family))
    dtype = config.get("dtype") or config.get("torch_dtype")
    return kept | ({"dtype": dtype} if dtype else {})


def _rope(config: dict[str, Any], family: str) -> dict[str, Any]:
    theta = float(config.get("rope_theta") or 10000.0)
    scaling = config.get("rope_scaling")
    if not scaling:
        return {"rope_type": "default", "rope_theta": theta}
    kind = scaling.get("rope_type") or scaling.get("type")
    if kind in ("linear", "dynamic"):
        return {"rope_type": kind, "rope_theta": theta, "factor": float(scaling["factor"])}
    if kind == "ntk":  # the official NTK-aware class: the base itself is larger (train.sh:46-52)
        head_dim = config["hidden_size"] // config["num_attention_heads"]
        return {"rope_type": "default", "rope_theta": theta * float(scaling["factor"]) ** (head_dim / (head_dim - 2))}
    if kind != "yarn":
        if "rope_type" in scaling:  # a block of today's transformers
            return {**scaling, "rope_theta": theta}
        raise HubError(f"config.json: rope_scaling type {kind!r} has no stock form that is known here")
    factor = float(scaling["factor"])
    original = scaling.get("original_max_position_embeddings")
    if original is None:
        raise HubError(
            "config.json: rope_scaling has no original_max_position_embeddings, without which YaRN is undefined"
        )
    yarn = {
        "rope_type": "yarn",
        "rope_theta": theta
        if family == "mistral"
        else 10000.0,  # the official Llama class ignores rope_theta (:494-499)
        "factor": factor,
        "original_max_position_embeddings": int(original),
    }
    if "finetuned" not in scaling:
        return {**yarn, **{k: v for k, v in scaling.items() if k not in ("type", "rope_type")}, "rope_theta": theta}
    if family == "mistral":
        slope = MISTRAL_SLOPE * math.log(factor) + 1.0 if factor > 1 else 1.0
        yarn |= {"beta_slow": MISTRAL_ALPHA, "beta_fast": MISTRAL_BETA, "attention_factor": slope}
    return yarn
