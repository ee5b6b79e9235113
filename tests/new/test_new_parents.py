"""`yarnlab new` for parents as users have them: each is declared as stock transformers computes it, or one message."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub.test_gguf import write_gguf

from yarnlab.checkpoints import adopt_published
from yarnlab.corpus.packages import CorpusError
from yarnlab.errors import UserError
from yarnlab.families.parts import UnsupportedModel
from yarnlab.hub.errors import HubError
from yarnlab.new.parent import NewError
from yarnlab.new.write import write_study
from yarnlab.rope import make_rope
from yarnlab.study.architectures import read_architectures
from yarnlab.study.load import load_study
from yarnlab.study.schema import Study
from yarnlab.workflow import Workflow

Write = Callable[..., Study]
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
FACTORS = {"short_factor": [1.0 + i / 50 for i in range(8)], "long_factor": [1.0 + i for i in range(8)]}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": 32}
LONGROPE_OF_ONE = YARN | {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}
LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 64, **FACTORS}
PHI3 = {"pad_token_id": 0, "original_max_position_embeddings": 64, "max_position_embeddings": 256}


@pytest.fixture
def write(tmp_path: Path, books: Path) -> Write:
    """Writes a study of a model and loads it."""

    def call(model: Path | str, **options: Any) -> Study:
        settings = {"revision": "main", "scale": 2.0, "text": [str(books)], "column": "text", "ignored": ()}
        settings |= {"device": "h100", "hours": None, "force": False, **options}
        write_study("mine", tmp_path, model=str(model), **settings)
        return load_study(tmp_path / "mine.yaml")

    return call


def change(folder: Path, **keys: Any) -> Path:
    """Other values in config.json; those that are ... are taken out."""
    file = folder / "config.json"
    content = json.loads(file.read_text()) | keys
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))
    return folder


def adopt(folder: Path, study: Study) -> dict[str, Any]:
    """Take the base over as the study declares it; returns its config.json."""
    made = folder.parent / "adopted"
    shape, rope = study.architecture("base"), study.rope("base")
    adopt_published(folder, shape, study.vocab_size("base"), rope, made, drop_sliding_window=False)
    config: dict[str, Any] = json.loads((made / "config.json").read_text())
    return config


def test_llama_3s_scale_is_not_its_window(write: Write, model_folder) -> None:
    """As of Llama 3.2: factor 32 of 8192 and a window of 131,072, here 8 of 64 and 256."""
    folder = model_folder(rope_parameters=LLAMA3, max_position_embeddings=256)
    study = write(folder, scale=1.5)
    shared = {"original_context": 64, "head_dim": 16, "base": 5e5}
    assert study.rope("base") == make_rope("llama3", scale=8, max_position_embeddings=256, **shared)
    assert study.rope("extended") == make_rope("yarn", scale=6, **shared)
    assert study.title == "llama from 256 to 384 tokens" and study.notes == ()
    assert adopt(folder, study)["max_position_embeddings"] == 256


def test_another_window_than_the_config_has_is_refused(write: Write, model_folder) -> None:
    folder = model_folder(rope_parameters=LLAMA3, max_position_embeddings=256)
    study = write(folder)
    study.models["base"].rope.model_extra["max_position_embeddings"] = 512
    with pytest.raises(UserError, match=r"`max_position_embeddings` is 256, the study's `rope` says 512"):
        adopt(folder, study)


@pytest.mark.parametrize("older", ["", "longrope", "su"])
def test_phi_3s_two_lengths_say_its_scale(older: str, write: Write, model_folder) -> None:
    """Its config names no factor, and its first files called the type otherwise."""
    folder = model_folder("phi3", rope_parameters=LONGROPE, **PHI3)
    if older:
        change(folder, rope_parameters=..., rope_theta=1e4, rope_scaling={"type": older, **FACTORS})
    study = write(folder)
    shared = {"original_context": 64, "head_dim": 16}
    assert study.rope("base") == make_rope("longrope", scale=4, **FACTORS, **shared)
    assert study.rope("extended") == make_rope("yarn", scale=8, **shared)
    assert adopt(folder, study)["max_position_embeddings"] == 256


def test_an_attention_factor_of_its_own_is_declared(write: Write, model_folder) -> None:
    block = {**LONGROPE, "factor": 4.0, "attention_factor": 1.25}
    folder = model_folder(rope_parameters=block, max_position_embeddings=256)
    study = write(folder)
    assert study.rope("base").attention_factor == 1.25
    adopt(folder, study)


def test_a_yarn_block_that_a_card_told_to_add(write: Write, model_folder) -> None:
    """Qwen's: `max_position_embeddings` stays what it was, and the model serves four times that."""
    block = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    folder = change(model_folder("qwen2", num_key_value_heads=2), rope_parameters=..., rope_scaling=block)
    study = write(folder)
    assert study.title == "qwen2 from 256 to 512 tokens" and study.rope("extended").scale == 8
    adopt(folder, study)


