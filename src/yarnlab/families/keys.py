"""Keys of a config that would be passed over: those that nobody reads, and dropout."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Mapping
from typing import Any


def unread_keys(config: Any, values: Mapping[str, Any]) -> list[str]:
    """Keys of `values`, of which `config` was made, that neither its class nor its family's code mentions.

    A config class keeps what it does not know as an attribute, which no model reads. Keys that are off (false, 0,
    empty) are none of them.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, modeling_rope_utils

    kind = type(config)
    own, kept = vars(kind()), vars(config)  # what the class sets by itself, it knows
    code = inspect.getsource(modeling_rope_utils)
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING:  # a model may ask for a key that its config class does not declare
        code += inspect.getsource(sys.modules[MODEL_FOR_CAUSAL_LM_MAPPING[kind].__module__])
    return sorted(
        key
        for key, value in values.items()
        if value and key in kept and key not in own and not hasattr(kind, key) and key not in config.attribute_map
        and not re.search(rf"\b{re.escape(key)}\b", code)
    )  # fmt: skip


def dropout(config: Any) -> list[str]:
    """Keys of a config by which training would drop values at random."""
    return sorted(
        key
        for key, value in vars(config).items()
        if "drop" in key and not key.startswith(("classifier", "_")) and isinstance(value, float) and value > 0
    )
