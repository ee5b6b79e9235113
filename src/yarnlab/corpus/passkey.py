"""The passkey text: a five-digit key hidden in filler, asked for at the end. One wording for training and test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from yarnlab.corpus.tokenizer import BOS_ID, EOS_ID, Special, load_tokenizer, special_ids
from yarnlab.errors import UserError

if TYPE_CHECKING:
    import tokenizers

KEY_DIGITS = 5
OWN = Special(BOS_ID, EOS_ID)  # of the tokenizer that a study trains itself
# Names that let one training row hold several keys; the evaluation has one key without a name.
# fmt: off
NAMES = (
    "red", "blue", "green", "gold", "pink", "grey", "black", "white", "brown", "amber", "ivory", "coral", "silver",
    "bronze", "purple", "orange", "violet", "yellow", "olive", "ruby", "lemon", "peach", "mint", "navy", "teal",
    "cyan", "lime", "plum", "rose", "sand", "snow", "ash",
)
# fmt: on


class PromptError(UserError):
    """A prompt that can't be made in the length or from the filler given; the message has both numbers."""


@dataclass(frozen=True)
class Wording:
    """Token ids of the fixed parts for one key name ('' for the single, nameless key)."""

    before_key: np.ndarray
    between: np.ndarray
    after_key: np.ndarray
    question: np.ndarray


class PasskeyText:
    """Builds statements, questions and prompts as arrays of token ids (int64)."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, special: Special = OWN) -> None:
        self._tokenizer = tokenizer
        self.bos, self.eos = special.bos, special.eos
        self._lead = _lead(tokenizer)
        self.opening = self._encode("# There is a pass key hidden below. Memorize it.\n")
        self.end = self._encode("\n")  # what follows an answer in training text: a key ends after five digits
        self._wordings = {name: self._wording(name) for name in ("", *NAMES)}

    @classmethod
    def load(cls, folder: Path) -> PasskeyText:
        """With the tokenizer of a folder."""
        return cls(load_tokenizer(folder), special_ids(folder))

    def key_ids(self, key: str) -> np.ndarray:
        return self._encode(key)

    def statement(self, key: np.ndarray, name: str = "") -> np.ndarray:
        """The sentence that hides the key, which it states twice."""
        wording = self._wordings[name]
        return np.concatenate([wording.before_key, key, wording.between, key, wording.after_key])

    def question(self, name: str = "") -> np.ndarray:
        """The question, up to where the key must follow."""
        return self._wordings[name].question

    def prompt(self, key: np.ndarray, filler: np.ndarray, depth: float, length: int) -> np.ndarray:
        """A prompt that is `length` tokens long with its answer: BOS, opening, filler around the statement, question.

        Args:
            key: the key's token ids.
            filler: at least `length` ids to cut the filler from.
            depth: where the statement stands in the filler, 0 (start) to 1 (end).

        Raises PromptError if `length` leaves no room for the fixed text.
        """
        statement, question = self.statement(key), self.question()
        room = length - 1 - len(self.opening) - len(statement) - len(question) - len(key)
        if room < 0:
            raise PromptError(f"a passkey prompt needs {length - room} tokens at least, {length} are allowed")
        if len(filler) < room:
            raise PromptError(f"the filler has {len(filler)} tokens, {room} are needed")
        split = round(depth * room)
        parts = [np.array([self.bos]), self.opening, filler[:split], statement, filler[split:room], question]
        return np.concatenate(parts).astype(np.int64)

    def clean(self, filler: np.ndarray) -> np.ndarray:
        """Filler without BOS and EOS, which would mark document borders inside the prompt."""
        filler = filler.astype(np.int64)
        return filler[(filler != self.bos) & (filler != self.eos)]

    def digit_ids(self) -> np.ndarray:
        """Ids of every token that begins with a digit: what would lengthen a key if it came next."""
        vocabulary = self._tokenizer.get_vocab()
        return np.array(sorted(i for token, i in vocabulary.items() if token[:1].isdigit()), dtype=np.int64)

    def _wording(self, name: str) -> Wording:
        named = f"{name} " if name else ""
        return Wording(
            self._encode(f"\n# The {named}pass key is "),
            self._encode(". Remember it. "),
            self._encode(f" is the {named}pass key.\n"),
            self._encode(f"\n# What is the {named}pass key? The {named}pass key is "),
        )

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
