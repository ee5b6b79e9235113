"""Real and tiny shapes of models."""

from __future__ import annotations

from yarnlab.study.schema import Architecture

LLAMA_2_7B = Architecture(
    family="llama",
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=32,
    head_dim=128,
    original_context=4096,
    rope_theta=10000.0,
    tie_word_embeddings=False,
)
LLAMA_2_13B = LLAMA_2_7B.model_copy(
    update={
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
        "num_key_value_heads": 40,
    }
)
MISTRAL_7B = LLAMA_2_7B.model_copy(
    update={"family": "mistral", "intermediate_size": 14336, "num_key_value_heads": 8, "original_context": 8192}
)


def tiny(*, tied: bool, groups: int) -> Architecture:
    return Architecture(
        family="llama",
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4 // groups,
        head_dim=16,  # 4 × 16 is not the hidden size
        original_context=64,
        rope_theta=10000.0,
        tie_word_embeddings=tied,
    )


def model_of(shape: Architecture, vocab_size: int):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        **shape.model_dump(exclude={"family", "original_context", "rope_theta"}),
        vocab_size=vocab_size,
        attn_implementation="eager",
        use_cache=False,
    )
    return LlamaForCausalLM(config)
