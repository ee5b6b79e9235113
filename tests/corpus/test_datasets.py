"""Corpora from a dataset's files: whatever the format, the same ids; blocks lose nothing uncounted; a kill costs little."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yarnlab.corpus import datasets
from yarnlab.corpus.blocks import Dropped, by_chunk, by_document
from yarnlab.corpus.build import build_corpus
from yarnlab.corpus.packages import CorpusError
from yarnlab.corpus.passkey import PasskeyText
from yarnlab.corpus.tokenizer import Special, load_tokenizer, special_ids
from yarnlab.corpus.tokens import CorpusWriter, TokenisedCorpus
from yarnlab.evaluation.documents import prefixes

TEXTS = [f"Chapter {i}. " + f"The grass is green, {i} times over. " * (3 * i + 2) for i in range(7)]


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    """A folder with a tokenizer in Llama's manner."""
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from standin.repositories import llama_tokenizer

    folder = tmp_path_factory.mktemp("llama")
    llama_tokenizer(TEXTS, 400).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": {"content": "<s>"}, "eos_token": "</s>"}))
    return folder


@pytest.fixture
def asset(tmp_path) -> Path:
    """The same texts in two files of each format."""
    folder = tmp_path / "asset"
    (folder / "data").mkdir(parents=True)
    for number, part in enumerate((TEXTS[:3], TEXTS[3:])):
        pd.DataFrame({"title": part, "text": part}).to_parquet(folder / f"data/train-{number}.parquet")
        lines = "".join(json.dumps({"text": text}) + "\n" for text in part)
        (folder / f"data/{number}.jsonl").write_text(lines)
        with gzip.open(folder / f"data/{number}.jsonl.gz", "wt") as file:
            file.write(lines)
        with pyarrow.output_stream(str(folder / f"data/{number}.jsonl.zst"), compression="zstd") as stream:
            stream.write(lines.encode())
    for i, text in enumerate(TEXTS):
        (folder / f"data/{i}.txt").write_text(text)
    return folder


FORMATS = {
    "parquet": ("parquet", "data/*.parquet", "text"),
    "jsonl": ("jsonl", "data/*.jsonl", "text"),
    "jsonl.gz": ("jsonl", "data/*.jsonl.gz", "text"),
    "jsonl.zst": ("jsonl", "data/*.jsonl.zst", "text"),
    "text": ("text", "data/*.txt", None),
}


def section(form: str = "parquet", **more) -> dict:
    name, files, column = FORMATS[form]
    corpus = {"source": "hub-text", "format": name, "files": [files], **({"column": column} if column else {}), **more}
    return {"corpus": corpus, "seed": 0}


def build(spec: dict, llama: Path, asset: Path, folder: Path) -> tuple[dict, TokenisedCorpus]:
    facts = build_corpus(spec, llama, folder, asset=asset, log=None)
    return facts, TokenisedCorpus.open(folder)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_gives_the_same_documents(form, llama, asset, tmp_path):
    facts, corpus = build(section(form), llama, asset, tmp_path / "out")
    tokenizer = load_tokenizer(llama)
    assert facts["documents"] == len(TEXTS)
    for i, text in enumerate(TEXTS):
        ids = corpus.document(i)
        assert (ids[0], ids[-1]) == (corpus.bos, corpus.eos) == (1, 2)
        assert ids[1:-1].tolist() == tokenizer.encode(text, add_special_tokens=False).ids
    assert isinstance(corpus.tokens, np.memmap)


