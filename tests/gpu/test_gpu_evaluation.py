"""On an NVIDIA GPU: evaluation in bf16, as the official one loads a model, against fp32 and against itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from yarnlab.evaluation.nll import token_nll
from yarnlab.modeling import check_active_rope, create_model, load_model, save_model, use_fast_attention
from yarnlab.rope import make_rope
from yarnlab.study.schema import Architecture

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU is to be seen (pytest -m gpu shows it)"),
]
LENGTH = 32768
SHAPE = Architecture(
    family="llama",
    hidden_size=256,
    intermediate_size=512,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=128,
    original_context=2048,
    rope_theta=10000.0,
    tie_word_embeddings=True,
)
ROPE = make_rope("yarn", scale=16, original_context=2048, head_dim=128)


@pytest.fixture(scope="module")
def checkpoint(tiny_data, tmp_path_factory) -> Path:
    """A saved model, sharper than a fresh one, so that its losses differ from token to token."""
    model = create_model(SHAPE, vocab_size=512, seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2 if parameter.dim() > 1 else 1)
    folder = tmp_path_factory.mktemp("checkpoint")
    save_model(model, ROPE, tiny_data / "tokenizer", folder)
    return folder


@pytest.fixture(scope="module")
def ids() -> np.ndarray:
    return np.random.default_rng(0).integers(2, 512, (1, LENGTH))


def nll_of(checkpoint: Path, ids: np.ndarray, precision: str) -> np.ndarray:
    model = load_model(checkpoint, ROPE, precision=precision)
    assert model.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)
    check_active_rope(model, ROPE, ids.shape[1], where=precision)  # positions and frequencies stay fp32
    use_fast_attention(model)
    return token_nll(model, ids)


def test_losses_in_bf16_are_those_of_fp32_to_its_rounding(checkpoint, ids):
    """The mean to 0.1 %, single tokens to a twentieth of what they vary by; losses themselves are not rounded to bf16."""
    exact, rounded = (nll_of(checkpoint, ids, precision) for precision in ("fp32", "bf16"))
    assert exact.std() > 0.3
    assert rounded.mean() == pytest.approx(exact.mean(), rel=1e-3)
    assert (rounded - exact).std() < 0.05 * exact.std()
    assert (torch.from_numpy(rounded).bfloat16().float().numpy() != rounded).mean() > 0.9


def test_one_pass_gives_the_losses_at_every_length_in_bf16(checkpoint, ids):
    """The prefix property, on which the perplexity curves rest: kernels may cut other tiles for another length, and the
    mean loss at each of three lengths is that of a pass of its own to 0.1 %."""
    whole = nll_of(checkpoint, ids, "bf16")
    for length in (2048, 8000, 20001):
        alone = nll_of(checkpoint, ids[:, :length], "bf16")
        assert whole[:, : length - 1].mean() == pytest.approx(alone.mean(), rel=1e-3), length
