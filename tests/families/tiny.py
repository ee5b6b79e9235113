"""Small random models of many families as the hub would serve them, and what a user declares of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from yarnlab.rope import Rope, make_rope
from yarnlab.study.schema import Architecture

CONTEXT, VOCABULARY, TOLERANCE = 64, 96, 1e-4
GROUPED = {"num_key_value_heads": 2}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
PLAIN = {"rope_type": "default", "rope_theta": 10000.0}
LATENT = {
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 12,
    "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "n_shared_experts": 1,
    "moe_intermediate_size": 16, "first_k_dense_replace": 1, "routed_scaling_factor": 1.0,
}  # fmt: skip
MIXED = {"sliding_window": 32, "layer_types": ["sliding_attention", "full_attention"]}
MAMBA = {
    **GROUPED, "head_dim": 8, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8,
    "mamba_chunk_size": 16, "mamba_n_groups": 1, "lm_head_multiplier": 0.25, "pad_token_id": 2,
}  # fmt: skip
# name → what a small config of the family (its first word) needs beyond the sizes that all share. All are supported.
SUPPORTED: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {**GROUPED, "sliding_window": 32},
    "qwen2": {**GROUPED, "tie_word_embeddings": True},
    "qwen3": {**GROUPED, "head_dim": 16, "tie_word_embeddings": True},
    "granite": {"logits_scaling": 8.0, "embedding_multiplier": 12.0, "attention_multiplier": 0.25},
    "cohere": {"logit_scale": 0.25, "tie_word_embeddings": True},
    "cohere2": {"logit_scale": 0.25, "sliding_window": 32, "head_dim": 8, "tie_word_embeddings": True},
    "olmo2": {},
    "olmo3": MIXED,
    "gemma": {"head_dim": 8, "tie_word_embeddings": True},
    "gemma2": {
        "head_dim": 8, "sliding_window": 32, "final_logit_softcapping": 5.0, "attn_logit_softcapping": 10.0,
        "query_pre_attn_scalar": 8, "tie_word_embeddings": True,
    },
    "gemma3_text": {**MIXED, "head_dim": 8, "query_pre_attn_scalar": 8, "tie_word_embeddings": True},
    "glm": {"head_dim": 8, "partial_rotary_factor": 0.5, "pad_token_id": 2},
    "glm4": {"head_dim": 8, "partial_rotary_factor": 0.5, "pad_token_id": 2},
    "phi": {"partial_rotary_factor": 0.5},
    "phi whole": {"partial_rotary_factor": 1.0},
    "phi3": {"pad_token_id": 2},
    "phi3 partial": {"pad_token_id": 2, "partial_rotary_factor": 0.75, "hidden_size": 64},
    "gpt_neox": {"rotary_pct": 0.25, "hidden_size": 64, "attention_dropout": 0.0, "hidden_dropout": 0.0},
    "stablelm": {"partial_rotary_factor": 0.5},
    "nemotron": {"partial_rotary_factor": 0.5},
    "persimmon": {"partial_rotary_factor": 0.5},
    "starcoder2": {**GROUPED, "tie_word_embeddings": True, "residual_dropout": 0.0},
    "smollm3": {**GROUPED, "no_rope_layers": [1, 0], "pad_token_id": 2, "tie_word_embeddings": True},
    "ernie4_5": {**GROUPED, "head_dim": 8, "tie_word_embeddings": True},
    "helium": {"head_dim": 8},
    "exaone4": {**GROUPED, **MIXED},
    "seed_oss": {"head_dim": 8, "attention_dropout": 0.0, "residual_dropout": 0.0},
    "nanochat": {"final_logit_softcapping": 1.0},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    "qwen2_moe": {**EXPERTS, "shared_expert_intermediate_size": 16},
    "qwen3_moe": {**EXPERTS, "head_dim": 8},
    "granitemoe": {"logits_scaling": 8.0, "num_local_experts": 4, "num_experts_per_tok": 2},
    "deepseek_v3": LATENT,
    "deepseek_v2": LATENT,  # cos + i·sin in one table
    "glm4_moe": {
        **GROUPED, "head_dim": 8, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
        "n_shared_experts": 1, "moe_intermediate_size": 16, "first_k_dense_replace": 1, "partial_rotary_factor": 0.5,
    },
    "gpt_oss": {
        **GROUPED, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 32,
        "rope_parameters": PLAIN,
    },
    "gpt_oss whole": {
        **GROUPED, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 4096,
        "layer_types": ["full_attention", "full_attention"], "rope_parameters": PLAIN,
    },
    "falcon_h1": MAMBA,  # with a bound of infinity, which config.json writes in a way of its own
    "ministral3": {
        **GROUPED, "head_dim": 8, "max_position_embeddings": 4 * CONTEXT,
        "rope_parameters": {
            "rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": CONTEXT,
            "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1,
        },
    },
}  # fmt: skip
UNDROPPED = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0, "summary_first_dropout": 0.0}
# name → (settings, a word of the message that refuses it).
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "gptj": ({"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": 64, **UNDROPPED}, "rope"),
    "phimoe": (
        {
            "num_hidden_layers": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": CONTEXT,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "rope_parameters": PLAIN,
        },
        "compute its frequencies anew",
    ),
    "gemma4_text": (
        {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "global_head_dim": 32,
            "layer_types": ["sliding_attention", "full_attention"],
            "hidden_size_per_layer_input": 0,
        },
        "its layers differ in `head_dim`",
    ),
    "falcon": ({"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4}, "intermediate_size"),
    "gpt2": ({"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, **UNDROPPED}, "rope"),
}
SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 4, "vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT, "bos_token_id": 0,
    "eos_token_id": 1,
}  # fmt: skip


def stock_config(name: str, settings: dict[str, Any] | None = None) -> Any:
    from transformers import AutoConfig

    settings, family = SUPPORTED[name] if settings is None else settings, name.partition(" ")[0]
    default = AutoConfig.for_model(family)
    sizes = {key: value for key, value in SIZES.items() if hasattr(default, key)}
    return AutoConfig.for_model(family, **{"tie_word_embeddings": False, **sizes, **settings})


def publish(folder: Path, config: Any) -> Path:
    """Random weights, none of them zero, and the config that transformers writes."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():  # sharper than at initialisation, so that differences show
            parameter.copy_(parameter * 4 if parameter.abs().max() > 0 else torch.randn_like(parameter) * 0.5)
    model.save_pretrained(folder)
    return folder


