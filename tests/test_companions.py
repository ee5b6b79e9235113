"""What goes with a checkpoint: tokenizer, chat template, generation settings reach every child; its card says what it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from test_checkpoints import VOCABULARY, publish, rope_for, shape

from yarnlab.checkpoints import adopt_published, link_weights
from yarnlab.corpus.packages import Document
from yarnlab.corpus.tokenizer import save_tokenizer, special_ids, train_tokenizer
from yarnlab.hub.selection import choose
from yarnlab.modeling import load_model, save_model
from yarnlab.weights import companions

TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
GENERATION = {"eos_token_id": [1, 2], "temperature": 0.6, "do_sample": False, "repetition_penalty": 1.05}
BESIDE = {
    "added_tokens.json": "{}",
    "additional_chat_templates/tools.jinja": "TOOLS",
    "chat_template.jinja": TEMPLATE,
    "generation_config.json": json.dumps(GENERATION),
    "merges.txt": "#version",
    "special_tokens_map.json": "{}",
    "tokenizer.model": "sentencepiece",
    "vocab.json": "{}",
}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory) -> dict[str, Path]:
    """A parent adopted, extended, and what a training of that saves."""
    root = tmp_path_factory.mktemp("nodes")
    asset, yarn = publish(root / "asset", "llama"), rope_for("llama", "yarn", 4)
    text = [Document("a", "some text here")]
    save_tokenizer(train_tokenizer(text, vocab_size=VOCABULARY + 200, split_digits=True, sample=1, seed=0), asset)
    for name, content in BESIDE.items():
        (asset / name).parent.mkdir(exist_ok=True)
        (asset / name).write_text(content)
    plain = rope_for("llama", "none", 1)
    adopt_published(asset, shape("llama"), VOCABULARY, plain, root / "base", drop_sliding_window=False)
    link_weights(root / "base", yarn, root / "yarn")
    save_model(load_model(root / "yarn", yarn), yarn, root / "yarn", root / "trained")
    return {name: root / name for name in ("asset", "base", "yarn", "trained")}


@pytest.mark.parametrize("node", ["base", "yarn", "trained"])
def test_every_file_is_there_as_it_was(nodes, node):
    """Also settings that transformers refuses to write: a temperature without sampling."""
    expected = {file.relative_to(nodes["asset"]): file.read_bytes() for file in companions(nodes["asset"])}
    assert {name.as_posix() for name in expected} >= BESIDE.keys() | {"tokenizer.json", "tokenizer_config.json"}
    assert {file.relative_to(nodes[node]): file.read_bytes() for file in companions(nodes[node])} == expected


@pytest.mark.parametrize("node", ["base", "yarn", "trained"])
def test_stock_transformers_finds_them(nodes, node):
    from transformers import AutoTokenizer, GenerationConfig

    template = AutoTokenizer.from_pretrained(nodes[node]).chat_template
    assert (template["default"] if isinstance(template, dict) else template) == TEMPLATE
    settings = GenerationConfig.from_pretrained(nodes[node])
    assert (settings.eos_token_id, settings.temperature) == ([1, 2], 0.6)


def test_protocols_do_not_generate_by_a_parents_settings(nodes):
    settings = load_model(nodes["yarn"], rope_for("llama", "yarn", 4)).generation_config
    assert settings.repetition_penalty in (None, 1.0) and settings.eos_token_id != [1, 2]


def test_they_are_outputs_and_what_is_gone_from_the_parent_goes_from_the_child(nodes, tmp_path):
    rope = rope_for("llama", "yarn", 4)
    made = link_weights(nodes["base"], rope, tmp_path / "yarn")
    assert tmp_path / "yarn/additional_chat_templates/tools.jinja" in made
    (tmp_path / "yarn" / "README.md").write_text("a card")
    (tmp_path / "yarn" / "chat_template.json").write_text("of another parent")
    again = link_weights(nodes["base"], rope, tmp_path / "yarn")
    assert again == made and not (tmp_path / "yarn" / "README.md").exists()
    assert not (tmp_path / "yarn" / "chat_template.json").exists()


def test_they_are_fetched():
    files = ["config.json", "model.safetensors", "tokenizer.json", *BESIDE, "original/tokenizer.model", "README.md"]
    assert set(choose(files, "owner/name", "model", ())) == {*files} - {"original/tokenizer.model", "README.md"}
    assert "additional_chat_templates/tools.jinja" in choose([*BESIDE, "tokenizer.json"], "owner/name", "model", ())


CHATS = {
    "qwen": (["<|endoftext|>", "<|im_start|>", "<|im_end|>"], None, "<|im_end|>", "<|endoftext|>", "<|endoftext|>"),
    "llama3": (["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"], "<|begin_of_text|>", "<|eot_id|>", "<|begin_of_text|>", "<|end_of_text|>"),
    "base": (["<|endoftext|>", "<|im_end|>"], None, "<|endoftext|>", "<|endoftext|>", "<|endoftext|>"),
    "no end of a text": (["<turn>", "<end>"], None, "<end>", "<end>", "<end>"),
    "llama2": (["<s>", "</s>"], "<s>", "</s>", "<s>", "</s>"),
}  # fmt: skip


@pytest.mark.parametrize("kind", CHATS)
def test_a_chat_models_end_of_a_turn_is_no_border_of_documents(kind, tmp_path):
    from tokenizers import Tokenizer, models

    tokens, bos, eos, begins, ends = CHATS[kind]
    tokenizer = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    tokenizer.add_special_tokens(tokens)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": bos, "eos_token": eos}))
    found = special_ids(tmp_path)
    assert (found.bos, found.eos) == (tokenizer.token_to_id(begins), tokenizer.token_to_id(ends))


def test_text_that_only_spells_it_does_not_count(tmp_path):
    from tokenizers import Tokenizer, models

    tokenizer = Tokenizer(models.WordLevel({"a": 0, "</s>": 1}, unk_token="a"))
    tokenizer.add_special_tokens(["<|im_end|>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": None, "eos_token": "<|im_end|>"}))
    assert special_ids(tmp_path).eos == tokenizer.token_to_id("<|im_end|>")


def test_a_study_names_another_separator(tmp_path):
    """It stands on both sides of a document where the tokenizer has no BOS; one that it does not know is refused."""
    from tokenizers import Tokenizer, models

    from yarnlab.corpus.packages import CorpusError

    tokenizer = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_end|>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": None, "eos_token": "<|im_end|>"}))
    turn = tokenizer.token_to_id("<|im_end|>")
    found = special_ids(tmp_path, "<|im_end|>")
    assert (found.bos, found.eos) == (turn, turn) and found != special_ids(tmp_path)
    with pytest.raises(CorpusError, match=r"separator '<sep>': the tokenizer in .* has no such token"):
        special_ids(tmp_path, "<sep>")


def test_a_tokenizer_that_transformers_reads_otherwise_is_named(tiny_data, tmp_path):
    """The study's own is read alike; one whose class puts a blank in front of every text is not."""
    from yarnlab.corpus.tokenizer import difference_to_auto_tokenizer

    folder = tmp_path / "model"
    shutil.copytree(tiny_data / "tokenizer", folder)
    assert difference_to_auto_tokenizer(folder) is None
    file = folder / "tokenizer_config.json"
    file.write_text(
        json.dumps(json.loads(file.read_text()) | {"tokenizer_class": "Qwen2Tokenizer", "add_prefix_space": True})
    )
    assert "AutoTokenizer makes other tokens of" in (difference_to_auto_tokenizer(folder) or "")
    file.write_text("{")
    assert "AutoTokenizer can't load the tokenizer" in (difference_to_auto_tokenizer(folder) or "")
    assert difference_to_auto_tokenizer(tmp_path) is None
