"""NLL of one document by this project and by stock transformers: same weights, fp32, one line for each method.

    python benchmarks/stock_nll.py results/smollm2 --length 16384 --methods none yarn

Takes the study's root model, which has plain RoPE, and its first corpus that begins with a document of that length,
after `snakemake models data`. Stock is transformers' own class and attention with the method's `rope_parameters` in its
config; the head is its own too, on 1,024 positions at a time.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from yarnlab import attention
from yarnlab.corpus.tokens import TokenisedCorpus
from yarnlab.evaluation.nll import token_nll
from yarnlab.modeling import load_model, set_rope
from yarnlab.rope import Rope, make_rope

CHUNK = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--length", type=int, default=16384)
    parser.add_argument("--scale", type=float, default=2.0)
    parser.add_argument("--methods", nargs="+", default=["none", "yarn"])
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    models = json.loads((args.results / "study.json").read_text())["models"]
    name, root = next((name, model) for name, model in models.items() if model["parent"] is None)
    folder, ids = args.results / "models" / name, document(args.results, args.length)
    for method in args.methods:
        shape = {"original_context": root["original_context"], "head_dim": root["head_dim"], "base": root["rope_theta"]}
        rope = make_rope(method, scale=args.scale, **shape)
        begin = time.process_time()
        own = own_nll(folder, make_rope("none", **shape), rope, ids)
        middle = time.process_time()
        stock = stock_nll(folder, rope, ids)
        seconds = f"{middle - begin:.0f} and {time.process_time() - middle:.0f} CPU-s"
        last = 3 * len(own) // 4
        print(
            f"{method}, {args.length:,} tokens: NLL {own.mean():.6f}, stock {stock.mean():.6f}, difference "
            f"{own.mean() - stock.mean():+.1e}, of one token at most {np.abs(own - stock).max():.1e}; last quarter "
            f"{own[last:].mean():.4f}; {seconds}",
            flush=True,
        )


def document(results: Path, length: int) -> np.ndarray:
    """The first `length` ids of the first document of a corpus that has so long ones."""
    for folder in sorted((results / "data").glob("*/tokens.npy")):
        corpus = TokenisedCorpus.open(folder.parent)
        if corpus.lengths[0] > length:
            return corpus.document(0)[:length].astype(np.int64)
    raise SystemExit(f"no corpus below {results / 'data'} begins with a document of {length:,} tokens")


def own_nll(folder: Path, plain: Rope, rope: Rope, ids: np.ndarray) -> np.ndarray:
    model = load_model(folder, plain)
    set_rope(model, rope)
    model.set_attn_implementation(attention.choose(model))
    return token_nll(model, ids[None])[0]


def stock_nll(folder: Path, rope: Rope, ids: np.ndarray) -> np.ndarray:
    config = AutoConfig.from_pretrained(folder)
    config.rope_parameters = rope.to_hf()
    config.max_position_embeddings = rope.context
    model = AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32).eval()
    inputs = torch.from_numpy(ids)[None]
    with torch.inference_mode():
        hidden = model.model(inputs[:, :-1], use_cache=False)[0][0]
        parts = zip(hidden.split(CHUNK), inputs[0, 1:].split(CHUNK), strict=True)
        return torch.cat(
            [torch.nn.functional.cross_entropy(model.lm_head(h), t, reduction="none") for h, t in parts]
        ).numpy()


if __name__ == "__main__":
    main()
