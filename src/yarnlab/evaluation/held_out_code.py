"""held-out-code: multiple-choice questions cut from Python files that no model was trained on.

For models too small for the paper's benchmarks. Each question is a stretch of a file and four ways to go on:

- next-line: the line that follows, or one of three lines of similar length from elsewhere in the file, indented alike;
- brackets: the two brackets that close here, or one of the three other pairs of ) and ];
- identifier: the name that stands here and stood before, or one of three other names from the same stretch;
- last-word: the word that ends this sentence and stood before, or one of three other words from the same stretch: as in
  LAMBADA (arXiv 1606.06031), for texts with sentences, so that it is asked where a study names it.

The right choice takes each of the four positions in turn, so that no habit of a model's is rewarded.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING

from yarnlab.evaluation.documents import EvaluationError
from yarnlab.lazy import np

if TYPE_CHECKING:
    import tokenizers

    from yarnlab.corpus.tokens import TokenisedCorpus

# Tokens kept free for what joins an example to the next, and those that a question takes at least.
JOINT, LEAST_QUESTION = 4, 16
CHOICES = 4
CANDIDATES = 64  # places looked at in a document before it is the next one's turn
LEAST_CONTEXT = 0.5  # share of the room for tokens: nearer to a file's start there is too little to go by
PAIRS = ("))", "])", ")]", "]]")
NAME = re.compile(r"(?<![\w'\"\\])[A-Za-z_]\w{3,}")
WORD = re.compile(r" [a-z]{4,}\b")  # with the blank before it, which is a part of its first token
CODE_TASKS = ("next-line", "brackets", "identifier")


@dataclass(frozen=True)
class Question:
    """`context` goes on with `choices[gold]`; every choice begins where a token of the context ends."""

    document: str
    context: str
    choices: tuple[str, ...]
    gold: int


@dataclass(frozen=True)
class QuestionType:
    """A task: where a text can be cut, and what else could stand there.

    place: matches the right continuation.
    accepts: whether a match will do, given a count that rises as the questions go on.
    others: wrong continuations, from (the right one, the whole text, the context).
    """

    place: re.Pattern[str]
    accepts: Callable[[str, int], bool]
    others: Callable[[str, str, str], list[str]]


@dataclass(frozen=True)
class Document:
    """starts[k]: the character at which token k begins."""

    name: str
    text: str
    starts: np.ndarray

    @classmethod
    def read(cls, tokenizer: tokenizers.Tokenizer, corpus: TokenisedCorpus, i: int) -> Document:
        text = tokenizer.decode(corpus.document(i)[1:-1].tolist(), skip_special_tokens=False)
        offsets = tokenizer.encode(text, add_special_tokens=False).offsets
        return cls(corpus.names[i], text, np.array([first for first, _ in offsets]))

    def context(self, position: int, tokens: int) -> str:
        """The unfinished line before `position` and the whole lines before it that fit into about `tokens` tokens."""
        first = int(self.starts.searchsorted(position)) - tokens
        start = 0 if first <= 0 else self.text.find("\n", int(self.starts[first])) + 1
        return self.text[start:position]


def question_tokens(max_tokens: int, shots: int) -> int:
    """Tokens for each question where `shots` examples and one question share `max_tokens`.

    Raises ValueError where these are too few for a question; the message says how many examples fit.
    """
    room = max_tokens // (shots + 1) - (JOINT if shots else 0)
    if room >= LEAST_QUESTION:
        return room
    if max_tokens < LEAST_QUESTION:
        raise ValueError(f"a question takes {LEAST_QUESTION} tokens at least, a prompt may have {max_tokens}")
    most = max(0, max_tokens // (LEAST_QUESTION + JOINT) - 1)
    raise ValueError(
        f"{shots} shots and a question of {LEAST_QUESTION} tokens or more each do not fit into {max_tokens} tokens; "
        f"at most {most} shots do"
    )


def build_questions(
    tokenizer: tokenizers.Tokenizer,
    corpus: TokenisedCorpus,
    *,
    items: int,
    shots: int,
    max_tokens: int,
    seed: int,
    tasks: Sequence[str] = CODE_TASKS,
) -> dict[str, list[Question]]:
    """`items` + `shots` questions of each of `tasks`; the last `shots` are the examples put before the others.

    Question i depends on the corpus, (seed, task, i) and the questions before it, not on how many follow.
    A prompt with its examples and its longest choice has at most `max_tokens` tokens, BOS not counted.

    Raises EvaluationError if so many examples do not fit, or the corpus has too few places for so many questions.
    """
    try:
        room = question_tokens(max_tokens, shots)
    except ValueError as error:
        raise EvaluationError(str(error)) from None
    documents = [Document.read(tokenizer, corpus, i) for i in range(len(corpus.names))]
    by_task = {}
    for number, (task, question_type) in enumerate(QUESTION_TYPES.items()):
        if task not in tasks:
            continue
        made: dict[tuple[str, int], Question] = {}
        for i in range(items + shots):
            if not _ask(tokenizer, documents, question_type, i, room, np.random.default_rng([seed, number, i]), made):
                raise EvaluationError(
                    f"only {i} of {items + shots} {task} questions of at most {room} tokens can be cut from the "
                    f"corpus's {len(documents)} documents: ask for fewer items or shots, or name more documents"
                )
        by_task[task] = list(made.values())
    return by_task


def _ask(
    tokenizer: tokenizers.Tokenizer,
    documents: list[Document],
    question_type: QuestionType,
    i: int,
    room: int,
    rng: np.random.Generator,
    made: dict[tuple[str, int], Question],
) -> bool:
    """Add the i-th question to `made`, from the first place that will do after a random one; False if none will.

    The documents take turns; only if none has the answer that is wanted, another is.
    """
    for turn in range(CHOICES * len(documents)):
        document = documents[(i + turn) % len(documents)]
        count = i // CHOICES + turn // len(documents)
        start = int(rng.integers(len(document.text)))
        matches = chain(
            question_type.place.finditer(document.text, start), question_type.place.finditer(document.text, 0, start)
        )
        for match in islice((m for m in matches if question_type.accepts(m[0], count)), CANDIDATES):
            question = _question(tokenizer, document, question_type, match, i % CHOICES, room, rng)
            if question and (document.name, match.start()) not in made:
                made[document.name, match.start()] = question
                return True
    return False


def _question(
    tokenizer: tokenizers.Tokenizer,
    document: Document,
    question_type: QuestionType,
    match: re.Match[str],
    gold: int,
    room: int,
    rng: np.random.Generator,
) -> Question | None:
    """The question of this place, or None: too few wrong answers, too little text before, or not cut at a token."""
    right = match[0]
    before = room - 2 - len(right) // 2  # a token has about two characters
    if before < 1:
        return None
    context = document.context(match.start(), before)
    others = question_type.others(right, document.text, context)
    if len(others) < CHOICES - 1:
        return None
    wrong = [others[k] for k in rng.permutation(len(others))[: CHOICES - 1]]
    choices = (*wrong[:gold], right, *wrong[gold:])
    texts = [context, *(context + choice for choice in choices)]
    alone, *whole = (encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False))
    if len(alone) < LEAST_CONTEXT * room or any(len(ids) > room or ids[: len(alone)] != alone for ids in whole):
        return None
    return Question(document.name, context, choices, gold)


def _other_lines(right: str, text: str, context: str) -> list[str]:
    line = right.strip()
    lines = {other.strip() for other in text.split("\n")}
    alike = [other for other in lines if 0.8 <= len(other) / len(line) <= 1.25 and other != line]
    return [right[: -len(line)] + other for other in sorted(alike) if other not in context]


def _other_names(right: str, text: str, context: str) -> list[str]:
    return _others(right, {name for name in NAME.findall(context) if not keyword.iskeyword(name)})


def _other_words(right: str, text: str, context: str) -> list[str]:
    return _others(right, set(WORD.findall(context)))


def _others(right: str, there: set[str]) -> list[str]:
    """Those of the context that do not begin as the right one does; nothing if that one is not among them."""
    if right not in there:
        return []
    return sorted(n for n in there if not n.startswith(right) and not right.startswith(n))


QUESTION_TYPES = {
    "next-line": QuestionType(
        re.compile(r"(?<=\S)\n[ ]*(?=\S)[^\n]{11,79}\S(?=\n)"),
        lambda right, count: True,
        _other_lines,
    ),
    "brackets": QuestionType(
        re.compile(r"(?<=\w)[)\]]{2}(?![)\]}])"),
        lambda right, count: right == PAIRS[count % len(PAIRS)],
        lambda right, text, context: [pair for pair in PAIRS if pair != right],
    ),
    "identifier": QuestionType(
        NAME,
        lambda right, count: not keyword.iskeyword(right),
        _other_names,
    ),
    "last-word": QuestionType(
        re.compile(r"(?<=[a-z,]) [a-z]{4,}(?=[.?!]\s)"),
        lambda right, count: True,
        _other_words,
    ),
}
