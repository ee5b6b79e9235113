"""One pass for the whole perplexity curve beside the official loop, which runs every length on its own.

Both run in this process on the same model, documents, threads, precision, attention and chunked loss; they take turns
document by document, so that whatever else the machine does falls on both. Prints a table, writes it as JSON beside
this file, and ends with status 1 if a target is missed: 15 times as fast, the same numbers to 1e-4 nats.

    envs/run python benchmarks/perplexity_curve.py
    envs/run python benchmarks/perplexity_curve.py --study-dir results/smoke --model yarn-s16 --longest 1024
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LENGTHS = 64  # evenly spaced up to the longest
TARGET_SPEEDUP, TARGET_DIFFERENCE = 15.0, 1e-4


@dataclass(frozen=True)
class Turn:
    """One document both ways: seconds, and the mean NLL in nats at every length."""

    document: str
    one_pass_s: float
    loop_s: float
    one_pass: list[float]
    loop: list[float]

    @property
    def speedup(self) -> float:
        return self.loop_s / self.one_pass_s

    @property
    def difference(self) -> float:
        return max(abs(a - b) for a, b in zip(self.one_pass, self.loop, strict=True))


def main() -> None:
    arguments = parse()
    model = arguments.study_dir / "models" / arguments.model
    for manifest in (model / "manifest.json", arguments.study_dir / "data" / arguments.corpus / "manifest.json"):
        if not manifest.exists():
            sys.exit(
                f"{manifest} does not exist: train the study first (envs/run snakemake --cores all --config "
                f"study={arguments.study_dir.name}), or name another with --study-dir, --model and --corpus"
            )
    if arguments.longest < 2 * LENGTHS or arguments.longest % LENGTHS:
        sys.exit(f"--longest {arguments.longest} must be a multiple of {LENGTHS}, from {2 * LENGTHS} on")
    step = arguments.longest // LENGTHS
    lengths = tuple(range(step, arguments.longest + 1, step))
    print(f"{arguments.model}: {LENGTHS} lengths, {lengths[0]} to {lengths[-1]} tokens, {arguments.precision}")
    print(f"{'one pass':>10} {'loop':>10} {'speed-up':>9} {'max |Δ nll|':>12}  document")
    turns = []
    for turn in take_turns(arguments, lengths):
        turns.append(turn)
        print(line(turn.one_pass_s, turn.loop_s, turn.difference, turn.document), flush=True)
    measured = summary(turns)
    print(line(measured["one_pass_s"], measured["loop_s"], measured["max_difference"], f"all {len(turns)}"))
    met = measured["speedup"] >= TARGET_SPEEDUP and measured["max_difference"] <= TARGET_DIFFERENCE
    print(f"target: {TARGET_SPEEDUP:g}x and {TARGET_DIFFERENCE:g} nats; {'met' if met else 'missed'}")
    write(arguments, lengths, turns, measured)
    sys.exit(not met)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study-dir", type=Path, default=Path("results/micro"), help="a study with trained models")
    parser.add_argument("--model", default="yarn-s16-seed42", help="one of the study's models (default: %(default)s)")
    parser.add_argument("--corpus", default="held-out", help="one of the study's corpora (default: %(default)s)")
    parser.add_argument("--documents", type=int, default=4, help="how many, from the first (default: %(default)s)")
    parser.add_argument("--longest", type=int, default=4096, help="longest length in tokens (default: %(default)s)")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"), help="the JSON file")
    arguments = parser.parse_args()
    if arguments.documents < 1 or arguments.threads < 1:
        parser.error("--documents and --threads must be at least 1")
    return arguments


def take_turns(arguments: argparse.Namespace, lengths: tuple[int, ...]) -> Iterator[Turn]:
    """Each document both ways, after one untimed pass over the first: the first pass fetches memory and kernels."""
    import torch

    from yarnlab.corpus.tokens import TokenisedCorpus
    from yarnlab.evaluation.nll import cumulative_and_bucket_means, token_nll
    from yarnlab.modeling import autocast, load_model, rope_of, use_fast_attention

    folder = arguments.study_dir / "models" / arguments.model
    rope = rope_of(json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["spec"])
    if rope.dynamic:
        sys.exit(
            f"{arguments.model} has {rope.method}, which rescales with the input's length: it has no one-pass curve"
        )
    torch.set_num_threads(arguments.threads)
    model = load_model(folder, rope)
    use_fast_attention(model)
    corpus = TokenisedCorpus.open(arguments.study_dir / "data" / arguments.corpus)
    for i, name in enumerate(corpus.names[: arguments.documents]):
        ids = corpus.document(i)[:-1]
        if len(ids) < lengths[-1]:
            sys.exit(f"document {name} has {len(ids)} tokens with BOS, --longest asks for {lengths[-1]}: lower it")
        with autocast(arguments.precision):
            if i == 0:
                token_nll(model, ids[None, : lengths[-1]])
            start = time.perf_counter()
            rows = cumulative_and_bucket_means(token_nll(model, ids[None, : lengths[-1]])[0], lengths)
            middle = time.perf_counter()
            loop = [float(token_nll(model, ids[None, :length]).mean(dtype="float64")) for length in lengths]
            end = time.perf_counter()
        yield Turn(name, middle - start, end - middle, [row["nll"] for row in rows], loop)


def summary(turns: list[Turn]) -> dict[str, float]:
    one_pass, loop = sum(turn.one_pass_s for turn in turns), sum(turn.loop_s for turn in turns)
    difference = max(turn.difference for turn in turns)
    return {"one_pass_s": one_pass, "loop_s": loop, "speedup": loop / one_pass, "max_difference": difference}


def line(one_pass_s: float, loop_s: float, difference: float, document: str) -> str:
    return f"{one_pass_s:>8.2f} s {loop_s:>8.2f} s {loop_s / one_pass_s:>8.1f}x {difference:>12.1e}  {document}"


def write(
    arguments: argparse.Namespace, lengths: tuple[int, ...], turns: list[Turn], measured: dict[str, float]
) -> None:
    from yarnlab.provenance import git_state, hardware, now, package_versions, write_json

    machine = {key: value for key, value in hardware().items() if key in ("cpu", "cores", "threads", "memory_bytes")}
    content: dict[str, Any] = {
        "study": arguments.study_dir.name,
        "model": arguments.model,
        "corpus": arguments.corpus,
        "precision": arguments.precision,
        "lengths": lengths,
        "targets": {"speedup": TARGET_SPEEDUP, "max_difference": TARGET_DIFFERENCE},
        "measured": measured,
        "documents": [
            {
                "document": turn.document,
                "one_pass_s": turn.one_pass_s,
                "loop_s": turn.loop_s,
                "speedup": turn.speedup,
                "max_difference": turn.difference,
                "nll": turn.one_pass,
            }
            for turn in turns
        ],
        "time": now(),
        "machine": machine,
        "load_average": os.getloadavg(),
        "versions": {key: version for key, version in package_versions().items() if key in ("python", "torch")},
        "code": git_state(),
    }
    write_json(arguments.output, content)
    print(f"wrote {arguments.output}")


if __name__ == "__main__":
    main()
