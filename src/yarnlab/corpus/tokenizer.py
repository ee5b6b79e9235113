"""A byte-level BPE tokenizer trained on a corpus and saved so that AutoTokenizer loads it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING

from yarnlab.corpus.packages import Document

if TYPE_CHECKING:
    import tokenizers

BOS, EOS = "<s>", "</s>"
BOS_ID, EOS_ID = 0, 1


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


def load_tokenizer(folder: Path) -> tokenizers.Tokenizer:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json"))
