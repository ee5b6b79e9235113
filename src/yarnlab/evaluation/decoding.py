"""How answers are generated: options of transformers' `generate`, and where the key-value cache is kept meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from yarnlab.lazy import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# The official call sets no decoding option, so the checkpoint's generation_config rules: the released ones sample with
# these values, top_k being the default of transformers that they leave in place.
DECODING: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "released": {"do_sample": True, "temperature": 0.6, "top_k": 50, "top_p": 0.9},
}
# Of a GPU's memory that a cache may take; 131,072 tokens of a 13B model's are 107 GB. A larger one goes to host
# memory, two layers at a time on the GPU.
SHARE = 0.25


def is_offloaded(cache_bytes: float, device_bytes: float) -> bool:
    """Whether a cache of this size is kept in host memory."""
    return cache_bytes > SHARE * device_bytes


def cache_options(model: PreTrainedModel, tokens: int) -> dict[str, Any]:
    """Options of transformers' `generate` for a sequence that grows to `tokens` tokens: nothing on a CPU or where the
    cache is small, else the cache that keeps only the layers in use on the GPU. What is generated is the same.
    """
    if model.device.type != "cuda":
        return {}
    config = model.config
    width = config.num_key_value_heads * (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    size = 2 * config.num_hidden_layers * width * tokens * model.dtype.itemsize
    memory = torch.cuda.get_device_properties(model.device).total_memory
    return {"cache_implementation": "offloaded"} if is_offloaded(size, memory) else {}
