"""A rope in a model's config: which of its keys are the method's, which the family's own, and what they make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from yarnlab.families.parts import UnsupportedModel, decoder
from yarnlab.families.rotary import FULL
from yarnlab.rope import Rope

if TYPE_CHECKING:
    from torch import nn

# Keys of a block of `rope_parameters` that belong to its method; others are the family's and stay (the share of a head
# that turns, what else depends on the position).
METHOD_KEYS = {
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "factor",
    "finetuned",
    "high_freq_factor",
    "long_factor",
    "low_freq_factor",
    "original_max_position_embeddings",
    "rope_theta",
    "rope_type",
    "short_factor",
    "truncate",
    "type",
}
# DeepSeek's: attention multiplies its scores by (0.1·mscale_all_dim·ln s + 1)², s being the block's `factor`.
SOFTMAX_KEYS = ("mscale", "mscale_all_dim")


def stock_block(config: Any) -> dict[str, Any]:
    """The block of `rope_parameters` that a method replaces: that of full attention, where layers have several.

    Raises UnsupportedModel where there is none.
    """
    blocks: Any = getattr(config, "rope_parameters", None) or {}
    if blocks and config.nested_rope_parameter_keys(blocks):
        blocks = blocks.get(FULL)
    if not blocks or blocks.get("rope_theta") is None:
        raise UnsupportedModel(
            f"family {config.model_type}: the config gives {FULL} layers no rope that could be extended"
        )
    found: dict[str, Any] = blocks
    return found


def declare(config: Any, rope: Rope) -> None:
    """Write `rope` into a config, for the layers that it is put in force in.

    Raises ValueError for a rope without a stock form, UnsupportedModel for a config without a rope to replace.
    """
    block = stock_block(config)
    made = rope.to_hf()
    kept = {key: value for key, value in block.items() if key not in METHOD_KEYS}
    if made["rope_type"] != "yarn" or not _scales_softmax(config):  # elsewhere `attention_factor` says it all
        kept = {key: value for key, value in kept.items() if key not in SOFTMAX_KEYS}
    _put(config, kept | made)
    if hasattr(config, "original_max_position_embeddings"):  # of Phi-3, whose own key goes before the block's
        config.original_max_position_embeddings = rope.original_context
    config.max_position_embeddings = rope.context
    if getattr(config, "head_dim", 0) is None:  # some of transformers' rope types multiply it
        config.head_dim = config.hidden_size // config.num_attention_heads
    if (why := _refused(config)) and not rope.dynamic:  # Phi-3's config takes no type but this one
        _put(config, kept | rope.as_factors())
        why = _refused(config)
    if why:
        raise UnsupportedModel(f"family {config.model_type}: its config refuses a rope of method {rope.method}: {why}")


def _put(config: Any, block: dict[str, Any]) -> None:
    nested = config.nested_rope_parameter_keys(config.rope_parameters)
    config.rope_parameters = {**config.rope_parameters, FULL: block} if nested else block


def _refused(config: Any) -> str:
    """Why the family's own config class does not take the rope in it; empty if it does."""
    try:
        config.validate_rope()
    except Exception as error:  # of a class for each family
        return str(error)
    return ""


def check_softmax_scale(config: Any, rope: Rope) -> None:
    """UnsupportedModel if a rope in place of the config's own would need another softmax scale than the model has."""
    block = stock_block(config)
    if _scales_softmax(config) and block.get("mscale_all_dim") and rope.scale != block.get("factor", 1.0):
        raise UnsupportedModel(
            f"`mscale_all_dim` of the config scales attention's softmax for a factor of {block.get('factor')}: a rope "
            f"of scale {rope.scale:g} can't be put in its place. Make it a model of its own (`from:` with this `rope`)"
        )


def _scales_softmax(config: Any) -> bool:
    """Whether the family's attention reads `mscale_all_dim`: those with multi-latent attention do."""
    return hasattr(config, "qk_rope_head_dim")


def stock_rotary(config: Any) -> nn.Module:
    """The rotary module that transformers itself builds for this config. Raises UnsupportedModel if it builds none."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        module: nn.Module = type(decoder(model).rotary_emb)(config=config)
    except UnsupportedModel:
        raise
    except Exception as error:
        raise UnsupportedModel(f"family {config.model_type}: transformers can't build it: {error}") from error
    return module
