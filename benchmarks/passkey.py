"""Passkey by teacher forcing beside generation, on the same prompts, with the same threads and precision.

    envs/run python benchmarks/passkey.py --study-dir results/micro --model yarn-s16-seed42

Generation is the official loop (eval/passkey.py): one prompt at a time through transformers' `generate` with a
key-value cache and torch's sdpa attention, greedy, up to ten new tokens; tokenising and decoding are not counted.
Teacher forcing is the evaluation `passkey` as the study runs it. Every trial's strict hit is compared with what was
generated. Prints a table and writes the figures to a JSON file; exits with status 1 if a trial disagrees.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from yarnlab.corpus.passkey import PasskeyText
from yarnlab.corpus.tokens import TokenisedCorpus
from yarnlab.evaluation.passkey import TOKENS_PER_BATCH, batches, document_fillers, draw_trial, score_answers
from yarnlab.evaluation.passkey_official import continuation
from yarnlab.modeling import autocast, load_model, rope_of, use_fast_attention
from yarnlab.stages import Layout

NEW_TOKENS = 10


def main() -> None:
    arguments = read_arguments()
    torch.set_num_threads(arguments.threads)
    layout = Layout(arguments.study_dir)
    folder = layout.model(arguments.model)
    rope = rope_of(json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["spec"])
    model = load_model(folder, rope)
    text = PasskeyText.load(folder)
    fillers = document_fillers(text, TokenisedCorpus.open(layout.corpus(arguments.corpus)))
    digits = torch.from_numpy(text.digit_ids())

    rows = []
    print(f"{'length':>7} {'forced, s':>10} {'generated, s':>13} {'speed-up':>9} {'hits':>7} {'agree':>7}")
    for length in arguments.lengths:
        trials = [
            draw_trial(text, fillers, length, i, arguments.trials, arguments.seed) for i in range(arguments.trials)
        ]
        trials = [trial for batch in batches(trials, len(trials)) for trial in batch]  # in the order of scoring
        score(model, trials[:1], digits, length, arguments.precision)  # once each before the clock
        generate(model, trials[:1], arguments.precision)
        forced, scores = score(model, trials, digits, length, arguments.precision)
        generated, continuations = generate(model, trials, arguments.precision)
        agree = [
            bool(one["hit"]) == says_key(tokens, trial["answer"], digits)
            for one, tokens, trial in zip(scores, continuations, trials, strict=True)
        ]
        row = {
            "length": length,
            "forced_seconds": forced,
            "generated_seconds": generated,
            "hits": sum(one["hit"] for one in scores),
            "agree": sum(agree),
            "margins_where_not": [one["margin"] for one, same in zip(scores, agree, strict=True) if not same],
        }
        rows.append(row)
        show(length, row, arguments.trials)
    total = {key: sum(row[key] for row in rows) for key in ("forced_seconds", "generated_seconds", "hits", "agree")}
    show("all", total, arguments.trials * len(rows))
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(arguments).items()}
    speed_up = total["generated_seconds"] / total["forced_seconds"]
    result = {"settings": settings, "torch": torch.__version__, "lengths": rows, "total": total, "speed_up": speed_up}
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    raise SystemExit(total["agree"] != arguments.trials * len(rows))


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study-dir", type=Path, default=Path("results/micro"), help="a study's results folder")
    parser.add_argument("--model", default="yarn-s16-seed42", help="one of its models with a static rope")
    parser.add_argument("--corpus", default="held-out", help="the corpus that the filler is cut from")
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 256, 512, 1024, 2048, 4096])
    parser.add_argument("--trials", type=int, default=10, help="per length")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    return parser.parse_args()


def score(
    model: Any, trials: list[dict[str, Any]], digits: torch.Tensor, length: int, precision: str
) -> tuple[float, list[dict[str, Any]]]:
    """Seconds and scores of teacher forcing, batched as the study does."""
    use_fast_attention(model)
    start, scores = time.perf_counter(), []
    for batch in batches(trials, max(1, TOKENS_PER_BATCH // length)):
        prompts, answers = (np.stack([trial[key] for trial in batch]) for key in ("prompt", "answer"))
        with autocast(precision):
            scores += score_answers(model, prompts, answers, digits)
    return time.perf_counter() - start, scores


def generate(model: Any, trials: list[dict[str, Any]], precision: str) -> tuple[float, list[list[int]]]:
    """Seconds and new tokens of the official loop."""
    model.set_attn_implementation("sdpa")
    start, continuations = time.perf_counter(), []
    for trial in trials:
        with autocast(precision):
            continuations.append(continuation(model, trial["prompt"].tolist(), NEW_TOKENS, "greedy", seed=0))
    return time.perf_counter() - start, continuations


def says_key(tokens: list[int], answer: np.ndarray, digits: torch.Tensor) -> bool:
    """Whether the tokens begin with the answer and don't go on with another digit."""
    count = len(answer)
    return tokens[:count] == answer.tolist() and not torch.isin(torch.tensor(tokens[count : count + 1]), digits).any()


def show(label: object, row: dict[str, Any], trials: int) -> None:
    forced, generated = row["forced_seconds"], row["generated_seconds"]
    print(
        f"{label!s:>7} {forced:10.3f} {generated:13.3f} {generated / forced:8.1f}x "
        f"{row['hits']:>3}/{trials:<3} {row['agree']:>3}/{trials:<3}"
    )


if __name__ == "__main__":
    main()
