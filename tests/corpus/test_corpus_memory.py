"""Preparing a corpus takes memory for a batch of text, not for the corpus."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

MB = 2**20
BOUND = 4 * 2**30
# Peak resident bytes of this process and its children, in units that Linux reports in KiB.
JOB = """
import json, resource, sys
from pathlib import Path
from yarnlab.corpus.build import build_corpus
spec, tokenizer, asset, folder = json.loads(sys.argv[1]), *map(Path, sys.argv[2:])
facts = build_corpus(spec, tokenizer, folder, asset=asset, log=None)
print(json.dumps({"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "tokens": facts["tokens"]}))
"""


def books(folder: Path, megabytes: int) -> Path:
    """A dataset of books of about 400 kB, as PG19's, in Parquet files of 20 MB."""
    rng, words = np.random.default_rng(0), np.array(["whale", "ship", "sea", "captain", "the", "of", "and", "white"])
    (folder / "data").mkdir(parents=True)
    for number in range(megabytes // 20):
        texts = [" ".join(rng.choice(words, 80_000)) for _ in range(50)]
        pd.DataFrame({"text": texts}).to_parquet(folder / f"data/train-{number:03d}.parquet")
    return folder


def peak(asset: Path, tokenizer: Path, folder: Path) -> tuple[int, int]:
    corpus = {"source": "hub-text", "format": "parquet", "files": ["data/*.parquet"], "column": "text"}
    spec = {"corpus": corpus | {"blocks": {"length": 65536, "bookends": "chunk"}}, "seed": 0}
    arguments = [json.dumps(spec), str(tokenizer), str(asset), str(folder)]
    done = subprocess.run([sys.executable, "-c", JOB, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    return found["peak"], found["tokens"]


@pytest.mark.slow
def test_eight_times_the_text_takes_the_same_memory(tmp_path):
    """20 and 160 MB of text: the peak stays below 4 GiB and grows by less than a fifth of the added text."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from standin.repositories import llama_tokenizer

    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    llama_tokenizer(["the whale and the white ship of the captain, the sea"], 300).save(
        str(tokenizer / "tokenizer.json")
    )
    (tokenizer / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    small, few = peak(books(tmp_path / "small", 20), tokenizer, tmp_path / "a")
    large, many = peak(books(tmp_path / "large", 160), tokenizer, tmp_path / "b")
    print(f"peak {small / MB:,.0f} MiB for {few:,} tokens, {large / MB:,.0f} MiB for {many:,}")
    assert many > 7 * few and large < BOUND
    assert large - small < 28 * MB
