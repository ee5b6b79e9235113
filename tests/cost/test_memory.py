"""Memory budgets: what a layer really keeps, published shapes worked out by hand, and what each setting is for."""

from __future__ import annotations

import pytest
from shapes import LLAMA_2_7B, LLAMA_2_13B, model_of, tiny

from yarnlab.cost import matmul_parameters, memory, parameters
from yarnlab.study.training import Parallel, Rows, Train

GB = 1e9


def phase(**changes) -> Train:
    parallel = {"nodes": 1, "processes": 8, "threads": 8, "sharding": "fsdp", "activation_checkpointing": "full"}
    parallel |= {key: changes.pop(key) for key in [*changes] if key in Parallel.model_fields}
    settings = {
        "corpus": "text",
        "rows": Rows(),
        "steps": 400,
        "seq_len": 65536,
        "global_batch": 64,
        "micro_batch": 1,
        "lr": 2e-5,
        "schedule": "constant",
        "warmup_steps": 20,
        "betas": (0.9, 0.95),
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "precision": "bf16",
        "checkpoint_minutes": 15.0,
    }
    return Train(**(settings | changes), parallel=Parallel(**parallel))


def total(shape=LLAMA_2_7B, **changes) -> float:
    return sum(memory.training(shape, 32000, phase(**changes), gpu=True)[0].values())


@pytest.mark.parametrize(
    ("shape", "states", "gradients", "boundaries", "mlp", "attention"),
    [(LLAMA_2_7B, 10.1, 3.4, 17.2, 5.8, 3.2), (LLAMA_2_13B, 19.5, 6.5, 26.8, 7.2, 4.0)],
)
def test_training_at_65536_tokens_on_eight_gpus(shape, states, gradients, boundaries, mlp, attention):
    """GB on each of eight GPUs, worked out by hand from 12 bytes of fp32 weight and moments, 4 of gradient, and
    N·width·2 bytes of activations; independently of this code."""
    found, host = memory.training(shape, 32000, phase(), gpu=True)
    assert (found["weights"] + found["AdamW moments"]) / GB == pytest.approx(states, rel=0.02)
    assert found["gradients"] / GB == pytest.approx(gradients, rel=0.02)
    assert found["layer boundaries"] / GB == pytest.approx(boundaries, rel=0.02)
    assert found["MLP"] / GB == pytest.approx(mlp, rel=0.02)
    assert found["attention"] / GB == pytest.approx(attention, rel=0.02)
    # The runtime, and the states once more while a checkpoint is written.
    assert host / GB == pytest.approx(3.5 + states, rel=0.02)


def test_logits_exist_in_chunks_only():
    """All logits of 65,536 tokens in fp32 would be 8.4 GB, and two more of that in the loss."""
    found, _ = memory.training(LLAMA_2_7B, 32000, phase(), gpu=True)
    assert found["logits"] < 65536 * 32000 * 4 / 5


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_layer_keeps_what_torch_saves_for_its_backward_pass(groups, autocast):
    """The distinct storages that autograd saves, two layers minus one, with torch's own attention: in bf16 as shards
    are, and under autocast as whole models are, without the copies of its weights."""
    import torch

    shape, length, boundary = tiny(tied=False, groups=groups), 64, 4 if autocast else 2
    saved = []
    for layers in (1, 2):
        model = model_of(shape.model_copy(update={"num_hidden_layers": layers}), 32)
        given: list[torch.Tensor] = []
        model.model.layers[-1].register_forward_pre_hook(lambda _, inputs, given=given: given.append(inputs[0]))
        model.set_attn_implementation("sdpa")
        if not autocast:
            model.bfloat16()
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        kept: dict[int, torch.Tensor] = {}

        def keep(tensor, kept=kept, weights=weights):
            if tensor.untyped_storage().data_ptr() not in weights:
                kept[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16, enabled=autocast),
        ):
            model.model(torch.arange(32).repeat(2)[None])
        saved.append(sum(tensor.untyped_storage().nbytes() for tensor in kept.values()))
    assert given[0].element_size() == boundary
    inside = sum(memory.layer_activations(shape, length, compute=2, autocast=autocast).values())
    copies = 2 * matmul_parameters(shape) / shape.num_hidden_layers if autocast else 0
    counted = inside + length * shape.hidden_size * boundary + copies
    assert saved[1] - saved[0] == pytest.approx(counted, rel=0.15)


def test_whole_models_have_an_fp32_residual_stream_under_autocast():
    """So a boundary has four bytes a number; shards compute in bf16 alone, and need no copies."""
    whole, shard = (
        memory.training(LLAMA_2_7B, 32000, phase(sharding=sharding), gpu=True)[0]["layer boundaries"]
        for sharding in ("replicate", "fsdp")
    )
    assert whole == 2 * shard == 4 * 32 * 65536 * 4096
    pure = memory.training(LLAMA_2_7B, 32000, phase(sharding="replicate", precision="pure-bf16"), gpu=True)[0]
    assert pure["layer boundaries"] == shard


