"""Rows of several corpora: each has its share, its rows do not depend on the others, and one corpus is as before."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_runs import phase

from yarnlab.study.load import load_study
from yarnlab.study.read import StudyError
from yarnlab.study.training import Rows
from yarnlab.training.mixture import realised, row_source
from yarnlab.training.rows import RowError, RowSource

SIZE = 1000


def corpus(number: int, blocks: int = 20, length: int = 40) -> SimpleNamespace:
    """Ids that say which corpus they are of, and which block: SIZE · number + block, repeated."""
    tokens = np.repeat(SIZE * number + np.arange(blocks), length).astype(np.uint16)
    return SimpleNamespace(
        tokens=tokens,
        names=tuple(map(str, range(blocks))),
        bos=0,
        eos=0,
        document=lambda i: tokens[i * length : (i + 1) * length],
    )


CORPORA = {"a": corpus(1), "b": corpus(2), "c": corpus(3)}


def mixed(weights: dict[str, float] | str, text: str = "spans", steps: int = 500):
    return phase(corpus=weights, rows=Rows(text=text), seq_len=30, global_batch=4, micro_batch=1, steps=steps)


def drawn(chosen, order=(0, 0, 0)) -> np.ndarray:
    """The second id of each row: which corpus, which block."""
    rows = row_source(CORPORA, None, chosen, order)
    return np.concatenate([rows.batch(step).ids[:, 1] for step in range(chosen.steps)])


def test_each_corpus_has_its_share_of_the_rows():
    """Weights count by their ratios; 2,000 rows come within three standard errors, and what is recorded is what came."""
    chosen = mixed({"a": 6, "b": 3, "c": 1})
    found = drawn(chosen) // SIZE
    recorded = realised(chosen, (0, 0, 0))
    for name, number, share in (("a", 1, 0.6), ("b", 2, 0.3), ("c", 3, 0.1)):
        assert (found == number).mean() == recorded[name]
        assert abs(recorded[name] - share) < 3 * (share * (1 - share) / 2000) ** 0.5
    assert realised(mixed({"a": 0.6, "b": 0.3, "c": 0.1}), (0, 0, 0)) == recorded
    assert chosen.shares == pytest.approx({"a": 0.6, "b": 0.3, "c": 0.1})


def test_rows_follow_from_order_and_number():
    """Another seed gives others, a longer training no other beginning, another spelling of the mapping none at all."""
    short, long = drawn(mixed({"a": 1, "b": 2}, steps=20)), drawn(mixed({"b": 2, "a": 1}, steps=60))
    assert (short == long[: len(short)]).all()
    assert (short != drawn(mixed({"a": 1, "b": 2}, steps=20), (1, 0, 0))).any()
    rows = row_source(CORPORA, None, mixed({"a": 1, "b": 2}, steps=20), (0, 0, 0))
    assert (np.concatenate([rows.batch(7, slice(0, 2)).ids, rows.batch(7, slice(2, 4)).ids]) == rows.batch(7).ids).all()


def test_other_shares_change_no_corpus_s_rows():
    """Arms that differ in the mixture see the same text of each corpus in the same order, more or less of it."""
    few, many = drawn(mixed({"a": 1, "b": 9})), drawn(mixed({"a": 9, "b": 1}))
    for number in (1, 2):
        one, other = few[few // SIZE == number], many[many // SIZE == number]
        assert len(one) != len(other)
        shorter = min(len(one), len(other))
        assert (one[:shorter] == other[:shorter]).all()


def test_every_block_of_a_corpus_comes_once_before_any_comes_twice():
    found = drawn(mixed({"a": 1, "b": 1}, text="blocks", steps=30))
    for number in (1, 2):
        own = found[found // SIZE == number] % SIZE
        passes = [own[at : at + 20] for at in range(0, len(own) - 19, 20)]
        assert len(passes) >= 2 and all(sorted(one) == list(range(20)) for one in passes)
    assert (found[found // SIZE == 1][:20] % SIZE != found[found // SIZE == 2][:20] % SIZE).any()


def test_one_corpus_gives_the_rows_that_it_always_gave():
    """Named, or as a mapping of one: results that were made before mixtures stay what they are."""
    expected = RowSource(CORPORA["a"], None, mixed("a"), (0, 0, 0)).batch(3)
    for weights in ("a", {"a": 5}):
        found = row_source(CORPORA, None, mixed(weights), (0, 0, 0)).batch(3)
        assert (found.ids == expected.ids).all() and (found.weights == expected.weights).all()


def test_a_corpus_that_is_too_short_is_named():
    with pytest.raises(RowError, match="corpus short has 80 tokens"):
        row_source({**CORPORA, "short": corpus(4, blocks=2)}, None, mixed({"a": 1, "short": 1}), (0, 0, 0))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("{train: 1, trian: 2}", r"\.corpus\.trian: there is no corpus 'trian'; did you mean 'train'\?"),
        ("{train: 1, held-out: 2}", r"corpora\.held-out\.packages: .* is training text too \(corpus held-out\)"),
        ("{train: 0}", r"corpus\.train: input should be greater than 0"),
        ("{}", r"\.corpus: dictionary should have at least 1 item"),
    ],
)
def test_a_mixture_is_checked_before_anything_runs(tmp_path, weights, message):
    """Each of its corpora as one alone: it exists, and nothing of it is evaluated on."""
    from how_tos import ROOT

    smoke = (ROOT / "config" / "studies" / "smoke.yaml").read_text()
    assert "corpus: train" in smoke
    shutil.copy(ROOT / "config" / "studies" / "micro.yaml", tmp_path)
    (tmp_path / "smoke.yaml").write_text(smoke.replace("corpus: train", f"corpus: {weights}", 1))
    with pytest.raises(StudyError, match=message):
        load_study(tmp_path / "smoke.yaml")
