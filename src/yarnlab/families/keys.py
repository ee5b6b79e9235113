"""Keys of a config that would be passed over: those that its class does not read, and dropout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Read by transformers of every config with a rope.
ROPE_KEYS = ("original_max_position_embeddings", "partial_rotary_factor", "rope_local_base_freq", "rope_theta")


def unread_keys(config: Any, values: Mapping[str, Any]) -> list[str]:
    """Keys that `config`, which was made of `values`, does not know; those that are off (false, 0, empty) are none.

    A config class keeps what it does not know as an attribute, which no model reads.
    """
    kind = type(config)
    known = {*ROPE_KEYS, *config.attribute_map, *vars(kind())}  # what the class sets by itself, it knows
    kept = vars(config)
    return sorted(
        key for key, value in values.items() if value and key in kept and key not in known and not hasattr(kind, key)
    )


def dropout(config: Any) -> list[str]:
    """Keys of a config by which training would drop values at random."""
    return sorted(
        key
        for key, value in vars(config).items()
        if ("drop" in key or key.endswith("pdrop")) and not key.startswith(("classifier", "_"))
        and isinstance(value, float) and value > 0
    )  # fmt: skip