def test_a_linear_scaling_needs_the_window_that_it_scales(write: Write, model_folder) -> None:
    block = {"type": "linear", "factor": 2.0}
    folder = change(model_folder(max_position_embeddings=128), rope_parameters=..., rope_scaling=block)
    with pytest.raises(UnsupportedModel, match=r"llama: .* of 128 is the window before or after .*: add `original_max"):
        write(folder)
    study = write(change(folder, rope_scaling={**block, "original_max_position_embeddings": 64}))
    assert study.rope("base").context == 128 and study.rope("extended").scale == 4
    adopt(folder, study)


def test_weights_in_several_files(write: Write, model_folder, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = model_folder()
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="60KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    adopt(folder, write(folder))
    assert len(list((tmp_path / "adopted").glob("model-*.safetensors"))) > 2


def test_a_gguf_file_of_a_chat_model(write: Write, tmp_path: Path) -> None:
    """Its config.json and tokenizer are those that the conversion writes; a turn's beginning is no document's."""
    from yarnlab.hub.adopt import adopt as copy
    from yarnlab.hub.gguf import Declared
    from yarnlab.hub.local import LocalAsset

    (tmp_path / "chat").mkdir()
    file = write_gguf(tmp_path / "chat" / "tiny.Q4_1.gguf")
    with pytest.raises(NewError, match=r"has no config\.json; give .* or a GGUF file: .*tiny\.Q4_1\.gguf"):
        write(tmp_path / "chat")
    study = write(file)
    asset = study.assets["base"]
    assert (asset.path, asset.bos, asset.eos) == (str(file), "<|endoftext|>", None)  # a chat goes on ending its turns
    declared = Declared.of(asset.model_dump())
    copy(LocalAsset("model", str(file)), tmp_path / "asset", declared=declared)
    adopt(tmp_path / "asset", study)
    with pytest.raises(HubError, match="is no GGUF file"):
        file.write_bytes(b"GGUF")
        write(file, force=True)


def test_a_folder_whose_bos_begins_a_turn(write: Write, model_folder, tmp_path: Path, books: Path) -> None:
    """As SmolLM2-Instruct's: text does not begin with it, neither in corpora nor in passkeys; the files stay."""
    from yarnlab.corpus.build import build_corpus
    from yarnlab.corpus.passkey import PasskeyText
    from yarnlab.corpus.tokenizer import BeginsTurn, name_document_tokens, special_ids
    from yarnlab.corpus.tokens import TokenisedCorpus

    folder = model_folder(vocab_size=515)
    words = chat_tokenizer(folder)
    begin, text = words["<|im_start|>"], words["<|endoftext|>"]
    study = write(folder)
    options = {"revision": "main", "scale": 2.0, "text": [str(books)], "column": "text", "ignored": (), "force": True}
    told = write_study("mine", tmp_path, model=str(folder), device="h100", hours=None, **options)
    assert study.assets["base"].bos == "<|endoftext|>" and study.notes[0] in told
    assert study.notes == ("Documents begin with <|endoftext|>: the tokenizer's own BOS begins a turn of a chat.",)
    with pytest.raises(BeginsTurn, match=r"<\|im_start\|> as BOS, .*: name .* as `bos` of the study's asset"):
        special_ids(folder)  # of a study that does not say it

    before = (folder / "tokenizer_config.json").read_bytes()
    asset = Workflow.load(str(tmp_path / "mine.yaml"), tmp_path).section("asset", "base")["asset"]
    assert name_document_tokens(folder, asset["bos"], asset.get("eos")) == [folder / "document_tokens.json"]
    adopt(folder, study)
    assert (tmp_path / "adopted" / "tokenizer_config.json").read_bytes() == before
    source = {"source": "local-text", "path": str(books), "column": "text", "tokenizer": "base"}
    facts = build_corpus({"corpus": source, "seed": 0}, folder, tmp_path / "corpus", log=None)
    assert (facts["bos"], facts["separator"]) == (text, "<|endoftext|>")
    corpus = TokenisedCorpus.open(tmp_path / "corpus")
    assert corpus.document(0)[0] == corpus.document(0)[-1] == text and begin not in corpus.tokens
    assert PasskeyText.load(tmp_path / "adopted").bos == text
    name_document_tokens(folder, "<nothing>", None)
    with pytest.raises(CorpusError, match=r"`bos` '<nothing>' of the asset: .* has no such token"):
        special_ids(folder)
    assert name_document_tokens(folder, None, None) == [] and not (folder / "document_tokens.json").exists()


def chat_tokenizer(folder: Path) -> dict[str, int]:
    """Give a folder's tokenizer the special tokens of SmolLM2-Instruct; returns their ids."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer.add_special_tokens(tokens)
    tokenizer.save(str(folder / "tokenizer.json"))
    file = folder / "tokenizer_config.json"
    named = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    file.write_text(json.dumps(json.loads(file.read_text()) | named))
    return {token: tokenizer.token_to_id(token) for token in tokens}


def test_paths_with_blanks_quotes_and_other_letters(write: Write, model_folder, books: Path, tmp_path: Path) -> None:
    """They are in the study, the record of shapes and what Snakemake gets as they are."""
    place = tmp_path / "l'été {x} #1: 🦙"
    place.mkdir()
    folder, text = model_folder().rename(place / "mein Modell"), books.rename(place / "livres [a-b]")
    study = write(folder, text=[str(text)])
    assert study.assets["base"].path == str(folder) and str(folder) in read_architectures()
    flow = Workflow.load(str(tmp_path / "mine.yaml"), tmp_path)
    assert flow.section("asset", "base")["asset"]["path"] == str(folder)
    assert flow.section("corpus", "train")["corpus"]["path"] == str(text)


def test_a_path_that_is_no_text_is_said(write: Write, model_folder, tmp_path: Path) -> None:
    with pytest.raises(NewError, match=r"the path b'.*mod\\xe8le' is not in UTF-8: rename it"):
        write(model_folder().rename(tmp_path / os.fsdecode(b"mod\xe8le")))


CONFIGS = [
    ({"num_key_value_heads": 3}, NewError, "no sound study can be made of its config.json: .*must divide"),
    ({"max_position_embeddings": None}, UnsupportedModel, "max_position_embeddings"),
    ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, UnsupportedModel, "of type dynamic"),
    ({"model_type": "unheard_of"}, UnsupportedModel, "has no family unheard_of"),
    ({"quantization_config": {"quant_method": "gptq"}}, HubError, "`quantization_config` is set"),
    ({"hidden_act": 3}, UnsupportedModel, "refuses its settings"),
    ({"hidden_size": "32"}, HubError, "`hidden_size` is '32' and has to be a whole number above 0"),
    ({"num_attention_heads": 0}, HubError, "`num_attention_heads` is 0 and has to be"),
    ({"max_position_embeddings": 64.0}, HubError, "`max_position_embeddings` is 64.0 and has to be"),
    ({"max_position_embeddings": 1}, NewError, "no sound study can be made .*: Input should be greater than or equal to 2"),
    ({"max_position_embeddings": ...}, UnsupportedModel, "has no `max_position_embeddings`, so nothing says how long"),
    ({"dtype": "float8_e4m3fn"}, HubError, "`dtype` is 'float8_e4m3fn'; weights are read that are float32"),
    ({"vocab_size": 300}, NewError, "has tokens up to number 511, and `vocab_size` of its config.json is 300"),
    ({"rope_parameters": {"rope_type": "default", "rope_theta": "1e4"}}, HubError, "`rope_parameters.rope_theta` is '1e4'"),
    ({"rope_parameters": YARN | {"factor": 0}}, HubError, "`rope_parameters.factor` is 0 and has to be a number"),
    ({"rope_parameters": YARN | {"attention_factor": "x"}}, HubError, "`rope_parameters.attention_factor` is 'x'"),
    ({"rope_parameters": ..., "rope_scaling": LONGROPE_OF_ONE}, UnsupportedModel, "short_factor must be a list of 8 numbers"),
    ({"rope_parameters": {"rope_type": "proportional", "rope_theta": 1e4}}, UnsupportedModel, "which no method can extend"),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "error", "message"), CONFIGS)
def test_a_config_that_makes_no_study(keys, error, message, write: Write, model_folder, tmp_path: Path) -> None:
    folder = change(model_folder(), **keys)
    with pytest.raises(error, match=f"(?s){folder}.*{message}") as caught:
        write(folder)
    assert "\n" not in str(caught.value) and not (tmp_path / "mine.yaml").exists()


def test_a_model_of_text_and_pictures(write: Write, model_folder) -> None:
    """Its config.json has the language model's in a part."""
    folder = model_folder()
    text = json.loads((folder / "config.json").read_text()) | {"model_type": "gemma3_text"}
    (folder / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": text}))
    with pytest.raises(
        UnsupportedModel, match=r"only in its parts \(`text_config`, `vision_config`\): give the language"
    ):
        write(folder)


def test_a_tokenizer_without_an_end_of_text_is_said_at_once(write: Write, model_folder) -> None:
    folder = change(model_folder(), eos_token_id=None)
    file = folder / "tokenizer_config.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "eos_token": None}))
    with pytest.raises(NewError, match=f"tokenizer in {folder} names no EOS token.*`eos_token`"):
        write(folder)
    for broken in ("{", "[]"):
        file.write_text(broken)
        with pytest.raises(NewError, match=rf"{folder}/tokenizer_config\.json can't be read"):
            write(folder)
    for token in (7, "<gone>"):
        file.write_text(json.dumps({**content, "eos_token": token}))
        with pytest.raises(NewError, match=f"`eos_token` is {token!r}, and tokenizer.json has no such token"):
            write(folder)
    file.write_text("{}")
    with pytest.raises(
        NewError, match=r"config\.json: `eos_token_id` is 9999, and tokenizer\.json has no token of that"
    ):
        write(change(folder, eos_token_id=9999))
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    file.write_text(json.dumps(content))
    with pytest.raises(NewError, match=rf"{folder}/tokenizer\.json can't be read"):
        write(folder)


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -2.0, 1.0, 1e300])
def test_a_scale_that_is_none(scale: float, write: Write, model_folder) -> None:
    with pytest.raises(NewError, match=r"--scale .*: give how many times the window shall be, a number above 1"):
        write(model_folder(), scale=scale)


