"""A byte-level BPE tokenizer trained on a corpus and saved so that AutoTokenizer loads it."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yarnlab.corpus.packages import CorpusError, Document
from yarnlab.provenance import write_json
from yarnlab.weights import DOCUMENT_TOKENS

if TYPE_CHECKING:
    import tokenizers

BOS, EOS = "<s>", "</s>"
BOS_ID, EOS_ID = 0, 1
PROBE = " It's 1,234.5 °C\n\tdef naïve(x):  return x != 7"
# A chat tokenizer's BOS may be the beginning of a turn, its EOS is the end of one; what pre-training text ended with
# has the last names.
TURN_BEGINS = ("<|im_start|>", "<|start_header_id|>", "<|start|>", "<start_of_turn>")
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|return|>", "<end_of_turn>", "<|eot|>")
TEXT_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")


def train_tokenizer(
    documents: list[Document], *, vocab_size: int, split_digits: bool, sample: int, seed: int
) -> tokenizers.Tokenizer:
    """A BPE of `vocab_size` tokens, ids 0 and 1 being BOS and EOS, from `sample` documents drawn by seed.

    With `split_digits` every digit is a token of its own, as in Llama. Encoding adds no special tokens.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = (
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
        if split_digits
        else byte_level
    )
    tokenizer.decoder = decoders.ByteLevel()
    chosen = random.Random(seed).sample(documents, min(sample, len(documents)))
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((document.text for document in chosen), trainer)
    return tokenizer


def save_tokenizer(tokenizer: tokenizers.Tokenizer, folder: Path) -> list[Path]:
    """The two files that transformers' AutoTokenizer needs; written without importing transformers."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "tokenizer.json", folder / "tokenizer_config.json"]
    tokenizer.save(str(files[0]))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1_000_000_000,
    }
    files[1].write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    return files


@dataclass(frozen=True)
class Special:
    """Ids of the tokens that begin and end a document."""

    bos: int
    eos: int


class BeginsTurn(CorpusError):
    """A tokenizer whose BOS begins a turn of a chat, in a study that says of no token that it begins a document.

    end: what ends a document, which may stand before it too.
    """

    def __init__(self, folder: Path, bos: str, end: str) -> None:
        super().__init__(
            f"the tokenizer in {folder} names {bos} as BOS, which begins a turn of a chat and no text: name the token "
            f"that begins a document as `bos` of the study's asset (it knows {end}, the end of a text)"
        )
        self.end = end


def name_document_tokens(folder: Path, bos: str | None, eos: str | None) -> list[Path]:
    """Write down what a study says of an asset's documents, beside its tokenizer; returns the files that say it."""
    file = folder / DOCUMENT_TOKENS
    named = {key: token for key, token in (("bos", bos), ("eos", eos)) if token is not None}
    if not named:
        file.unlink(missing_ok=True)
        return []
    write_json(file, named)
    return [file]


