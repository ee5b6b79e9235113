"""Peak memory of one device by component, in bytes (1 GB = 1e9), in closed form.

What is counted follows the code: chunked cross-entropy (training/loss.py, evaluation/nll.py), FSDP2 with one group per
layer and fp32 reduction, autocast where models are whole, per-layer activation checkpointing, flash kernels on a GPU,
and on a CPU attention by blocks, which keeps the probabilities of rows of up to LONG tokens (attention/). Components
add up to the peak: they are what lives at the worst moment, the backward pass through one layer.
"""

from __future__ import annotations

import math

from yarnlab.cost import matmul_parameters, parameters
from yarnlab.machine.choice import LONG
from yarnlab.study.schema import Architecture
from yarnlab.study.training import Train

LOSS_CHUNK = 1024  # positions whose logits exist at once in training and evaluation
GPU_RUNTIME = 1.5e9  # CUDA context, cuBLAS workspaces, NCCL buffers
CPU_RUNTIME = 0.5e9  # Python with torch and transformers loaded
HOST_RUNTIME = 3.5e9  # the same and CUDA's context and libraries, in host memory beside a GPU's
HELD_BACK = 0.05  # share of a device's memory that fragmentation makes useless

Components = dict[str, float]


def training(shape: Architecture, vocab_size: int, phase: Train, *, gpu: bool) -> tuple[Components, float]:
    """(components of one process's device memory, bytes of host memory that it takes beside them)."""
    parallel, weights = phase.parallel, parameters(shape, vocab_size)
    shards = parallel.world if parallel.sharding == "fsdp" else 1
    held = 2 if phase.precision == "pure-bf16" else 4
    compute = 4 if phase.precision == "fp32" else 2
    tokens = phase.micro_batch * phase.seq_len / parallel.context
    layer = matmul_parameters(shape) / shape.num_hidden_layers
    head = vocab_size * shape.hidden_size
    ends = head * (1 if shape.tie_word_embeddings else 2)
    autocast = parallel.sharding == "replicate" and compute != held
    found = {
        "weights": held * weights / shards,
        "gradients": held * weights / shards,
        "AdamW moments": 2 * held * weights / shards,
    }
    if parallel.sharding == "fsdp":
        # Two layers are gathered at a time (one computes, the next one arrives), and embedding and head all the while;
        # a layer's and the head's gradients are whole before they are reduced, in fp32.
        found["gathered layers"] = compute * (2 * layer + ends) + (compute + 4) * layer + 4 * head
    else:
        # Autocast keeps bf16 copies of the matrices; a message to other processes is a copy of all gradients.
        found["bf16 copies"] = compute * (matmul_parameters(shape) + head) if autocast else 0.0
        found["head's gradient"] = 4.0 * head
        found["gradient message"] = held * weights if parallel.world > 1 else 0.0
    activations, offloaded = _activations(shape, phase, tokens, compute, gpu=gpu, autocast=autocast)
    found |= activations
    # Logits of a chunk (products, their fp32 copy, their gradient), final hidden states and their gradient.
    chunk = min(LOSS_CHUNK, tokens) * vocab_size
    found["logits"] = chunk * (4 + 2 * compute) + 2 * tokens * shape.hidden_size * _residual(compute, autocast)
    found["runtime"] = GPU_RUNTIME if gpu else CPU_RUNTIME
    host = offloaded + (HOST_RUNTIME + _saved(phase, weights) if gpu else 0.0)
    return {name: size for name, size in found.items() if size}, host


def _saved(phase: Train, weights: int) -> float:
    """Bytes of host memory that each of a node's processes takes, on average, to load and to save.

    safetensors copies all tensors of a file before it writes any: each process its shards of weights and moments, or
    the leading one all of a model that is whole. That one also holds the trained weights while they are saved.
    """
    parallel, state = phase.parallel, 6 if phase.precision == "pure-bf16" else 12
    whole = 4 * weights / parallel.processes
    if parallel.sharding == "fsdp":
        return max(state * weights / parallel.world, whole)
    return max(state * weights / parallel.processes, 4.0 * weights)  # each process reads the whole model


def pinned(size: float) -> float:
    """Bytes that torch takes for a block of page-locked memory: a power of two (ATen/core/CachingHostAllocator.h)."""
    return 2.0 ** math.ceil(math.log2(size))


