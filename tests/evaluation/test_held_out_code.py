"""The questions must be fair: answerable from what is shown, the same for all, and free of give-aways."""

from __future__ import annotations

import re
from collections import Counter
from functools import partial

import numpy as np
import pytest

from yarnlab.corpus.tokenizer import load_tokenizer
from yarnlab.corpus.tokens import TokenisedCorpus
from yarnlab.evaluation.documents import EvaluationError
from yarnlab.evaluation.held_out_code import CODE_TASKS, QUESTION_TYPES, build_questions

ITEMS, ROOM = 16, 127


@pytest.fixture(scope="module")
def tokenizer(tiny_data):
    return load_tokenizer(tiny_data / "tokenizer")


@pytest.fixture(scope="module")
def corpus(tiny_data):
    return TokenisedCorpus.open(tiny_data / "held")


@pytest.fixture(scope="module")
def by_task(tokenizer, corpus):
    return build_questions(tokenizer, corpus, items=ITEMS, shots=0, max_tokens=ROOM, seed=3, tasks=[*QUESTION_TYPES])


@pytest.fixture(scope="module")
def texts(tokenizer, corpus):
    return {
        name: tokenizer.decode(corpus.document(i)[1:-1].tolist(), skip_special_tokens=False)
        for i, name in enumerate(corpus.names)
    }


def test_the_right_choice_is_what_the_document_says_and_no_wrong_one_is(by_task, texts):
    """Context and right choice stand in the document word for word; with a wrong choice they don't."""
    for questions in by_task.values():
        for question in questions:
            text = texts[question.document]
            stands = [question.context + choice in text for choice in question.choices]
            assert [k for k, found in enumerate(stands) if found] == [question.gold]


def test_positions_are_balanced_and_no_question_comes_twice(by_task):
    for task, questions in by_task.items():
        assert Counter(q.gold for q in questions) == dict.fromkeys(range(4), ITEMS // 4), task
        assert len({q.context + q.choices[q.gold] for q in questions}) == ITEMS
        assert all(len(set(q.choices)) == 4 for q in questions)
        if task in CODE_TASKS:  # only one of these documents has sentences
            assert len({q.document for q in questions}) > 1


def test_every_prompt_has_room_and_splits_where_a_token_ends(by_task, tokenizer):
    """So a choice's tokens are the same whether it is encoded with its context or after it, for every model."""
    for questions in by_task.values():
        for question in questions:
            context = tokenizer.encode(question.context, add_special_tokens=False).ids
            assert len(context) >= ROOM // 2
            for choice in question.choices:
                whole = tokenizer.encode(question.context + choice, add_special_tokens=False).ids
                assert whole[: len(context)] == context
                assert len(context) < len(whole) <= ROOM


def test_questions_depend_on_the_seed_and_not_on_their_number(by_task, tokenizer, corpus):
    """A longer list begins with the shorter one; another seed asks other questions."""
    made = partial(build_questions, tokenizer, corpus, shots=0, max_tokens=ROOM, tasks=[*QUESTION_TYPES])
    longer = made(items=ITEMS + 4, seed=3)
    assert {task: questions[:ITEMS] for task, questions in longer.items()} == by_task
    other = made(items=ITEMS, seed=4)
    assert all(other[task] != by_task[task] for task in QUESTION_TYPES)


def test_questions_of_a_task_do_not_depend_on_which_others_are_asked(by_task, tokenizer, corpus):
    alone = build_questions(tokenizer, corpus, items=ITEMS, shots=0, max_tokens=ROOM, seed=3, tasks=["last-word"])
    assert alone == {"last-word": by_task["last-word"]}
    unnamed = build_questions(tokenizer, corpus, items=ITEMS, shots=0, max_tokens=ROOM, seed=3)
    assert unnamed == {task: by_task[task] for task in CODE_TASKS}


def test_a_last_word_ends_its_sentence_and_stood_before(by_task, texts):
    """No other choice can be told from the right one by where it stands: all are words of the context."""
    for question in by_task["last-word"]:
        right = question.choices[question.gold]
        after = texts[question.document].partition(question.context + right)[2]
        assert after[0] in ".?!" and after[1].isspace()
        assert all(re.search(re.escape(choice) + r"\b", question.context) for choice in question.choices)


def test_the_wrong_choices_fit_their_task(by_task):
    """Lines of similar length and equal indentation, pairs of brackets, names that the context holds."""
    for question in by_task["next-line"]:
        right = question.choices[question.gold]
        for choice in question.choices:
            assert re.match(r"\n *", choice)[0] == re.match(r"\n *", right)[0]
            assert 0.8 <= len(choice.strip()) / len(right.strip()) <= 1.25
    for question in by_task["brackets"]:
        assert set(question.choices) == {"))", "])", ")]", "]]"}
    for question in by_task["identifier"]:
        assert all(choice in question.context for choice in question.choices)


def test_brackets_are_not_answered_by_the_commonest_pair(by_task):
    """Each pair is right in a quarter of the questions where the corpus has all four."""
    rights = Counter(q.choices[q.gold] for q in by_task["brackets"])
    assert max(rights.values()) <= ITEMS // 2


def test_examples_are_questions_of_their_own_and_leave_room(tokenizer, corpus):
    """With two examples before it, a prompt with its longest choice still has at most 255 tokens."""
    by_task = build_questions(tokenizer, corpus, items=8, shots=2, max_tokens=255, seed=0)
    for questions in by_task.values():
        *asked, first, second = questions
        assert len(asked) == 8 and first not in asked and second not in asked
        examples = "".join(q.context + q.choices[q.gold] + "\n\n" for q in (first, second))
        for question in asked:
            for choice in question.choices:
                text = examples + question.context + choice
                assert len(tokenizer.encode(text, add_special_tokens=False).ids) <= 255


@pytest.mark.parametrize(
    ("shots", "max_tokens", "message"),
    [
        (
            200,
            255,
            "200 shots and a question of 16 tokens or more each do not fit into 255 tokens; at most 11 shots do",
        ),
        (3, 79, "at most 2 shots do"),
        (0, 15, "a question takes 16 tokens at least, a prompt may have 15"),
    ],
)
def test_more_examples_than_fit_are_an_error_that_says_how_many_do(tokenizer, corpus, shots, max_tokens, message):
    with pytest.raises(EvaluationError, match=message):
        build_questions(tokenizer, corpus, items=10, shots=shots, max_tokens=max_tokens, seed=0)


def test_a_line_longer_than_the_room_is_passed_over(tokenizer):
    """Nothing before it would fit; the last line, indented by more than a prompt holds, is no index error."""
    ids = tokenizer.encode("value = 1\n" * 20 + " " * 300 + "return something\n").ids
    deep = TokenisedCorpus(np.array([0, *ids, 1]), ("deep.py",), (0,), (len(ids) + 2,))
    with pytest.raises(EvaluationError, match=r"only 0 of 10 next-line questions of at most 20 tokens"):
        build_questions(tokenizer, deep, items=10, shots=0, max_tokens=20, seed=0)


def test_a_corpus_too_small_for_the_questions_is_an_error(tokenizer, corpus):
    """A document of 300 tokens has no hundred places to ask about the next line."""
    small = TokenisedCorpus(np.asarray(corpus.document(0)[:300]), ("only.py",), (0,), (300,))
    with pytest.raises(EvaluationError, match=r"only \d+ of 100 next-line questions of at most 127 tokens"):
        build_questions(tokenizer, small, items=100, shots=0, max_tokens=ROOM, seed=0)
