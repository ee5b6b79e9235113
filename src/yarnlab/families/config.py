"""A rope in a model's config: which of its keys are the method's, which the family's own, and what they make."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from yarnlab.families.config_file import WORDS
from yarnlab.families.parts import UnsupportedModel, decoder, head_dim
from yarnlab.families.rotary import FULL
from yarnlab.rope import METHODS, Rope, Temperature, make_rope, options

if TYPE_CHECKING:
    from torch import Tensor, nn

# Keys of a block of `rope_parameters` that belong to its method; others are the family's and stay (the share of a head
# that turns, what else depends on the position).
METHOD_KEYS = {
    *WORDS,
    *(option for method in METHODS for option in options(method)),
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "factor",
    "finetuned",
    "original_max_position_embeddings",
    "rope_theta",
    "rope_type",
    "type",
}
# DeepSeek's: attention multiplies its scores by (0.1·mscale_all_dim·ln s + 1)², s being the block's `factor`.
SOFTMAX_KEYS = ("mscale", "mscale_all_dim")


def stock_block(config: Any) -> dict[str, Any]:
    """The block of `rope_parameters` that a method replaces: that of full attention, where layers have several.

    Raises UnsupportedModel where there is none, and for layers that differ in shape (Gemma 4): keys that say so can't
    be read from the whole config (transformers' integrations/heterogeneity).
    """
    if varying := sorted(getattr(config, "per_layer_attributes", None) or ()):
        raise UnsupportedModel(
            f"family {config.model_type}: its layers differ in {', '.join(f'`{key}`' for key in varying)}, and a "
            "study's `architecture` and `rope` are one for all layers"
        )
    blocks: Any = getattr(config, "rope_parameters", None) or {}
    if blocks and config.nested_rope_parameter_keys(blocks):
        blocks = blocks.get(FULL)
    if not blocks or blocks.get("rope_theta") is None:
        why = f"family {config.model_type}: the config gives {FULL} layers no rope that could be extended"
        if parts := ", ".join(f"`{part}`" for part in sorted(config.sub_configs)):
            why += f" at its top, only in its parts ({parts}): give the language model with a config of its own"
        raise UnsupportedModel(why)
    found: dict[str, Any] = blocks
    return found


def declare(config: Any, rope: Rope) -> None:
    """Write `rope` into a config, for the layers that it is put in force in.

    Raises UnsupportedModel for a config without a rope to replace, and for a family whose class refuses this one;
    ValueError for a method whose frequencies can't be written down.
    """
    block = stock_block(config)
    made = parameters(rope)
    kept = {key: value for key, value in block.items() if key not in METHOD_KEYS}
    if made["rope_type"] != "yarn" or not _scales_softmax(config):  # elsewhere `attention_factor` says it all
        kept = {key: value for key, value in kept.items() if key not in SOFTMAX_KEYS}
    _put(config, kept | made)
    if hasattr(config, "original_max_position_embeddings"):  # of Phi-3, whose own key goes before the block's
        config.original_max_position_embeddings = rope.original_context
    # transformers' dynamic types scale by l / max_position_embeddings.
    config.max_position_embeddings = rope.original_context if "dynamic" in made["rope_type"] else rope.context
    if getattr(config, "head_dim", 0) is None:  # some of transformers' rope types multiply it
        config.head_dim = config.hidden_size // config.num_attention_heads
    if (why := _refused(config)) and not rope.dynamic:  # Phi-3's config takes no type but this one
        _put(config, kept | rope.as_factors())
        why = _refused(config)
    if why:
        raise UnsupportedModel(f"family {config.model_type}: its config refuses a rope of method {rope.method}: {why}")


def parameters(rope: Rope) -> dict[str, Any]:
    """The `rope_parameters` of a rope: those of stock transformers or, where it has no such type, of the method's name.

    What stock transformers has none for depends on the length of the input. Under a name of its own it is refused by
    readers that would otherwise compute plain RoPE; `name_dynamic_types` makes transformers know it in this process.

    Raises ValueError for a method whose frequencies can't be written down.
    """
    try:
        return rope.to_hf()
    except ValueError:
        if not is_own_type(rope):
            raise
    given = {name: getattr(rope, name) for name in options(rope.method)}
    return {
        "rope_type": _own_type(rope.method),
        "rope_theta": rope.base,
        "factor": float(rope.scale),
        "original_max_position_embeddings": rope.original_context,
        **{name: _written(value) for name, value in given.items() if value is not None},
    }


def is_own_type(rope: Rope) -> bool:
    """Whether a rope is of a dynamic method for which stock transformers has no type."""
    if not (rope.dynamic and METHODS.get(rope.method) is type(rope)):
        return False
    try:
        rope.to_hf()
    except ValueError:
        return True
    return False


def _own_type(method: str) -> str:
    """transformers computes tables anew for types with this word in their name."""
    return method if "dynamic" in method else f"dynamic-{method}"


def _written(value: Any) -> Any:
    if isinstance(value, Temperature):
        return {key: given for key, given in asdict(value).items() if given is not None}
    return value


def name_dynamic_types() -> None:
    """Tell transformers of dynamic methods that it has no type for, so that this process loads their checkpoints."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    for method, kind in METHODS.items():
        if kind.dynamic:
            ROPE_INIT_FUNCTIONS.setdefault(_own_type(method), partial(_tables, method))


def _tables(
    method: str, config: Any, device: Any = None, seq_len: Any = None, layer_type: str | None = None
) -> tuple[Tensor, float]:
    """(inv_freq, attention factor) for an input of `seq_len` tokens, as transformers asks a rope type for them."""
    block = config.rope_parameters if layer_type is None else config.rope_parameters[layer_type]
    rope = make_rope(
        method,
        scale=block["factor"],
        original_context=block["original_max_position_embeddings"],
        head_dim=int(head_dim(config) * (block.get("partial_rotary_factor") or 1.0)),
        base=block["rope_theta"],
        **{name: block[name] for name in options(method) if name in block},
    )
    fixed = rope if seq_len is None else rope.at(int(seq_len))
    return fixed.inv_freq().to(device), fixed.attention_factor


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

    name_dynamic_types()
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        module: nn.Module = type(decoder(model).rotary_emb)(config=config)
    except UnsupportedModel:
        raise
    except Exception as error:
        raise UnsupportedModel(f"family {config.model_type}: transformers can't build it: {error}") from error
    return module
