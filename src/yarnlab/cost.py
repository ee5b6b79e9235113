"""What training costs: floating-point operations in closed form, and what a machine can do at most.

Two conventions, both reported: *causal* counts attention over the lower triangle, which is what is computed;
*palm* counts the full square, as the PaLM paper and most published utilisation figures do.
"""

from __future__ import annotations

import time

from yarnlab.study.schema import Architecture

# Dense bf16 peak in FLOP/s by what torch calls the device; other devices are measured.
PEAK_BF16 = {
    "NVIDIA H100 80GB HBM3": 989.4e12,
    "NVIDIA H200": 989.4e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
}


def parameters(shape: Architecture, vocab_size: int) -> int:
    """Trainable parameters of a Llama with tied embeddings."""
    norms = (2 * shape.num_hidden_layers + 1) * shape.hidden_size
    return matmul_parameters(shape) + vocab_size * shape.hidden_size + norms


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


def peak_flops() -> tuple[float, str]:
    """The bf16 peak of this process's device in FLOP/s, and where the number is from.

    A GPU's is its published one; a CPU's is the best of several large matrix products with the threads in force.
    """
    import torch

    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        if name in PEAK_BF16:
            return PEAK_BF16[name] * torch.cuda.device_count(), f"published for {name}"
    size = 1024
    a = torch.ones(size, size, dtype=torch.bfloat16)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best, f"measured: {size}x{size} bf16 product, {torch.get_num_threads()} threads"
