"""The passkey text: a five-digit key hidden in filler, asked for at the end.

Training rows hide keys in other words than the test does: what is measured is whether a model finds a key, not whether
it has learnt the test's sentences.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from yarnlab.corpus.tokenizer import BOS_ID, EOS_ID, Special, load_tokenizer, special_ids
from yarnlab.errors import UserError

if TYPE_CHECKING:
    import tokenizers

KEY_DIGITS = 5
OWN = Special(BOS_ID, EOS_ID)  # of the tokenizer that a study trains itself
# fmt: off
# Names of keys in training rows, alone or before one of NOUNS; the test has one key, which is called otherwise.
NAMES = (
    "red", "blue", "green", "gold", "pink", "grey", "black", "white", "brown", "amber", "ivory", "coral", "silver",
    "bronze", "purple", "orange", "violet", "yellow", "olive", "ruby", "lemon", "peach", "mint", "navy", "teal",
    "cyan", "lime", "plum", "rose", "sand", "snow", "ash",
)
NOUNS = (
    "code", "number", "ticket", "badge", "locker", "gate", "door", "invoice", "batch", "order", "room", "case",
)
# fmt: on


class PromptError(UserError):
    """A prompt that can't be made in the length or from the filler given; the message has both numbers."""


@dataclass(frozen=True)
class Phrases:
    """The sentences about one key: `{name}` is what it is called, `{key}` stands for its digits."""

    opening: str
    statement: str
    question: str


TEST = Phrases(
    "# There is a {name} hidden below. Memorize it.\n",
    "\n# The {name} is {key}. Remember it. {key} is the {name}.\n",
    "\n# What is the {name}? The {name} is ",
)
# So many and so different that a model can't get by on knowing them, and short, so that several fit into a row.
TRAINING = (
    Phrases("# Watch out.\n", "\n# {name}: {key}\n", "\n# {name}: "),
    Phrases("", "\n{name} = {key}\n", "\n{name} = "),
    Phrases("# Keep these.\n", "\n# Your {name} is {key}, so keep it.\n", "\n# Again, your {name} is "),
    Phrases("# Settings\n", "\n# Set the {name} to {key} now.\n", "\n# So set the {name} to "),
    Phrases("", "\n# They gave us {name} {key}, yes {key}.\n", "\n# They gave us {name} "),
    Phrases("# Read on.\n", "\n# Note that {name} equals {key} here.\n", "\n# Well, {name} equals "),
    Phrases("", '\nuse("{name}", {key})\n', '\nuse("{name}", '),
    Phrases("# To do\n", "\n# Take {key} for {name}: {name} takes {key}.\n", "\n# Here {name} takes "),
    Phrases("# Found:\n", "\n# This {name} reads {key}.\n", "\n# Tell us: this {name} reads "),
    Phrases("", "\n- {name}, {key}\n", "\n- {name}, "),
)


@dataclass(frozen=True)
class Wording:
    """Token ids of the fixed parts, int64; a key stands between any two parts of the statement."""

    opening: np.ndarray
    stated: tuple[np.ndarray, ...]
    question: np.ndarray

    def statement(self, key: np.ndarray) -> np.ndarray:
        """The sentence that hides the key."""
        first, *rest = self.stated
        return np.concatenate([first, *(ids for part in rest for ids in (key, part))])


class PasskeyText:
    """Builds statements, questions and prompts as arrays of token ids (int64)."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, special: Special = OWN) -> None:
        self._tokenizer = tokenizer
        self.bos, self.eos = special.bos, special.eos
        self._lead = _lead(tokenizer)
        self.end = self._encode("\n")  # what follows an answer in training text: a key ends after five digits
        self.wording = lru_cache(maxsize=None)(self._wording)
        self.test = self.wording(TEST, "pass key")

    @classmethod
    def load(cls, folder: Path) -> PasskeyText:
        """With the tokenizer of a folder."""
        return cls(load_tokenizer(folder), special_ids(folder))

    def key_ids(self, key: str) -> np.ndarray:
        return self._encode(key)

    def prompt(self, key: np.ndarray, filler: np.ndarray, depth: float, length: int) -> np.ndarray:
        """A prompt that is `length` tokens long with its answer: BOS, opening, filler around the statement, question.

        Args:
            key: the key's token ids.
            filler: at least `length` ids to cut the filler from.
            depth: where the statement stands in the filler, 0 (start) to 1 (end).

        Raises PromptError if `length` leaves no room for the fixed text.
        """
        opening, statement, question = self.test.opening, self.test.statement(key), self.test.question
        room = length - 1 - len(opening) - len(statement) - len(question) - len(key)
        if room < 0:
            raise PromptError(f"a passkey prompt needs {length - room} tokens at least, {length} are allowed")
        if len(filler) < room:
            raise PromptError(f"the filler has {len(filler)} tokens, {room} are needed")
        split = round(depth * room)
        parts = [np.array([self.bos]), opening, filler[:split], statement, filler[split:room], question]
        return np.concatenate(parts).astype(np.int64)

    def clean(self, filler: np.ndarray) -> np.ndarray:
        """Filler without BOS and EOS, which would mark document borders inside the prompt."""
        filler = filler.astype(np.int64)
        return filler[(filler != self.bos) & (filler != self.eos)]

    def digit_ids(self) -> np.ndarray:
        """Ids of every token that begins with a digit: what would lengthen a key if it came next."""
        vocabulary = self._tokenizer.get_vocab()
        return np.array(sorted(i for token, i in vocabulary.items() if token[:1].isdigit()), dtype=np.int64)

    def _wording(self, phrases: Phrases, name: str) -> Wording:
        """The phrases about a key of this name."""
        parts = tuple(self._encode(part.format(name=name)) for part in phrases.statement.split("{key}"))
        opening, question = (self._encode(text.format(name=name)) for text in (phrases.opening, phrases.question))
        return Wording(opening, parts, question)

    def _encode(self, text: str) -> np.ndarray:
        """The ids that `text` has in the middle of a text."""
        ids = self._tokenizer.encode(self._lead + text, add_special_tokens=False).ids
        behind = len(self._tokenizer.encode(self._lead, add_special_tokens=False).ids) if self._lead else 0
        return np.array(ids[behind:], dtype=np.int64)


def _lead(tokenizer: tokenizers.Tokenizer) -> str:
    """What to put before a fragment so that it is encoded as inside a text.

    Tokenizers in SentencePiece's manner (Llama, Mistral) put a space before every text: a line break, which joins with
    nothing there, takes it up. Byte-level ones need nothing.
    """
    return "\n" if len(tokenizer.encode("7", add_special_tokens=False).ids) > 1 else ""


def random_key(rng: np.random.Generator) -> str:
    """Five digits, leading zeros included: every key is as long as the others."""
    return f"{int(rng.integers(10**KEY_DIGITS)):0{KEY_DIGITS}d}"
