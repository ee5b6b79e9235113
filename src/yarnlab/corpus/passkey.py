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
# What keys are called in training rows; none is called so, and nothing is worded so, in the test.
THINGS = (
    "door code", "serial number", "order number", "ticket number", "room number", "account number", "badge number",
    "locker code", "batch number", "case number", "gate code", "invoice number",
)
# Names that let one training row hold several keys; the test has one key without a name.
NAMES = (
    "red", "blue", "green", "gold", "pink", "grey", "black", "white", "brown", "amber", "ivory", "coral", "silver",
    "bronze", "purple", "orange", "violet", "yellow", "olive", "ruby", "lemon", "peach", "mint", "navy", "teal",
    "cyan", "lime", "plum", "rose", "sand", "snow", "ash",
)
# fmt: on


class PromptError(UserError):
    """A prompt that can't be made in the length or from the filler given; the message has both numbers."""


@dataclass(frozen=True)
class Phrases:
    """The fixed parts of a text about one key, with `{key}` for what the key is called."""

    opening: str
    before_key: str
    between: str
    after_key: str
    question: str


TEST = Phrases(
    "# There is a {key} hidden below. Memorize it.\n",
    "\n# The {key} is ",
    ". Remember it. ",
    " is the {key}.\n",
    "\n# What is the {key}? The {key} is ",
)
TRAINING = (
    Phrases(
        "# One of the lines below has a {key}.\n",
        "\n# Your {key} is ",
        ". Do not lose it: ",
        " opens it.\n",
        "\n# Can you repeat it? Your {key} is ",
    ),
    Phrases(
        "# Watch out for the {key}.\n",
        "\n# {key}: ",
        ", written down as ",
        ".\n",
        "\n# Asked again, {key}: ",
    ),
    Phrases(
        "# Somebody left a {key} in this file.\n",
        "\n# Set the {key} to ",
        " and keep ",
        " in mind.\n",
        "\n# Once more: set the {key} to ",
    ),
    Phrases(
        "# A {key} stands between these lines.\n",
        "\n# They gave us the {key} ",
        ". So ",
        " it was.\n",
        "\n# What did they say? They gave us the {key} ",
    ),
)


@dataclass(frozen=True)
class Wording:
    """Token ids of the fixed parts, int64."""

    opening: np.ndarray
    before_key: np.ndarray
    between: np.ndarray
    after_key: np.ndarray
    question: np.ndarray

    def statement(self, key: np.ndarray) -> np.ndarray:
        """The sentence that hides the key, which it states twice."""
        return np.concatenate([self.before_key, key, self.between, key, self.after_key])


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

    def _wording(self, phrases: Phrases, key: str) -> Wording:
        """The phrases about what is called `key`."""
        parts = (phrases.opening, phrases.before_key, phrases.between, phrases.after_key, phrases.question)
        return Wording(*(self._encode(part.format(key=key)) for part in parts))

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