def test_the_first_documents_that_are_long_enough_are_kept(llama, asset, tmp_path):
    lengths = [len(load_tokenizer(llama).encode(text, add_special_tokens=False).ids) for text in TEXTS]
    _, corpus = build(section(min_tokens=lengths[2], documents=2), llama, asset, tmp_path / "out")
    assert [length - 2 for length in corpus.lengths] == lengths[2:4]
    with pytest.raises(CorpusError, match=r"only 5 documents of asset have .* 6 are asked for"):
        build_corpus(section(min_tokens=lengths[2], documents=6), llama, tmp_path / "bad", asset=asset, log=None)
    assert not (tmp_path / "bad/tokens.npy").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": ["test/*"]}, r"no file of asset matches 'test/\*'"),
        ({"column": "body"}, "has no column 'body'; it has title, text"),
    ],
)
def test_what_a_dataset_lacks_is_named(change, message, llama, asset, tmp_path):
    with pytest.raises(CorpusError, match=message):
        build_corpus(section(**change), llama, tmp_path / "out", asset=asset, log=None)


def test_published_token_ids_are_kept_and_bookended_once(llama, tmp_path):
    asset = tmp_path / "asset"
    asset.mkdir()
    rows = [[1, *range(10, 40), 2], list(range(50, 90))]
    pd.DataFrame({"input_ids": rows}).to_parquet(asset / "train-0.parquet")
    spec = {"corpus": {"source": "hub-tokens", "files": ["train-*"], "column": "input_ids"}, "seed": 0}
    _, corpus = build(spec, llama, asset, tmp_path / "out")
    assert corpus.document(0).tolist() == rows[0]
    assert corpus.document(1).tolist() == [1, *rows[1], 2]


GOOD = b'{"text": "a first line"}\n'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("0.jsonl", b'{"text": null}', r"0\.jsonl:2: 'text' is null, not a text: correct the corpus's `column`"),
        ("0.jsonl", b'{"text": 5}', r"0\.jsonl:2: 'text' is of type int, not a text"),
        ("0.jsonl", b'{"title": "a"}', r"0\.jsonl:2: no JSON object with 'text'; it has title: correct"),
        ("0.jsonl", b'["text"]', r"0\.jsonl:2: no JSON object with 'text', but a value that is of type list: leave"),
        ("0.jsonl", b"null", r"0\.jsonl:2: no JSON object with 'text', but a value that is null: leave"),
        ("0.jsonl", b'{"text": ', r"0\.jsonl:2: no JSON object in UTF-8 \(.*: leave the file out"),
        ("0.jsonl", '{"text": "café"}'.encode("latin-1"), r"0\.jsonl:2: no JSON object in UTF-8 \(.*0xe9"),
        ("0.jsonl", b'{"text": "\\ud800"}', r"0\.jsonl:2: 'text' holds what is no character"),
        ("0.jsonl.gz", None, r"0\.jsonl\.gz is damaged or cut off after line \d+ \(Compressed file ended .*: fetch or"),
        ("0.jsonl.zst", None, r"0\.jsonl\.zst is damaged or cut off after line \d+ \(Truncated .*: fetch or save it"),
        ("1.jsonl.gz", b"no archive", r"1\.jsonl\.gz is damaged or cut off after line 0 \(Not a gzipped file"),
    ],
)
def test_a_line_that_is_no_text_is_named_and_never_a_document(name, content, message, llama, tmp_path):
    """`null` would be the document "None"; the others would be tracebacks of some decoder."""
    asset, rows = tmp_path / "asset", np.random.default_rng(0).integers(10**9, size=20_000).astype(str)
    asset.mkdir()
    lines = b"".join(GOOD.replace(b"first", row.encode()) for row in rows)
    if content is None and name.endswith(".gz"):
        content = gzip.compress(lines)[:50_000]
    elif content is None:
        content = pyarrow.compress(lines, codec="zstd", asbytes=True)[:50_000]
    elif name == "0.jsonl":
        content = GOOD + content + b"\n" + GOOD
    (asset / name).write_bytes(content)
    spec = {"corpus": {"source": "hub-text", "format": "jsonl", "files": [name], "column": "text"}, "seed": 0}
    with pytest.raises(CorpusError, match=message):
        build_corpus(spec, llama, tmp_path / "out", asset=asset, log=None)
    assert not (tmp_path / "out/tokens.npy").exists()


def test_a_text_file_in_another_encoding_is_named(llama, tmp_path):
    (tmp_path / "asset").mkdir()
    (tmp_path / "asset/a.txt").write_bytes("café".encode("latin-1"))
    spec = {"corpus": {"source": "hub-text", "format": "text", "files": ["*.txt"]}, "seed": 0}
    with pytest.raises(CorpusError, match=r"a\.txt: no text in UTF-8 \(.*0xe9.*: leave the file out of the corpus's"):
        build_corpus(spec, llama, tmp_path / "out", asset=tmp_path / "asset", log=None)


@pytest.mark.parametrize(
    ("source", "cells", "kind", "message"),
    [
        (
            "hub-text",
            ["a", None],
            pyarrow.string(),
            r"t\.parquet, row 2: 'x' is null, not a text: correct the corpus's",
        ),
        ("hub-text", [1, 2], pyarrow.int64(), r"row 1: 'x' is of type int, not a text"),
        ("hub-text", [b"a", b"caf\xe9"], pyarrow.string(), r"row 2: 'x' is not in UTF-8 \(.*0xe9.*: correct"),
        ("hub-text", [b"a", b"b"], pyarrow.binary(), r"row 1: 'x' is of type bytes, not a text"),
        ("hub-tokens", [[1, 2], None], pyarrow.list_(pyarrow.int32()), r"row 2: 'x' is null, not a list of token ids"),
        (
            "hub-tokens",
            [[1, None]],
            pyarrow.large_list(pyarrow.int64()),
            r"row 1: 'x' is a list with nulls, not a list",
        ),
        ("hub-tokens", [[1.5]], pyarrow.list_(pyarrow.float64()), r"row 1: 'x' is of type list<.*double>, not a list"),
        ("hub-tokens", ["a"], pyarrow.string(), r"row 1: 'x' is of type string, not a list of token ids: correct"),
        ("hub-tokens", [{"a": 1}], pyarrow.struct({"a": pyarrow.int64()}), r"row 1: 'x' is of type struct<"),
    ],
)
def test_a_cell_that_is_no_text_or_no_row_of_ids_is_named(source, cells, kind, message, llama, tmp_path):
    """Nulls among ids would be numbers made up by a cast."""
    (tmp_path / "asset").mkdir()
    column = pyarrow.array(cells).cast(kind, safe=False)  # unsafe: texts that are no UTF-8 too
    pyarrow.parquet.write_table(pyarrow.table({"x": column}), tmp_path / "asset/t.parquet")
    form = {"format": "parquet"} if source == "hub-text" else {}
    spec = {"corpus": {"source": source, "files": ["t.parquet"], "column": "x", **form}, "seed": 0}
    with pytest.raises(CorpusError, match=message):
        build_corpus(spec, llama, tmp_path / "out", asset=tmp_path / "asset", log=None)
    assert not (tmp_path / "out/tokens.npy").exists()


@pytest.mark.parametrize("at", [10, -10])
def test_a_corrupt_parquet_file_is_one_message(at, llama, tmp_path):
    """A bad page is met while reading, a bad end of the file on opening it."""
    (tmp_path / "asset").mkdir()
    file = tmp_path / "asset/t.parquet"
    pd.DataFrame({"text": TEXTS}).to_parquet(file)
    content = bytearray(file.read_bytes())
    content[at] ^= 0xFF
    file.write_bytes(content)
    spec = {"corpus": {"source": "hub-text", "files": ["*"], "format": "parquet", "column": "text"}, "seed": 0}
    with pytest.raises(CorpusError, match=r"t\.parquet is no readable parquet file.*: fetch or save it again"):
        build_corpus(spec, llama, tmp_path / "out", asset=tmp_path / "asset", log=None)


@pytest.mark.parametrize("kind", [pyarrow.list_(pyarrow.int32()), pyarrow.large_list(pyarrow.uint16())])
def test_rows_of_ids_are_read_whatever_integers_they_are_stored_as(kind, tmp_path):
    table = pyarrow.table({"x": pyarrow.array([[1, 2, 3], [], [4]], kind)})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    assert [row.tolist() for row in datasets.id_rows(tmp_path / "t.parquet", "x")] == [[1, 2, 3], [], [4]]


def test_published_rows_without_eos_are_given_one(llama, tmp_path):
    """As transformers tokenises for Llama: BOS, no EOS. The last id is text, and an evaluation that reads a row of
    just `min_tokens` ids reads all of them."""
    asset, row = tmp_path / "asset", [1, *range(10, 40)]
    asset.mkdir()
    pd.DataFrame({"input_ids": [row, [1, *row[1:], 2], row[:-1]]}).to_parquet(asset / "train-0.parquet")
    source = {"source": "hub-tokens", "files": ["train-*"], "column": "input_ids", "min_tokens": len(row)}
    facts, corpus = build({"corpus": source, "seed": 0}, llama, asset, tmp_path / "out")
    assert facts["documents"] == 2 and corpus.document(0).tolist() == corpus.document(1).tolist() == [*row, 2]
    assert prefixes(corpus, len(row), 1, vocab_size=400)[0].tolist() == row


@pytest.mark.parametrize("wrong", [65_536, 70_000, -1])
def test_published_ids_of_another_tokenizer_are_refused(wrong, llama, tmp_path):
    """Ids that 16 bits do not hold would wrap to others; nothing of them is kept."""
    asset = tmp_path / "asset"
    asset.mkdir()
    pd.DataFrame({"input_ids": [[1, 65_535, 2], [5, wrong]]}).to_parquet(asset / "train-0.parquet")
    spec = {"corpus": {"source": "hub-tokens", "files": ["train-*"], "column": "input_ids"}, "seed": 0}
    with pytest.raises(CorpusError, match=f"token id {wrong:,} does not fit into uint16.*`tokenizer`"):
        build_corpus(spec, llama, tmp_path / "out", asset=asset, log=None)
    assert not (tmp_path / "out/tokens.npy").exists()


def test_a_corpus_holds_no_wrapped_ids(tmp_path):
    with (
        pytest.raises(CorpusError, match="70,000 does not fit"),
        CorpusWriter(tmp_path, np.uint16, Special(bos=1, eos=2)) as writer,
    ):
        writer.add("block", np.array([1, 70_000, 2]))
    assert not (tmp_path / "tokens.npy").exists()


def test_a_build_that_was_killed_keeps_the_files_it_had_read(llama, asset, tmp_path, monkeypatch):
    read = []
    real = datasets.text_rows

    def spy(file, form, column):
        read.append(file.name)
        if file.name == "train-1.parquet" and len(read) == 2:
            raise KeyboardInterrupt
        return real(file, form, column)

    monkeypatch.setattr("yarnlab.corpus.build.text_rows", spy)
    with pytest.raises(KeyboardInterrupt):
        build_corpus(section(), llama, tmp_path / "out", asset=asset, log=None)
    _, corpus = build(section(), llama, asset, tmp_path / "out")
    assert read == ["train-0.parquet", "train-1.parquet", "train-1.parquet"] or read[-1] == "train-1.parquet"
    _, whole = build(section(), llama, asset, tmp_path / "other")
    assert np.array_equal(corpus.tokens, whole.tokens)
    assert not (tmp_path / "out/.shards").exists()


documents = st.lists(st.lists(st.integers(3, 99), max_size=40).map(np.array), max_size=12)


@given(documents, st.integers(3, 16))
def test_blocks_by_chunk(texts, length):
    dropped = Dropped()
    blocks = list(by_chunk(texts, length, 1, 2, dropped))
    assert all(len(block) == length and (block[0], block[-1]) == (1, 2) for block in blocks)
    assert not any(np.isin(block[1:-1], (1, 2)).any() for block in blocks)
    assert sum(map(len, texts)) == dropped.ids + (length - 2) * len(blocks)


@given(documents, st.integers(2, 16))
def test_blocks_by_document(texts, length):
    dropped = Dropped()
    blocks = list(by_document(texts, length, 1, 2, dropped))
    assert all(len(block) == length for block in blocks)
    stream = np.concatenate([np.concatenate([[1], text, [2]]) for text in texts]) if texts else np.empty(0)
    joined = np.concatenate(blocks) if blocks else np.empty(0)
    assert np.array_equal(joined, stream[: len(joined)])
    assert len(stream) - len(joined) == dropped.ids < length


@pytest.mark.parametrize("bookends", ["chunk", "document"])
def test_training_blocks_from_text(bookends, llama, asset, tmp_path):
    facts, corpus = build(section(blocks={"length": 16, "bookends": bookends}), llama, asset, tmp_path / "out")
    assert set(corpus.lengths) == {16}
    assert facts["tokens"] == 16 * facts["documents"]
    assert 0 < facts["dropped_ids"] < 16 * len(TEXTS)


def test_special_tokens_of_other_tokenizers(llama, tmp_path):
    (tmp_path / "tokenizer.json").write_text((llama / "tokenizer.json").read_text())
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"bos_token": None, "eos_token": "</s>"}))  # as Qwen's
    (tmp_path / "config.json").write_text(json.dumps({"bos_token_id": 1, "eos_token_id": 2}))
    assert (special_ids(tmp_path).bos, special_ids(tmp_path).eos) == (2, 2)
    config.write_text("{}")
    assert (special_ids(tmp_path).bos, special_ids(tmp_path).eos) == (1, 2)
    (tmp_path / "config.json").unlink()
    with pytest.raises(CorpusError, match="names no EOS token"):
        special_ids(tmp_path)


def test_a_passkey_prompt_in_llamas_tokenizer_is_the_natural_one(llama):
    """Fragments put together are what encoding the whole text gives, keys and all."""
    text, tokenizer = PasskeyText.load(llama), load_tokenizer(llama)
    whole = "\n# The pass key is 04711. Remember it. 04711 is the pass key.\n"
    natural = tokenizer.encode("x" + whole, add_special_tokens=False).ids
    ours = text.test.statement(text.key_ids("04711")).tolist()
    assert natural[-len(ours) :] == ours
    assert len(text.key_ids("04711")) == 5
    assert tokenizer.decode(text.test.question.tolist()).strip().endswith("The pass key is")