def special_ids(folder: Path, separator: str | None = None) -> Special:
    """BOS and EOS of the tokenizer in `folder`: the study's, else those of tokenizer_config.json or config.json.

    Args:
        separator: the token that takes the place of EOS.

    A tokenizer without BOS (Qwen's) has its EOS stand between documents, on both sides. Where EOS is a chat model's end
    of a turn (`<|im_end|>`, `<|eot_id|>`) and the tokenizer knows the end of a text too, documents end with that, as
    they did in pre-training. Raises CorpusError where there is no EOS, no such separator, or a file that can't be read;
    BeginsTurn where BOS is the beginning of a turn.
    """
    named = _json(folder / DOCUMENT_TOKENS)
    names = _json(folder / "tokenizer_config.json")
    numbers = _json(folder / "config.json")
    tokenizer = load_tokenizer(folder)

    def find(key: str) -> int | None:
        if key in named:
            if (declared := tokenizer.token_to_id(named[key])) is None:
                raise CorpusError(f"`{key}` {named[key]!r} of the asset: the tokenizer in {folder} has no such token")
            return declared
        token = names.get(f"{key}_token")
        text = token.get("content") if isinstance(token, dict) else token
        if text is not None:
            if not isinstance(text, str) or (found := tokenizer.token_to_id(text)) is None:
                raise CorpusError(
                    f"{folder / 'tokenizer_config.json'}: `{key}_token` is {text!r}, and tokenizer.json has no such "
                    "token: correct one of them"
                )
            return found
        number = numbers.get(f"{key}_token_id")
        number = number[0] if isinstance(number, list) and number else number
        if number is not None and not (isinstance(number, int) and number >= 0 and tokenizer.id_to_token(number)):
            raise CorpusError(
                f"{folder / 'config.json'}: `{key}_token_id` is {number!r}, and tokenizer.json has no token of that "
                f"number: correct it, or name `{key}_token` in tokenizer_config.json"
            )
        return number

    # Some configs give a BOS id although the tokenizer itself has none; its own word counts.
    has_none = "bos" not in named and names.get("bos_token", ...) is None
    bos = None if has_none else find("bos")
    eos = find("eos") if separator is None else tokenizer.token_to_id(separator)
    if separator is not None and eos is None:
        raise CorpusError(f"separator {separator!r}: the tokenizer in {folder} has no such token")
    if eos is None:
        raise CorpusError(
            f"the tokenizer in {folder} names no EOS token, so documents can't be set apart: name one as `eos_token` "
            "in its tokenizer_config.json, or as the corpus's `separator`"
        )
    special = {token.content: id for id, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    if separator is None and "eos" not in named and tokenizer.id_to_token(eos) in TURN_ENDS:
        eos = next((special[end] for end in TEXT_ENDS if end in special), eos)
    if bos is not None and "bos" not in named and (begin := tokenizer.id_to_token(bos)) in TURN_BEGINS:
        raise BeginsTurn(folder, begin, str(tokenizer.id_to_token(eos)))
    return Special(eos if bos is None else bos, eos)


def check_vocabulary(folder: Path, vocab_size: int) -> None:
    """CorpusError for a tokenizer that makes tokens of text for which a model of `vocab_size` tokens has no embedding.

    Special tokens beyond that (a `<pad>` that somebody added) never come of text.
    """
    largest = max(load_tokenizer(folder).get_vocab(with_added_tokens=False).values(), default=0)
    if largest >= vocab_size:
        raise CorpusError(
            f"the tokenizer in {folder} has tokens up to number {largest}, and `vocab_size` of its config.json is "
            f"{vocab_size}: they are not of one model"
        )


def _json(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("no JSON object")
    except ValueError as error:
        raise _damaged(file, error) from None
    return found


def _damaged(file: Path, error: Exception) -> CorpusError:
    reason = " ".join(str(error).split())
    return CorpusError(f"{file} can't be read ({reason}): fetch it again, or save the tokenizer anew")


def load_tokenizer(folder: Path) -> tokenizers.Tokenizer:
    """The tokenizer.json of a folder. Raises CorpusError where there is none, or none that can be read.

    Text that spells a special token stays text: a file with `<s>` in it has no document border there.
    """
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    if not file.exists():
        raise CorpusError(
            f"{folder} has no tokenizer.json. If it has a tokenizer.model, convert it once: "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library has no class of its own for it
        raise _damaged(file, error) from None
    tokenizer.encode_special_tokens = True  # as text
    return tokenizer


def difference_to_auto_tokenizer(folder: Path) -> str | None:
    """How what transformers makes of a model's tokenizer differs from its tokenizer.json; None if it does not.

    Corpora, passkeys and perplexities are of tokenizer.json; lm-eval's tasks, and whoever loads the model with
    AutoTokenizer, have the other one. Tried on one line with blanks, digits, a break, letters beyond ASCII and code.
    """
    from transformers import AutoTokenizer

    if not (folder / "tokenizer.json").exists():
        return None
    try:
        theirs = list(AutoTokenizer.from_pretrained(folder).encode(PROBE, add_special_tokens=False))
    except Exception as error:  # whatever a family's class does not like
        reason = str(error).splitlines() or [""]
        return f"AutoTokenizer can't load the tokenizer in {folder} ({type(error).__name__}: {reason[0]})"
    ours = load_tokenizer(folder).encode(PROBE, add_special_tokens=False).ids
    if ours == theirs:
        return None
    at = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False)))
    return (
        f"AutoTokenizer makes other tokens of {PROBE!r} than tokenizer.json in {folder}, from token {at} on. Corpora "
        "are of tokenizer.json: compare its files with those that the model was trained with"
    )
