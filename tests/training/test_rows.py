"""Rows of training data: what is asked for is there, every block comes once, and nothing needs a random state."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_runs import phase

from yarnlab.corpus.passkey import NAMES, NOUNS, TEST, TRAINING
from yarnlab.corpus.tokenizer import load_tokenizer
from yarnlab.study.training import Repeats, Retrieval, Rows, Train
from yarnlab.training.rows import RowError, RowSource


def test_rows_follow_from_order_and_number(source):
    """The same order gives the same rows, another order others; a resumed run needs no random state."""
    one, same, other = source(phase()), source(phase()), source(phase(), (0, 1, 0))
    for step in (3, 0):
        assert all(
            np.array_equal(a, b)
            for a, b in zip(vars(one.batch(step)).values(), vars(same.batch(step)).values(), strict=True)
        )
    assert not np.array_equal(one.batch(0).ids, one.batch(1).ids)
    assert not np.array_equal(one.batch(0).ids, other.batch(0).ids)


def test_a_span_begins_with_bos():
    """As evaluation documents and retrieval rows do; the rest is the text of the place that was drawn, all of it a
    target. BOS is the corpus's, whatever its id."""
    tokens = np.arange(1000, 3000).astype(np.uint16)
    corpus = SimpleNamespace(tokens=tokens, names=("all",), bos=7, eos=8)
    batch = RowSource(corpus, None, phase(rows=Rows(), seq_len=40), (0,)).batch(0)
    assert (batch.ids[:, 0] == 7).all() and (np.diff(batch.ids[:, 1:]) == 1).all()
    assert batch.ids.shape == (4, 41) and batch.weights.shape == (4, 40) and (batch.weights == 1).all()
    assert len(set(batch.ids[:, 1])) > 1 and (tokens == np.arange(1000, 3000)).all()


def test_noise_holds_no_bos_or_eos():
    """Whatever their ids are; every other id up to the corpus's largest may come."""
    corpus = SimpleNamespace(tokens=np.resize(np.arange(10, dtype=np.uint16), 500), names=("all",), bos=3, eos=9)
    repeats = Repeats(share=1.0, min_segment=200, max_segment=200, random=1.0)
    rows = RowSource(corpus, None, phase(rows=Rows(repeats=repeats), seq_len=300), (0,)).batch(0)
    assert set(np.unique(rows.ids)) == {0, 1, 2, 4, 5, 6, 7, 8}


def retrieval_rows(asked: str, min_keys: int = 1, max_keys: int = 3) -> Train:
    retrieval = Retrieval(share=1.0, min_keys=min_keys, max_keys=max_keys, asked=asked, answer_weight=5.0)
    return phase(rows=Rows(retrieval=retrieval), seq_len=400)


@pytest.mark.parametrize("asked", ["together", "apart"])
def test_every_answer_can_be_found_before_it(source, text, asked):
    """In a retrieval row each marked answer stands earlier in the row too, weighs more, and ids fit the window."""
    rows = source(retrieval_rows(asked))
    seen = 0
    for step in range(5):
        batch = rows.batch(step)
        assert batch.ids.shape == (4, 401)
        for ids, answers, w in zip(batch.ids, batch.answers, batch.weights, strict=True):
            assert (w[answers] == 5).all() and (w[~answers] <= 1).all()
            ends = np.flatnonzero(answers & ~np.append(answers[1:], False)) + 2
            for end in ends:
                assert ids[end - 1] == text.end[0]
                key = ids[end - 6 : end - 1].tolist()
                earlier = ids[: end - 6].tolist()
                assert any(earlier[i : i + 5] == key for i in range(len(earlier) - 4))
                seen += 1
    assert seen >= 20


def answer_ends(answers: np.ndarray) -> list[int]:
    """Positions behind each answer, in the row's ids."""
    return (np.flatnonzero(answers & ~np.append(answers[1:], False)) + 2).tolist()


def test_questions_asked_together_follow_one_another(source, text):
    """Between two answers stands nothing but the next question; some rows go on with text, others end there."""
    rows, gaps, rests = source(retrieval_rows("together", 3, 3)), set(), []
    longest = max(
        len(text.wording(phrases, f"{name} {noun}").question)
        for phrases in TRAINING
        for noun in NOUNS
        for name in NAMES
    )
    for step in range(10):
        batch = rows.batch(step)
        for answers in batch.answers:
            ends = answer_ends(answers)
            assert len(ends) == 3
            gaps |= {b - a - 6 for a, b in itertools.pairwise(ends)}
            rests.append(401 - ends[-1])
    assert gaps and max(gaps) <= longest
    assert 0.2 < np.mean([rest > 0 for rest in rests]) < 0.6


