"""What a study's evaluations will compute: passes over sequences, by kind, as the modules of that name run them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from yarnlab.cost import Device, flops, memory
from yarnlab.evaluation.cache import is_offloaded
from yarnlab.evaluation.grids import (
    STEP,
    TOKENS_PER_BATCH,
    factors_at,
    grid_lengths,
    lengths_within,
    recomputed_lengths,
)
from yarnlab.plan.stages import Stage
from yarnlab.study.schema import Study

# Tokens of the paper's benchmarks for one model with Llama's tokenizer. Estimates from item counts and prompt lengths:
# HellaSwag 10,042 × 4 endings of 10-shot prompts; MMLU 14,042 5-shot prompts, whose four choices share one pass;
# ARC-Challenge 1,172 25-shot prompts; TruthfulQA 817.
PAPER_TOKENS = {"hellaswag": 46e6, "mmlu": 26e6, "arc_challenge": 9e6, "truthfulqa": 2e6}
PROMPT = 1024  # tokens of a benchmark's prompt, on average; the longest are about four times as long
UNTRUNCATED = 1.25  # windows that a document is taken to be long where the study does not cut it
CODE_TASKS, CODE_CHOICES = 3, 4  # of held-out-code


@dataclass(frozen=True)
class Passes:
    """`runs`: (how many forward passes, over how many tokens each). `rotations`: FLOPs beside them.

    at_once: tokens in the model at one time; logit_rows: positions whose logits exist at one time.
    cached: tokens in a key-value cache. scores: bytes of attention scores that exist beside.
    """

    runs: list[tuple[float, int]]
    at_once: int
    logit_rows: int = memory.LOSS_CHUNK
    cached: int = 0
    scores: float = 0.0
    rotations: float = 0.0
    note: str | None = None


def stage(study: Study, kind: str, arm: str, model: str, device: Device) -> tuple[Stage, str | None]:
    """One evaluation of one model, and the assumption behind it if there is one."""
    settings = getattr(study.evaluations, kind)
    shape, vocab = study.architecture(arm), study.vocab_size(arm)
    found = PASSES[kind](study, arm, settings)
    work = {
        causal: found.rotations
        + sum(n * flops.forward_flops(shape, vocab, length, causal=causal) for n, length in found.runs)
        for causal in (True, False)
    }
    cache = memory.key_value_bytes(shape, found.cached, 2 if settings.precision == "bf16" else 4)
    offloaded = device.is_gpu and is_offloaded(cache, device.memory)
    components = memory.evaluation(
        shape, vocab, found.at_once, precision=settings.precision, gpu=device.is_gpu, logit_rows=found.logit_rows,
        cached=cache * (min(1.0, 2 / shape.num_hidden_layers) if offloaded else 1.0),
    )  # fmt: skip
    if found.scores:
        components["attention scores"] = found.scores
    made = Stage(
        kind,
        model,
        flops=work[True],
        flops_palm=work[False],
        precision=settings.precision,
        devices=1 if device.is_gpu else settings.threads,
        memory=components,
        host=cache if offloaded else 0.0,
        disk=float(sum(4 * n * length for n, length in found.runs)) if kind == "perplexity" else 0.0,
        after=(model,),
    )
    return made, found.note


def _documents(study: Study, arm: str, kind: str, settings: Any) -> int:
    asked = getattr(settings, "documents", None)
    return asked or study.corpora[study.corpus_of(kind, arm)].documents or 1


def _perplexity(study: Study, arm: str, settings: Any) -> Passes:
    length = settings.lengths.values()[-1]
    return Passes([(_documents(study, arm, "perplexity", settings), length)], length)


def _zero_shot(study: Study, arm: str, settings: Any) -> Passes:
    documents, window = _documents(study, arm, "zero_shot", settings), study.architecture(arm).original_context
    lengths = [grid_lengths(window, scale, settings.max_length)[-1] for scale in settings.scales]
    return Passes([(documents * len(settings.methods), length) for length in lengths], max(lengths))


def _ramp(study: Study, arm: str, settings: Any) -> Passes:
    window = study.architecture(arm).original_context
    lengths = [lengths_within(window, scale, settings.max_length)[-1] for scale in settings.scales]
    return Passes([(settings.documents * len(settings.variants), length) for length in lengths], max(lengths))


def _temperature(study: Study, arm: str, settings: Any) -> Passes:
    window, grid = study.architecture(arm).original_context, settings.factors.values()
    lengths = [min(round(scale * window), settings.max_length) for scale in settings.scales]
    runs = settings.documents * len(factors_at(1.0, grid))
    return Passes([(runs, length) for length in lengths], max(lengths))


def _dynamic(study: Study, arm: str, settings: Any) -> Passes:
    runs = _documents(study, arm, "dynamic", settings) * len(settings.methods)
    return Passes([(runs, length) for length in settings.lengths], max(settings.lengths))


def _key_cache(study: Study, arm: str, settings: Any) -> Passes:
    shape, length = study.architecture(arm), settings.length
    each = settings.documents * len(settings.methods)
    recomputed = recomputed_lengths(shape.original_context, length, max(1, shape.original_context // STEP))
    # Beyond L every row rotates all keys before it anew: a complex product, 6 operations for two numbers.
    turned = sum(range(shape.original_context, length)) * shape.num_key_value_heads * shape.head_dim
    return Passes(
        [(2 * each, length), *((each, n) for n in recomputed)],
        max(length, min(TOKENS_PER_BATCH, settings.documents * length)),
        rotations=3.0 * turned * shape.num_hidden_layers * each,
    )


def _passkey(study: Study, arm: str, settings: Any) -> Passes:
    runs: list[tuple[float, int]] = [(settings.trials, length) for length in settings.lengths]
    return Passes(runs, max(*settings.lengths, min(TOKENS_PER_BATCH, settings.trials * min(settings.lengths))), 64)


def _passkey_official(study: Study, arm: str, settings: Any) -> Passes:
    runs: list[tuple[float, int]] = [(settings.trials, length + settings.new_tokens) for length in settings.lengths]
    longest = max(settings.lengths)
    return Passes(runs, longest, 1, cached=longest + settings.new_tokens)


def _sliding_window(study: Study, arm: str, settings: Any) -> Passes:
    tokens = settings.max_tokens or round(UNTRUNCATED * settings.window)
    documents, size = _documents(study, arm, "sliding_window", settings), min(settings.window, tokens + 1)
    note = None
    if settings.max_tokens is None:
        note = (
            f"sliding_window: documents are read whole; each is taken to have {tokens:,} tokens, so "
            f"{window_count(tokens, settings.window, settings.stride)} windows. Their real lengths decide."
        )
    windows = documents * window_count(tokens, settings.window, settings.stride)
    return Passes([(windows, size)], max(size, TOKENS_PER_BATCH), note=note)


def window_count(tokens: int, window: int, stride: int) -> int:
    """Windows over a document of `tokens` tokens without BOS, of which a window holds window − 1."""
    return 1 + max(0, math.ceil((tokens - (window - 1)) / stride))


def _entropy(study: Study, arm: str, settings: Any) -> Passes:
    methods = [method for method in settings.methods if method != "none"]
    cells = 1 + len(methods) * len(settings.scales)
    shape = study.architecture(arm)
    scores = min(2**26, shape.num_attention_heads * settings.length**2) * 4 * 3  # scores, their softmax, p·ln p
    documents = _documents(study, arm, "entropy", settings)
    return Passes([(documents * cells, settings.length)], settings.length, 0, scores=float(scores))


def _benchmarks(study: Study, arm: str, settings: Any) -> Passes:
    if settings.suite == "paper":
        asked = sum(PAPER_TOKENS[name] for name in settings.snapshots)
        note = (
            f"benchmarks: {asked / 1e6:.0f} million tokens a model, an estimate (HellaSwag 46, MMLU 26, ARC 9, "
            "TruthfulQA 2)"
        )
        rows = 4 * PROMPT * settings.batch_size
        return Passes([(asked / PROMPT, PROMPT)], rows, rows, note=note)
    window = study.architecture(arm).original_context
    rows = settings.batch_size * window
    return Passes([(settings.items * CODE_TASKS * CODE_CHOICES, window)], rows, rows)


PASSES: dict[str, Callable[[Study, str, Any], Passes]] = {
    "perplexity": _perplexity,
    "zero_shot": _zero_shot,
    "passkey": _passkey,
    "sliding_window": _sliding_window,
    "dynamic": _dynamic,
    "key_cache": _key_cache,
    "temperature": _temperature,
    "ramp": _ramp,
    "entropy": _entropy,
    "passkey_official": _passkey_official,
    "benchmarks": _benchmarks,
}
