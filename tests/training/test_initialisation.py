"""The induction circuit must do what it says before any training, and nothing else must need it."""

from __future__ import annotations

import torch

from yarnlab.modeling import create_model
from yarnlab.rope import make_rope
from yarnlab.study.schema import Architecture
from yarnlab.training.initialisation import build_induction_circuit

SHAPE = Architecture(
    family="llama",
    hidden_size=160,
    intermediate_size=432,
    num_hidden_layers=3,
    num_attention_heads=2,
    num_key_value_heads=2,
    head_dim=64,
    original_context=256,
    rope_theta=10000.0,
    tie_word_embeddings=True,
)


def attentions(model, ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
    model.set_attn_implementation("eager")
    with torch.no_grad():
        return model(ids, output_attentions=True).attentions


def built(seed: int = 0):
    model = create_model(SHAPE, vocab_size=512, seed=seed).eval()
    rope = make_rope("none", original_context=256, head_dim=64)
    build_induction_circuit(model, rope, seed=seed)
    return model


def repeated(segment: int = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randperm(512, generator=generator)[:segment].repeat(3)[None]


def test_one_head_looks_back_and_one_is_inclined_to_copy():
    """On a repeated random segment, layer 0's head 0 attends to the previous position; layer 1's head 0 attends to the
    position after the current token's last occurrence, over a few seeds, more than twice as much as chance. A fresh
    model does neither."""
    ids = repeated(40)
    all_positions, second = torch.arange(1, 120), torch.arange(40, 80)
    chance = (1 / (second + 1)).mean().item()

    def looks(model) -> tuple[float, float]:
        back, copy = (layer[0, 0] for layer in attentions(model, ids)[:2])
        return back[all_positions, all_positions - 1].mean().item(), copy[second, second - 39].mean().item()

    made = [looks(built(seed)) for seed in range(4)]
    assert all(back > 0.8 for back, _ in made)
    assert sum(copy for _, copy in made) / 4 > 2 * chance
    back, copy = looks(create_model(SHAPE, vocab_size=512, seed=0).eval())
    assert back < 0.1 and copy < 1.1 * chance


def test_it_is_a_function_of_the_seed():
    one, same, other = (built(seed).model.layers[0].self_attn.q_proj.weight for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