def test_a_single_key_has_no_name_and_is_asked_for_twice(source, text):
    """As in the evaluation, whose only key is nameless."""
    batch = source(retrieval_rows("together", 1, 1)).batch(0)
    for ids, answers in zip(batch.ids, batch.answers, strict=True):
        first, second = answer_ends(answers)
        assert ends_with_one_of(ids[: second - 6], nameless_questions(text))
        assert ids[first - 6 : first].tolist() == ids[second - 6 : second].tolist()


def test_questions_asked_apart_end_with_the_nameless_one(source, text):
    batch = source(retrieval_rows("apart", 2, 3)).batch(0)
    for ids, answers in zip(batch.ids, batch.answers, strict=True):
        assert answer_ends(answers)[-1] == 401
        assert ends_with_one_of(ids[: 401 - 6], nameless_questions(text))


def nameless_questions(text):
    return [text.wording(phrases, noun).question for phrases in TRAINING for noun in NOUNS]


def ends_with_one_of(ids, questions) -> bool:
    return any(ids[-len(question) :].tolist() == question.tolist() for question in questions)


@pytest.mark.parametrize("asked", ["together", "apart"])
def test_training_never_sees_the_words_of_the_test(source, text, tiny_data, asked):
    """Neither what the key is called there nor a sentence about it."""
    tokenizer = load_tokenizer(tiny_data / "tokenizer")
    rows = source(retrieval_rows(asked, 2, 3))
    seen = "".join(tokenizer.decode(ids.tolist()) for step in range(5) for ids in rows.batch(step).ids).lower()
    assert "pass key" not in seen
    words = {part.strip(" .#\n") for phrases in TRAINING for part in vars(phrases).values()}
    assert words.isdisjoint(part.strip(" .#\n") for part in vars(TEST).values())


def blocks(count: int, length: int):
    """A corpus of blocks that say who they are: token 1000·i + position."""
    tokens = np.concatenate([1000 * i + np.arange(length) for i in range(count)]).astype(np.uint16)
    return SimpleNamespace(
        tokens=tokens,
        names=tuple(f"block {i}" for i in range(count)),
        document=lambda i: tokens[i * length : (i + 1) * length],
    )


def test_every_block_comes_once_before_any_comes_twice():
    """Rows are blocks from their beginning, cut to seq_len; each pass has them all, in another order; no passkey text
    is needed. Another order of the data gives another permutation."""
    chosen = phase(rows=Rows(text="blocks"), seq_len=30, global_batch=2, micro_batch=1)

    def passes(order):
        rows = RowSource(blocks(5, 40), None, chosen, order)
        drawn = np.concatenate([rows.batch(step).ids for step in range(10)])
        assert (np.diff(drawn[:, :30]) == 1).all() and (drawn[:, 0] % 1000 == 0).all()
        return (drawn[:, 0] // 1000).reshape(4, 5)

    first = passes((0, 0, 0))
    assert (np.sort(first) == np.arange(5)).all()
    assert len({tuple(one) for one in first}) > 1
    assert (first == passes((0, 0, 0))).all() and (first != passes((1, 0, 0))).any()


def test_a_block_has_no_target_behind_its_end():
    """seq_len ids and seq_len − 1 targets, as in the official run; the shapes are those of other rows."""
    batch = RowSource(blocks(4, 40), None, phase(rows=Rows(text="blocks"), seq_len=40), (0,)).batch(0)
    assert batch.ids.shape == (4, 41) and batch.weights.shape == (4, 40)
    assert (batch.weights[:, :-1] == 1).all() and (batch.weights[:, -1] == 0).all()


def test_a_block_that_is_too_short_is_named():
    with pytest.raises(RowError, match=r"block block \d of corpus train has 40 tokens, seq_len is 41"):
        RowSource(blocks(4, 40), None, phase(rows=Rows(text="blocks"), seq_len=41), (0,)).batch(0)


def test_plain_text_needs_no_passkey_text_and_questions_do():
    with pytest.raises(RowError, match="asks for keys"):
        RowSource(blocks(4, 40), None, retrieval_rows("apart"), (0,))
