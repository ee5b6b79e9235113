"""The parts of a causal model that this project computes with, wherever a family keeps them."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yarnlab.errors import UserError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


class UnsupportedModel(UserError):
    """A model that can't be computed with here as stock transformers does; the message names the reason."""


def place(error: Exception) -> str:
    """Where an error of a family's own code came up: file and line of transformers, and the error's class.

    What such an error says is about that code's variables and helps nobody who has a config.
    """
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames if "transformers" in frame.filename]
    where = theirs[-1] if theirs else "its code"
    return f"{where}, {type(error).__name__}"


def decoder(model: PreTrainedModel) -> Any:
    """Embeddings, `layers`, final norm and the one `rotary_emb`: token ids → hidden states.

    Raises UnsupportedModel for a family without one of the two.
    """
    found = model.base_model
    for part in ("rotary_emb", "layers"):
        if getattr(found, part, None) is None:
            raise UnsupportedModel(
                f"family {model.config.model_type} can't be extended here: {type(found).__name__} has no `{part}`, so "
                "its rotary embedding, if it has one, is not one table for the layers of a decoder"
            )
    return found


def experts(config: Any) -> str:
    """The key of a config by which layers have several MLPs that a router chooses from; empty if they have one."""
    keys = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
    return next((key for key in keys if isinstance(n := getattr(config, key, None), int) and n > 1), "")


def head_dim(config: Any) -> int:
    """Dimensions of a head of a config's attention. Raises UnsupportedModel for a config that does not say."""
    try:
        return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    except AttributeError as error:
        raise UnsupportedModel(
            f"family {config.model_type}: its config has no `{error.name}`, so nothing says how wide its heads are"
        ) from error


def head(model: PreTrainedModel) -> nn.Linear:
    """The linear map from hidden states to logits. Raises UnsupportedModel for a family without one."""
    from torch import nn

    found = model.get_output_embeddings()
    if not isinstance(found, nn.Linear):
        raise UnsupportedModel(f"family {model.config.model_type}: its head is {type(found).__name__}, not one matrix")
    return found