def test_each_setting_saves_what_it_is_for():
    assert total(activation_checkpointing="none") > 5 * total()
    assert total() - total(activation_checkpointing="offload") == pytest.approx(29 * 65536 * 4096 * 2)
    assert total(context=2) < total() - 0.4 * (17.2 + 5.8) * GB
    assert total(processes=16) < total(processes=8) < total(sharding="replicate")
    assert total(micro_batch=2) > total() + 17 * GB
    assert total(precision="pure-bf16") < total() < total(precision="fp32")


def test_offloaded_boundaries_are_counted_on_the_host():
    """In blocks of page-locked memory, which torch makes powers of two: 0.67 GB a layer take 1.07."""
    (_, host), (_, without) = (
        memory.training(LLAMA_2_13B, 32000, phase(activation_checkpointing=mode), gpu=True)
        for mode in ("offload", "full")
    )
    assert (host - without) / GB == pytest.approx(40 * 2**30 / GB, rel=0.01)
    _, on_cpu = memory.training(LLAMA_2_13B, 32000, phase(activation_checkpointing="offload"), gpu=False)
    assert on_cpu / GB == pytest.approx(26.8, rel=0.01)


@pytest.mark.parametrize(
    ("changes", "held"),
    [
        ({}, 12 / 8),  # each process writes its shards of weights and moments
        ({"precision": "pure-bf16"}, 6 / 8),
        ({"processes": 2, "nodes": 4}, 4 / 2),  # two processes of the first node share what its leader saves
        ({"sharding": "replicate"}, 4),  # each process reads the whole model
    ],
)
def test_the_host_holds_what_is_loaded_and_saved(changes, held):
    """Bytes a weight, in each process of a node on average, beside 3.5 GB."""
    _, host = memory.training(LLAMA_2_7B, 32000, phase(**changes), gpu=True)
    assert host == 3.5 * GB + held * parameters(LLAMA_2_7B, 32000)


@pytest.mark.parametrize(("shape", "more"), [(LLAMA_2_7B, 17.4), (LLAMA_2_13B, 27.3)])
def test_selective_recomputation_keeps_attentions_output(shape, more):
    """GB of outputs and log-sums of all layers at 65,536 tokens, worked out by hand; the layer at work has its own
    anyhow. Nothing else changes, and a CPU's kernel keeps its probabilities as well."""
    full, selective = (
        memory.training(shape, 32000, phase(activation_checkpointing=mode), gpu=True)[0]
        for mode in ("full", "selective")
    )
    layers = shape.num_hidden_layers
    assert selective.pop("attention outputs") / GB == pytest.approx(more * (layers - 1) / layers, rel=0.01)
    assert selective == full
    short = phase(activation_checkpointing="selective", seq_len=8192)
    on_cpu, _ = memory.training(shape, 32000, short, gpu=False)
    assert on_cpu["attention outputs"] > (layers - 1) * memory.kept_probabilities(shape, short, 2) > 0


@pytest.mark.parametrize(("seq_len", "kept"), [(4096, 1), (8192, 1), (8193, 0)])
def test_a_cpu_keeps_attention_probabilities_of_short_rows_and_a_gpu_does_not(seq_len, kept):
    shape = tiny(tied=True, groups=1)
    settings = phase(
        seq_len=seq_len, sharding="replicate", processes=1, activation_checkpointing="none", global_batch=1
    )
    on_cpu, on_gpu = (memory.training(shape, 512, settings, gpu=gpu)[0]["activations"] for gpu in (False, True))
    triangle = kept * 3 * 4 * seq_len**2 / 2 * 2  # layers, heads, pairs, bytes
    assert triangle <= on_cpu - on_gpu <= 1.2 * triangle


def test_one_pass_over_131072_tokens():
    """About 27 GB for a 7B: 13.5 of weights, 1.1 for each tensor as wide as the model, 2.9 as wide as its MLP."""
    found = memory.evaluation(LLAMA_2_7B, 32000, 131072, precision="bf16", gpu=True)
    assert sum(found.values()) / GB == pytest.approx(27, rel=0.1)
    assert found["weights"] == 2 * parameters(LLAMA_2_7B, 32000)
    assert found["logits"] < 2**30


@pytest.mark.parametrize(("shape", "size"), [(LLAMA_2_7B, 68.7), (LLAMA_2_13B, 107.4)])
def test_the_key_value_cache_of_131072_tokens(shape, size):
    """2 · layers · heads · head_dim · 2 bytes a token."""
    assert memory.key_value_bytes(shape, 131072) / GB == pytest.approx(size, rel=0.001)
