"""Whether a RoPE method takes the options that a study gives it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from yarnlab.rope import check_options, make_rope
from yarnlab.study.fields import KeyPath, Problem

if TYPE_CHECKING:
    from yarnlab.study.schema import Architecture


def rope_problem(
    at: KeyPath, method: str, scale: float, options: Mapping[str, Any], shape: Architecture
) -> Problem | None:
    """What keeps a method with these options from models of this shape; the key is that of the option where it is one.

    Args:
        at: the key of the section that holds the options.
    """
    for key in options:
        try:
            check_options(method, [key])
        except ValueError as error:
            return (*at, key), str(error)
    try:
        make_rope(
            method,
            scale=scale,
            original_context=shape.original_context,
            head_dim=shape.rotary_dim,
            base=shape.rope_theta,
            **options,
        )
    except (TypeError, ValueError) as error:  # a method of the user's own may lack an option, or compare with a text
        return at, str(error)
    return None
