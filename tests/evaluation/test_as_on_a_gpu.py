"""Every evaluation on a model as a GPU would hold it: weights in bf16, grouped key heads, a head of its own.

Losses, log-probabilities and entropies must be computed in fp32 all the same, and the logits of a whole sequence must
never exist: at 131,072 tokens and 32,000 ids they would be 16.8 GB.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from yarnlab.evaluation import decoding, nll
from yarnlab.evaluation.nll import target_nll
from yarnlab.modeling import set_rope
from yarnlab.rope import make_rope
from yarnlab.study.evaluations import KINDS

LENGTH, CHUNK = 512, 64

SETTINGS = {
    "perplexity": {"lengths": {"start": 128, "stop": LENGTH, "step": 128}},
    "context": {"contexts": [64, 128], "max_length": LENGTH},
    "short_texts": {"lengths": [64, 128], "max_tokens": LENGTH},
    "zero_shot": {"methods": ["pi", "yarn"], "scales": [8.0], "max_length": LENGTH},
    "passkey": {"lengths": [LENGTH], "trials": 10},
    "sliding_window": {"window": 256, "stride": 200, "max_tokens": LENGTH},
    "dynamic": {"methods": ["none", "dynamic-yarn"], "lengths": [128, LENGTH], "tail": 32},
    "key_cache": {"methods": ["dynamic-pi"], "length": 96, "documents": 1},
    "temperature": {
        "method": "ntk-by-parts",
        "scales": [8.0],
        "factors": {"start": 1.0, "stop": 1.1, "step": 0.1},
        "segments": 4,
        "documents": 1,
        "max_length": LENGTH,
    },
    "ramp": {"method": "yarn", "variants": {"a": {}}, "scales": [8.0], "documents": 1, "max_length": LENGTH},
    "entropy": {"methods": ["yarn"], "scales": [8.0], "length": 256},
    "passkey_official": {"lengths": [LENGTH], "trials": 2, "new_tokens": 3, "decoding": "released"},
    "benchmarks": {"suite": "held-out-code", "items": 12, "shots": 0, "batch_size": 8, "add_bos": True},
}
MEASURED = {"passkey": "margin", "entropy": "entropy", "passkey_official": "prompt_tokens", "benchmarks": "value"}


def evaluate(kind, task):
    return KINDS[kind](**task.settings).evaluate(task)


@pytest.fixture
def model():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=False,
        attn_implementation="sdpa",
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    # As load_model leaves it: a cast of stock transformers' own rotary module would round its frequencies to bf16.
    set_rope(model, make_rope("none", original_context=64, head_dim=16))
    return model


def test_every_kind_is_here():
    assert set(SETTINGS) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_runs_with_bf16_weights_and_logits_in_chunks_only(tiny_task, model, monkeypatch, kind):
    """The values are finite and near those of fp32 weights; the head never sees more positions than a chunk has."""
    monkeypatch.setattr(nll, "LOGIT_CHUNK", CHUNK)
    seen: list[int] = []
    model.lm_head.register_forward_hook(lambda _, args, out: seen.append(out.numel() // out.shape[-1]))
    column = MEASURED.get(kind, "nll")
    exact = evaluate(kind, tiny_task(SETTINGS[kind], model=model)).table[column].to_numpy(float)
    outcome = evaluate(kind, tiny_task({**SETTINGS[kind], "precision": "bf16"}, model=model.bfloat16()))
    values = outcome.table[column].to_numpy(float)
    assert np.isfinite(values).all()
    assert abs(values.mean() - exact.mean()) < 0.1
    assert outcome.nll is None or outcome.nll.dtype == np.float32
    # The harness asks for whole prompts, which are short; entropy needs no logits at all.
    limit = 8 * 64 if kind == "benchmarks" else CHUNK + 16  # a key's tokens of several trials that run together
    assert max(seen, default=0) <= limit
    assert bool(seen) == (kind != "entropy")


def test_a_bf16_heads_loss_is_an_fp32_loss(model):
    """From the same bf16 logits, log-softmax in bf16 would be off by 0.01 nats and more."""
    model.bfloat16()
    hidden = 4 * torch.randn(1, 100, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    targets = torch.arange(100)[None]
    with torch.inference_mode():
        loss, logits = target_nll(model, hidden, targets), model.lm_head(hidden)
    exact = torch.nn.functional.cross_entropy(logits[0].double(), targets[0], reduction="none")
    rough = torch.nn.functional.cross_entropy(logits[0], targets[0], reduction="none")
    assert loss.dtype == torch.float32
    assert (loss[0] - exact).abs().max() < 1e-5 < 0.01 < (rough - exact).abs().max()


def test_probabilities_of_attention_add_up_although_queries_are_bf16(model, tiny_task):
    """Entropy of bf16 probabilities would exceed its bound, ln of the number of keys."""
    outcome = evaluate("entropy", tiny_task({**SETTINGS["entropy"], "precision": "bf16"}, model=model.bfloat16()))
    assert isinstance(outcome.table, pd.DataFrame)
    assert outcome.table["normalised_entropy"].between(0, 1).all()


def test_a_cache_beyond_its_share_of_the_gpu_is_offloaded_and_never_on_a_cpu(model):
    """131,072 tokens of a 7B are 68.7 GB; 16,384 are 8.6."""
    assert decoding.is_offloaded(68.7e9, 84.9e9) and not decoding.is_offloaded(8.6e9, 84.9e9)
    assert decoding.cache_options(model, 10**9) == {}


def test_the_size_of_a_cache_is_that_of_its_tensors(model, monkeypatch):
    class Gpu:
        total_memory = 2 * 2 * (2 * 16) * 100 * 4 / decoding.SHARE  # keys and values, layers, width, tokens, fp32

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Gpu)
    monkeypatch.setattr(type(model), "device", torch.device("cuda"))
    assert decoding.cache_options(model, 100) == {}
    assert decoding.cache_options(model, 101) == {"cache_implementation": "offloaded"}