def test_text_that_is_named_twice_or_not_at_all(write: Write, model_folder, books: Path) -> None:
    assert write(model_folder(), text=[str(books), f"{books}/"]).corpora["train"].path == str(books)
    with pytest.raises(NewError, match="--text '': give the files"):
        write(model_folder(), text=[""], force=True)


def test_rows_without_the_column_say_how_another_is_named(write: Write, model_folder, tmp_path: Path) -> None:
    import pandas as pd

    rows = [{"content": f"row {number} of {'nodes and edges ' * 100}"} for number in range(40)]
    lines, table = tmp_path / "rows.jsonl", tmp_path / "rows.parquet"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pd.DataFrame(rows).to_parquet(table)
    for file in (lines, table):
        with pytest.raises(
            CorpusError, match=rf"{file.name}.*it has content: correct .*`column`.* Here: --column NAME"
        ):
            write(model_folder(), text=[str(file)], force=True)
        assert (
            write(model_folder(), text=[str(file)], column="content", force=True).corpora["train"].column == "content"
        )


def test_text_in_another_encoding_is_named(write: Write, model_folder, books: Path) -> None:
    (books / "03.txt").write_bytes("naïve café ".encode("latin-1") * 2000)
    with pytest.raises(CorpusError, match=r"03\.txt: no text in UTF-8 "):
        write(model_folder())


def test_a_home_that_nobody_has(write: Write) -> None:
    with pytest.raises(NewError, match="--model ~nobody-of-this-name/model: there is no such folder"):
        write("~nobody-of-this-name/model")