def _activations(
    shape: Architecture, phase: Train, tokens: float, compute: int, *, gpu: bool, autocast: bool
) -> tuple[Components, float]:
    checkpointing, layers = phase.parallel.activation_checkpointing, shape.num_hidden_layers
    boundary = tokens * shape.hidden_size * _residual(compute, autocast)
    inside = layer_activations(shape, tokens, compute, autocast=autocast)
    # What attention's kernel returns: its output and its sums, and on a CPU a short row's probabilities.
    returned = tokens * shape.num_attention_heads * (shape.head_dim * compute + 4.0)
    if not gpu:
        probabilities = kept_probabilities(shape, phase, compute)
        inside["attention"] += probabilities
        returned += probabilities
    if phase.parallel.context > 1:  # keys and values of the whole sequence, and their gradients
        whole = tokens * phase.parallel.context * shape.num_key_value_heads * shape.head_dim
        inside["attention"] += 4 * whole * compute
    # The MLP's product, activated gate and up projection have theirs at once, and so has the residual stream.
    gradients = 3 * tokens * shape.intermediate_size * compute + boundary
    if checkpointing == "none":
        return {
            "activations": layers * (boundary + sum(inside.values())),
            "gradients within a layer": gradients,
        }, 0.0
    kept = {"layer boundaries": boundary * (min(3, layers) if checkpointing == "offload" else layers)}
    if checkpointing == "selective":
        kept["attention outputs"] = (layers - 1) * returned  # the layer at work has its own within `inside`
    host = (pinned(boundary) if gpu else boundary) * layers if checkpointing == "offload" else 0.0
    return {**kept, **inside, "gradients within a layer": gradients}, host


def _residual(compute: int, autocast: bool) -> int:
    """Bytes of a number between layers: autocast leaves sums in the dtype of the weights."""
    return 4 if autocast else compute


def layer_activations(shape: Architecture, tokens: float, compute: int, *, autocast: bool = False) -> Components:
    """What one layer keeps for its backward pass beside its input, `compute` bytes a number, with a flash kernel.

    MLP: gate, up, activated gate and their product. Attention: queries and keys before and after the rotation, values,
    output. Norms: two, each with an fp32 copy of its input, its normalised output in both forms. Under autocast the
    second norm's input and both outputs are fp32, and each of the five products that read these has a copy of its own.
    """
    queries = shape.num_attention_heads * shape.head_dim
    keys = shape.num_key_value_heads * shape.head_dim
    return {
        "MLP": 4 * tokens * shape.intermediate_size * compute,
        "attention": 3 * tokens * (queries + keys) * compute,
        "norms": tokens * shape.hidden_size * (3 * 4 + 5 * compute if autocast else 2 * (4 + 2 * compute)),
    }


def kept_probabilities(shape: Architecture, phase: Train, compute: int) -> float:
    """Attention probabilities of one layer that the CPU kernel keeps: the lower triangle, in blocks of 512 queries, or
    nothing of rows beyond LONG."""
    if phase.seq_len > LONG:
        return 0.0
    pairs = phase.seq_len * (phase.seq_len + min(512, phase.seq_len)) / 2
    return phase.micro_batch * shape.num_attention_heads * pairs * compute


def key_value_bytes(shape: Architecture, tokens: int, number: int = 2) -> float:
    """A key-value cache of one sequence, `number` bytes a number."""
    return 2.0 * shape.num_hidden_layers * shape.num_key_value_heads * shape.head_dim * tokens * number


def evaluation(
    shape: Architecture,
    vocab_size: int,
    tokens: int,
    *,
    precision: str,
    gpu: bool,
    logit_rows: int = LOSS_CHUNK,
    cached: float = 0.0,
) -> Components:
    """Components of a forward pass over `tokens` tokens that are in the model at once (batch × length).

    Args:
        logit_rows: positions whose logits exist at once.
        cached: bytes of key-value cache on the device.

    Weights are bf16 on a GPU with precision bf16; on a CPU they are fp32, and autocast keeps a copy in bf16.
    """
    compute = 2 if precision == "bf16" else 4
    weights = parameters(shape, vocab_size)
    held = compute if gpu else 4
    found = {
        "weights": float(held * weights),
        "bf16 copies": 0.0 if held == compute else compute * matmul_parameters(shape),
        # The residual stream, its norm in both forms, and beside them the MLP's three or the attention's six tensors.
        "residual stream": tokens * shape.hidden_size * (2 * compute + 4.0),
        "widest layer": max(
            3 * tokens * shape.intermediate_size * compute,
            layer_activations(shape, tokens, compute)["attention"],
        ),
        "logits": float(min(logit_rows, tokens) * vocab_size * (compute + 2 * 4)),
        "key-value cache": cached,
        "runtime": GPU_RUNTIME if gpu else CPU_RUNTIME,
    }
    return {name: size for name, size in found.items() if size}
