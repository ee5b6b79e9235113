"""Closed forms of operations and parameters against transformers' models, torch's own counter and published numbers."""

from __future__ import annotations

import pytest
from shapes import LLAMA_2_7B, LLAMA_2_13B, MISTRAL_7B, model_of, tiny

from yarnlab import cost
from yarnlab.cost.devices import peak_flops


@pytest.mark.parametrize(("tied", "groups"), [(True, 1), (False, 2)])
def test_operations_and_parameters_are_those_that_torch_counts(tied, groups):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    shape, vocab, length = tiny(tied=tied, groups=groups), 101, 40
    model = model_of(shape, vocab)
    ids = torch.arange(length)[None]
    with FlopCounterMode(display=False) as counter:
        loss = model(ids).logits.sum()
    forward = cost.forward_flops(shape, vocab, length, causal=False)
    # The rotary module's outer product of frequencies and positions is the only thing that is left out.
    assert counter.get_total_flops() == pytest.approx(forward, abs=2 * shape.head_dim * length)
    with FlopCounterMode(display=False) as counter:
        loss.backward()
    assert forward + counter.get_total_flops() == cost.training_flops(shape, vocab, length, causal=False)
    assert cost.parameters(shape, vocab) == sum(p.numel() for p in model.parameters())


def test_the_causal_count_is_the_lower_triangle():
    """N = 2: query 0 sees one key, query 1 sees two, so 3 of 4 pairs."""
    shape = tiny(tied=True, groups=1)
    dense = 2 * 2 * (cost.matmul_parameters(shape) + shape.hidden_size * 10)
    attention = [cost.forward_flops(shape, 10, 2, causal=causal) - dense for causal in (True, False)]
    assert attention[0] / attention[1] == 3 / 4


@pytest.mark.parametrize(
    ("shape", "parameters"), [(LLAMA_2_7B, 6_738_415_616), (LLAMA_2_13B, 13_015_864_320), (MISTRAL_7B, 7_241_732_096)]
)
def test_real_shapes_have_the_published_number_of_parameters(shape, parameters):
    """Total sizes in the index files of the checkpoints on the hub, which hold 2 bytes a weight."""
    assert cost.parameters(shape, 32000) == parameters


@pytest.mark.parametrize(
    ("shape", "length", "dense", "attention", "petaflop"),
    [
        (LLAMA_2_7B, 65536, 13.21, 17.18, 5.976),
        (LLAMA_2_13B, 65536, 25.70, 26.84, 10.331),
        (MISTRAL_7B, 16384, 14.22, 4.29, 0.910),
        (LLAMA_2_7B, 32768, 13.21, 8.59, 2.143),
        (LLAMA_2_7B, 8192, 13.21, 2.15, 0.378),
    ],
)
def test_the_papers_runs_cost_what_was_worked_out_by_hand(shape, length, dense, attention, petaflop):
    """Forward GFLOP a token (products with weights; attention) and PFLOP of training on one row, both from
    2·weights and 4·N·d·layers/2 a token, times three with the backward pass; worked out independently of this code."""
    forward = cost.forward_flops(shape, 32000, length, causal=True) / length / 1e9
    assert forward == pytest.approx(dense + attention, rel=0.005)
    assert 2 * (cost.matmul_parameters(shape) + 32000 * shape.hidden_size) / 1e9 == pytest.approx(dense, rel=0.005)
    assert cost.training_flops(shape, 32000, length, causal=True) / 1e15 == pytest.approx(petaflop, rel=0.005)


def test_the_two_conventions_differ_by_half_at_long_context():
    """7B at 65,536: the full square counts 1.565 times as much."""
    palm, causal = (cost.training_flops(LLAMA_2_7B, 32000, 65536, causal=c) for c in (False, True))
    assert palm / causal == pytest.approx(1.565, rel=0.001)


def test_the_measured_peak_is_a_rate_that_this_machine_can_have():
    peak, source = peak_flops()
    assert 1e8 < peak < 1e16 and ("measured" in source or "published" in source)