def shape(config: Any) -> Architecture:
    """What a user reads in config.json and writes into the study."""
    blocks = config.rope_parameters or {}
    block = blocks.get("full_attention", blocks)
    heads, share = config.num_attention_heads, block.get("partial_rotary_factor", 1.0)
    return Architecture(
        family=config.model_type,
        hidden_size=config.hidden_size,
        intermediate_size=getattr(config, "intermediate_size", 4 * config.hidden_size),
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=heads,
        num_key_value_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        original_context=CONTEXT,
        rope_theta=block.get("rope_theta") or 10000.0,
        tie_word_embeddings=config.tie_word_embeddings,
        partial_rotary_factor=None if share == 1 else share,
    )


def rope(declared: Architecture, method: str, scale: float = 1.0, **options: Any) -> Rope:
    shared = {"original_context": CONTEXT, "head_dim": declared.rotary_dim, "base": declared.rope_theta}
    return make_rope(method, scale=scale, **shared, **options)


def ids_of(length: int) -> torch.Tensor:
    return torch.randint(3, VOCABULARY, (1, length), generator=torch.Generator().manual_seed(1))


def stock_nll(folder: Path, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(NLL of each token, logits of the last four), by stock transformers from the folder alone."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    ids = ids_of(length)
    with torch.no_grad():
        logits = model(ids, use_cache=False).logits.float()[0]
    return torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="none"), logits[-4:]
