"""The overlap of two corpora: against a naive count, whatever the blocks' borders, from a sample as from all."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yarnlab import cli
from yarnlab.corpus import overlap as module
from yarnlab.corpus.overlap import WINDOW, overlap
from yarnlab.corpus.packages import CorpusError
from yarnlab.corpus.tokenizer import Special
from yarnlab.corpus.tokens import CorpusWriter, TokenisedCorpus
from yarnlab.study.load import load_study

BOS, EOS = 1, 2


def corpus(folder: Path, blocks: list[np.ndarray]) -> TokenisedCorpus:
    with CorpusWriter(folder, np.uint16, Special(bos=BOS, eos=EOS)) as writer:
        for i, block in enumerate(blocks):
            writer.add(f"block-{i}", np.concatenate(([BOS], block, [EOS])))
    return TokenisedCorpus.open(folder)


def stretches(blocks: list[np.ndarray]) -> set[bytes]:
    return {b[i : i + WINDOW].tobytes() for b in blocks for i in range(len(b) - WINDOW + 1)}


def text(seed: int, length: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, 40, length).astype(np.uint16)


@settings(deadline=None, max_examples=25)
@given(
    parts=st.lists(st.tuples(st.integers(0, 4), st.integers(WINDOW, 150)), min_size=2, max_size=8),
    cut=st.integers(1, 7),
)
def test_all_stretches_are_counted_as_by_hand(tmp_path_factory, parts, cut):
    """With every stretch drawn the shares are those of sets of stretches."""
    blocks = [text(seed, length) for seed, length in parts]
    a, b = blocks[:cut] or blocks[:1], blocks[cut:] or blocks[-1:]
    folder = tmp_path_factory.mktemp("overlap")
    found = overlap(corpus(folder / "a", a), corpus(folder / "b", b))
    first, second = stretches(a), stretches(b)
    assert found.drawn == (len(first), len(second))
    assert found.a_in_b == pytest.approx(len(first & second) / len(first))
    assert found.b_in_a == pytest.approx(len(first & second) / len(second))
    assert found.equal_blocks == len({x.tobytes() for x in a} & {x.tobytes() for x in b})


def test_other_borders_share_all_but_what_crosses_them(tmp_path, monkeypatch):
    """The same text cut elsewhere: no block in common, nearly every stretch; also where chunks of hashing end."""
    whole = text(7, 40_000)
    a = corpus(tmp_path / "a", np.split(whole, 8))
    b = corpus(tmp_path / "b", np.split(whole, 5))
    found = overlap(a, b)
    assert found.equal_blocks == 0
    assert 1 - 5 * WINDOW / 40_000 < found.a_in_b < 1
    monkeypatch.setattr(module, "CHUNK", 1000)
    assert overlap(a, b) == found


def test_a_sample_says_the_same(tmp_path):
    """One stretch in fifty, of corpora that share half: within four standard errors of the share of all."""
    half, one, two = text(1, 60_000), text(2, 60_000), text(3, 60_000)
    a, b = corpus(tmp_path / "a", [half, one]), corpus(tmp_path / "b", [two, half])
    sample, whole = overlap(a, b, drawn=2400), overlap(a, b)
    assert 1500 < sample.drawn[0] < 3500
    assert abs(sample.a_in_b - whole.a_in_b) < 4 * 0.5 / sample.drawn[0] ** 0.5


def test_the_command_prints_and_writes(tmp_path, monkeypatch, capsys):
    for name in ("pg19", "pg19-chunk"):
        corpus(tmp_path / "study" / "data" / name, [text(5, 500)])
    monkeypatch.setattr(
        sys, "argv", ["yarnlab", "overlap", "pg19", "pg19-chunk", "--study-dir", str(tmp_path / "study")]
    )
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert "100.0 %" in capsys.readouterr().out
    written = json.loads((tmp_path / "study" / "overlap" / "pg19--pg19-chunk.json").read_text())
    assert written["a_in_b"] == 1.0 and written["equal_blocks"] == 1


def test_a_corpus_that_is_not_there_is_one_message(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["yarnlab", "overlap", "x", "y", "--study-dir", str(tmp_path)])
    with pytest.raises(SystemExit):
        cli.main()
    error = capsys.readouterr().err
    assert "x" in error and "snakemake" in error and "Traceback" not in error


def test_corpora_of_other_tokenizers_are_refused(tmp_path):
    with CorpusWriter(tmp_path / "b", np.uint16, Special(bos=5, eos=6)) as writer:
        writer.add("block", text(1, 100))
    with pytest.raises(CorpusError, match="other tokenizers"):
        overlap(corpus(tmp_path / "a", [text(1, 100)]), TokenisedCorpus.open(tmp_path / "b"))


def test_too_little_text_is_refused(tmp_path):
    with pytest.raises(CorpusError, match="too little text"):
        overlap(corpus(tmp_path / "a", [text(1, 10)]), corpus(tmp_path / "b", [text(1, 100)]))


@pytest.mark.slow
def test_it_is_a_target_of_the_workflow(tmp_path):
    """Every pair of the study's corpora; again when one of the two has been made anew."""
    root = Path(__file__).resolve().parents[2]

    def run(*arguments: str) -> str:
        command = ["snakemake", "--snakefile", str(root / "Snakefile"), "--directory", str(tmp_path), "--cores", "2"]
        done = subprocess.run(
            [*command, "overlap", *arguments, "--config", "study=smoke"], capture_output=True, text=True, cwd=root
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    run()
    found = sorted((tmp_path / "results/smoke/overlap").glob("*.json"))
    corpora = load_study(root / "config/studies/smoke.yaml").corpora
    assert len(found) == len(corpora) * (len(corpora) - 1) / 2
    assert all(0 <= json.loads(file.read_text())["a_in_b"] <= 1 for file in found)
    assert "Nothing to be done" in run()
    one = next(iter(corpora))
    plan = run("--dry-run", "--forcerun", f"results/smoke/data/{one}/manifest.json")
    assert plan.count("rule shared:") == len(corpora) - 1


def test_long_work_is_seen(tmp_path, capsys, monkeypatch):
    """A line of progress at least every few seconds, up to the last token of both passes over both corpora."""
    monkeypatch.setattr(module, "CHUNK", 64)
    monkeypatch.setattr(module, "Progress", partial(module.Progress, every=0))
    a, b = corpus(tmp_path / "a", [text(0, 150)]), corpus(tmp_path / "b", [text(1, 98)])
    overlap(a, b, label="a--b")
    lines = capsys.readouterr().err.splitlines()
    assert all(" a--b: " in line for line in lines)
    assert len(lines) == 2 + 2 + 2  # chunks of a, of b, and a block of each
    assert "504/504 tokens" in lines[-1]
