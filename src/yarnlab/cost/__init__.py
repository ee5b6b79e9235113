"""What computing costs, in closed form: operations and parameters of a Llama-shaped model here, memory in `memory`, and
what a device offers in `devices`.

Two conventions of counting, both reported: *causal* counts attention over the lower triangle, which is what is
computed; *palm* counts the full square, as the PaLM paper and most published utilisation figures do.
"""

from __future__ import annotations

from yarnlab.study.schema import Architecture


def parameters(shape: Architecture, vocab_size: int) -> int:
    """Weights of a Llama: layers, norms, the embedding, and the output head unless that is the embedding's."""
    norms = (2 * shape.num_hidden_layers + 1) * shape.hidden_size
    matrices = 1 if shape.tie_word_embeddings else 2
    return matmul_parameters(shape) + matrices * vocab_size * shape.hidden_size + norms


def matmul_parameters(shape: Architecture) -> int:
    """Weights of the layers' matrix products (projections and MLP), without the output head."""
    attention = shape.hidden_size * shape.head_dim * 2 * (shape.num_attention_heads + shape.num_key_value_heads)
    return shape.num_hidden_layers * (attention + 3 * shape.hidden_size * shape.intermediate_size)


def forward_flops(shape: Architecture, vocab_size: int, seq_len: int, *, causal: bool) -> float:
    """FLOPs of one forward pass over one sequence: 2 per weight and token, 4·N·d·layers of attention per token."""
    dense = 2 * (matmul_parameters(shape) + shape.hidden_size * vocab_size) * seq_len
    width = shape.num_attention_heads * shape.head_dim
    # A triangle of N positions has N(N+1)/2 query-key pairs.
    pairs = seq_len * (seq_len + 1) / 2 if causal else seq_len**2
    return dense + 4 * width * shape.num_hidden_layers * pairs


def training_flops(shape: Architecture, vocab_size: int, seq_len: int, *, causal: bool) -> float:
    """Forward and backward of one sequence: three times the forward pass (no recomputation counted)."""
    return 3 * forward_flops(shape, vocab_size, seq_len, causal=causal)
