"""Perplexity of one document of 131,072 tokens in one pass, with a model of the full Llama-2-7B shape on one GPU.

Weights are random: time and memory do not depend on them. The code is the study's own (evaluation/nll.py): bf16
weights, the fastest attention that is installed, logits in chunks. Prints time, utilisation and peak memory, writes
them as JSON beside this file, and ends with status 1 if a target is missed: 30 s and 40 GiB.

    envs/run --gpu python benchmarks/eval_131072.py
    envs/run python benchmarks/eval_131072.py --tiny
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

TARGET_S, TARGET_GIB = 30.0, 40.0
GIB = 2**30


def main() -> None:
    arguments = parse()
    measured = measure(arguments)
    print(
        f"{arguments.tokens:,} tokens in {measured['seconds']:.2f} s ({measured['tokens_per_second']:,.0f} tokens/s), "
        f"attention {measured['attention']}; utilisation {measured['mfu_causal']:.1%} (causal), "
        f"{measured['mfu_palm']:.1%} (PaLM); peak memory {measured['peak_gib']:.1f} GiB, "
        f"{measured['weights_gib']:.1f} GiB of it weights; mean NLL {measured['nll']:.3f} nats"
    )
    met = measured["seconds"] <= TARGET_S and measured["peak_gib"] <= TARGET_GIB
    print(f"target: {TARGET_S:g} s and {TARGET_GIB:g} GiB; {'met' if met else 'missed'}")
    write(arguments, measured)
    sys.exit(not met and not arguments.tiny)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=131072, help="of the document (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=32, help="of the model (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=2, help="timed passes, the fastest counts")
    parser.add_argument("--tiny", action="store_true", help="a tiny shape and 1,024 tokens, to try the script on a CPU")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"), help="the JSON file")
    arguments = parser.parse_args()
    if arguments.tiny:
        arguments.tokens, arguments.layers = min(arguments.tokens, 1024), min(arguments.layers, 2)
    return arguments


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    import numpy as np
    import torch

    from yarnlab import cost
    from yarnlab.cost.devices import peak_flops
    from yarnlab.evaluation.nll import token_nll
    from yarnlab.modeling import compute_device, set_rope, use_fast_attention
    from yarnlab.rope import make_rope
    from yarnlab.study.schema import Architecture

    device, tiny = compute_device(), arguments.tiny
    gpu = device.type == "cuda"
    shape = Architecture(
        family="llama",
        hidden_size=128 if tiny else 4096,
        intermediate_size=256 if tiny else 11008,
        num_hidden_layers=arguments.layers,
        num_attention_heads=4 if tiny else 32,
        num_key_value_heads=4 if tiny else 32,
        head_dim=32 if tiny else 128,
        original_context=64 if tiny else 4096,
        rope_theta=10000.0,
        tie_word_embeddings=False,
    )
    vocab_size = 1000 if tiny else 32000
    model = random_model(shape, vocab_size, torch.bfloat16 if gpu else torch.float32, device)
    set_rope(model, make_rope("yarn", scale=32, original_context=shape.original_context, head_dim=shape.head_dim))
    attention = use_fast_attention(model, length=arguments.tokens)
    weights = sum(p.nbytes for p in model.parameters())
    ids = np.random.default_rng(0).integers(0, vocab_size, (1, arguments.tokens))
    seconds = []
    for _ in range(arguments.repeats + 1):  # the first one fetches memory and kernels
        if gpu:
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        nll = token_nll(model, ids)  # ends in host memory, so the GPU has finished
        seconds.append(time.perf_counter() - start)
    best, (peak, _) = min(seconds[1:]), peak_flops()
    flops = {
        name: cost.forward_flops(shape, vocab_size, arguments.tokens, causal=name == "causal")
        for name in ("causal", "palm")
    }
    return {
        "seconds": best,
        "tokens_per_second": arguments.tokens / best,
        "attention": attention,
        "mfu_causal": flops["causal"] / best / peak,
        "mfu_palm": flops["palm"] / best / peak,
        "peak_gib": (torch.cuda.max_memory_allocated() if gpu else 0) / GIB,
        "weights_gib": weights / GIB,
        "nll": float(nll.mean(dtype=np.float64)),
    }


def random_model(shape: Any, vocab_size: int, dtype: Any, device: Any) -> Any:
    """Random weights made on the device: the host never holds the model."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocab_size,
        use_cache=False,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        **shape.model_dump(exclude={"family", "original_context", "rope_theta"}),
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(dtype)
    model.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.02, generator=generator)
            else:
                parameter.fill_(1)
    return model.eval()


def write(arguments: argparse.Namespace, measured: dict[str, Any]) -> None:
    from yarnlab.provenance import git_state, hardware, now, package_versions, write_json

    options = {key: value for key, value in vars(arguments).items() if key != "output"}
    content = {
        "options": options,
        "measured": measured,
        "hardware": hardware(),
        "packages": package_versions(),
        "git": git_state(),
        "at": now(),
    }
    write_json(arguments.output, content)


if __name__ == "__main__":
    main()
