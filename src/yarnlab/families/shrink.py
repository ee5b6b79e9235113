"""A small config that computes as a large one does: every kind of layer once, few heads of the same width, few words.

What a rope sees stays as it is: head_dim and the block of `rope_parameters`. Of the rest, sizes become small and
settings (scales, caps, windows, activations) stay.
"""

from __future__ import annotations

import copy
from typing import Any

VOCABULARY = 64
LAYERS = 4  # where nothing in the config says which layers differ: of several periods, such as every second or fourth
WINDOW = 8  # of sliding layers, below the length of the inputs that the two are compared on
# Key of a config → its small value. A family has some of them; none is larger than before.
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 48,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "shared_intermediate_size": 16,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_k": 2,
    "moe_topk": 2,
    "n_group": 1,
    "topk_group": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "mamba_d_ssm": 64,
    "mamba_n_heads": 4,
    "mamba_d_state": 8,
    "mamba_chunk_size": 8,
    "sliding_window": WINDOW,
    "attention_chunk_size": WINDOW,
    "vocab_size": VOCABULARY,
}
IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def shrunken(config: Any) -> Any:
    """A small config of the same class and settings; `config` is left alone."""
    small: dict[str, Any] = copy.deepcopy(config.to_dict())
    heads = config.num_attention_heads
    shared = getattr(config, "num_key_value_heads", None) or heads
    small["num_attention_heads"] = 4
    if "num_key_value_heads" in small:
        small["num_key_value_heads"] = 4 if shared == heads else 1 if shared == 1 else 2
    for key, size in SIZES.items():
        if isinstance(value := small.get(key), int) and not isinstance(value, bool):
            small[key] = min(value, size)
    if "mamba_d_ssm" in small:
        small["mamba_d_head"] = small["mamba_d_ssm"] // small["mamba_n_heads"]
    ratio = config.hidden_size // heads
    if small.get("head_dim") in (None, ratio) or "qk_rope_head_dim" in small:  # a family may compute one from the other
        small["hidden_size"] = 4 * ratio
    if "head_dim" in small and small["head_dim"] is None:
        small["head_dim"] = ratio
    _shorten(small, config.num_hidden_layers)
    for key in IDS:  # a row of the embedding, or none
        if small.get(key) is not None:
            small[key] = 0
    for key in ("architectures", "model_type", "transformers_version", "dtype", "torch_dtype"):
        small.pop(key, None)
    made = type(config)(**small)
    made._attn_implementation = "eager"
    return made


def _shorten(small: dict[str, Any], layers: int) -> None:
    """Keep the first layer of each kind, in order, as lists with one entry a layer tell kinds apart."""
    lists = [key for key, value in small.items() if isinstance(value, list) and len(value) == layers]
    kinds: dict[tuple[str, ...], int] = {}
    for layer in range(layers):
        kinds.setdefault(tuple(str(small[key][layer]) for key in lists), layer)
    first = sorted(kinds.values())
    if len(first) == 1:
        first = list(range(min(layers, LAYERS)))
    for key in lists:
        small[key] = [small[key][layer] for layer in first]
    small["num_hidden_layers"] = len(first)
    dense = small.get("first_k_dense_replace")
    if dense is not None:
        small["first_k_dense_replace"] = min(dense, len(first) - 1)
