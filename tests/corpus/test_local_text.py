"""Text of the user's own files: every form gives the same documents; parts share none; each fault is one message."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from yarnlab.corpus.build import build_corpus
from yarnlab.corpus.local import SOURCES, TextFiles
from yarnlab.corpus.local_documents import LocalDocuments
from yarnlab.corpus.packages import CorpusError
from yarnlab.corpus.tokenizer import load_tokenizer
from yarnlab.corpus.tokens import TokenisedCorpus
from yarnlab.hub.local import content_of
from yarnlab.provenance import project_root
from yarnlab.results.estimates import packages

TEXTS = [f"Chapter {i}. " + f"The grass is green, {i} times over. " * (3 * i + 2) for i in range(20)]


@pytest.fixture
def tokenizer(tiny_data: Path) -> Path:
    return tiny_data / "tokenizer"


@pytest.fixture
def books(tmp_path: Path) -> Path:
    """Twenty texts of four authors, in folders with a blank in their names."""
    folder = tmp_path / "my books"
    for i, text in enumerate(TEXTS):
        file = folder / f"author {i % 4}" / f"{i}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return folder


def build(path: Path | str | list, tokenizer: Path, folder: Path, *, seed: int = 0, **more) -> TokenisedCorpus:
    content = more.pop("content", None)
    path = [str(one) for one in path] if isinstance(path, list) else str(path)
    source = {"source": "local-text", "path": path, "column": more.pop("column", "text"), **more}
    spec = {"corpus": source, "seed": seed, **({"content": content} if content else {})}
    build_corpus(spec, tokenizer, folder, asset=None, log=None)
    return TokenisedCorpus.open(folder)


def texts_of(corpus: TokenisedCorpus, tokenizer: Path) -> list[str]:
    return [load_tokenizer(tokenizer).decode(corpus.document(i)[1:-1].tolist()) for i in range(len(corpus.names))]


def write(folder: Path, form: str) -> str:
    """All texts in files of one form, in a folder; returns what `path` would say."""
    folder.mkdir()
    rows = [{"id": i, "text": text} for i, text in enumerate(TEXTS)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    if form == "parquet":
        pd.DataFrame(rows).to_parquet(folder / "a.parquet")
    elif form == "jsonl":
        (folder / "a.jsonl").write_text(lines + "\n")
    elif form == "jsonl.gz":
        (folder / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    else:
        for i, text in enumerate(TEXTS):
            (folder / f"{i}.{form}").write_text(text)
    return str(folder / "*.tex") if form == "tex" else str(folder)


@pytest.mark.parametrize("form", ["txt", "md", "TXT", "tex", "jsonl", "jsonl.gz", "parquet"])
def test_every_form_gives_the_same_documents(form, tokenizer, tmp_path):
    corpus = build(write(tmp_path / "text", form), tokenizer, tmp_path / "out")
    assert Counter(texts_of(corpus, tokenizer)) == Counter(TEXTS)
    assert len(set(corpus.names)) == len(TEXTS)
    for i in range(len(TEXTS)):
        assert (corpus.document(i)[0], corpus.document(i)[-1]) == (corpus.bos, corpus.eos)


def test_files_folders_patterns_and_lists_of_them(books, tokenizer, tmp_path):
    """One file is one document however often it is meant; blanks in paths are as good as any character."""
    three = [books / "author 1", books / "author 1/1.txt", books / "**/2.txt", f"{books}/author 3/1[15].txt"]
    corpus = build(three, tokenizer, tmp_path / "out")
    assert Counter(texts_of(corpus, tokenizer)) == Counter(TEXTS[i] for i in (1, 5, 9, 13, 17, 2, 11, 15))
    (books / "[draft]").mkdir()
    (books / "[draft]/*.txt").write_text(TEXTS[0])
    assert texts_of(build(books / "[draft]/*.txt", tokenizer, tmp_path / "own"), tokenizer) == TEXTS[:1]


def test_a_name_that_is_no_text_is_said(books):
    (books / os.fsdecode(b"caf\xe9.txt")).write_text(TEXTS[0])
    with pytest.raises(CorpusError, match=r"my books: the name b'.*caf\\xe9\.txt' is not in UTF-8: rename it"):
        TextFiles((str(books),)).files()


def test_paths_begin_at_the_project_the_root_or_home(books, monkeypatch):
    monkeypatch.setenv("HOME", str(books.parent))
    assert list(TextFiles(("~/my books",)).files().values()) == list(TextFiles((str(books),)).files().values())
    assert TextFiles(("docs/models.md",)).files() == {"models.md": project_root() / "docs/models.md"}


def test_documents_of_a_sub_folder_count_together_and_rows_by_themselves(books, tokenizer, tmp_path):
    clusters = packages(pd.Index(build(books, tokenizer, tmp_path / "out").names))
    assert Counter(clusters) == {f"./my books/author {i}": 5 for i in range(4)}
    (books / "top.txt").write_text("A text beside the folders.")
    pd.DataFrame({"text": TEXTS[:3]}).to_parquet(books / "author 1/rows.parquet")
    clusters = Counter(packages(pd.Index(build(books, tokenizer, tmp_path / "more").names)))
    assert clusters["./my books/author 1"] == 5 and clusters["./my books/top.txt"] == 1 and len(clusters) == 4 + 1 + 3


def test_the_order_is_the_seed_s(books, tokenizer, tmp_path):
    """Neither the disk's nor the names': the first documents would be of one folder."""
    first, again, other = (build(books, tokenizer, tmp_path / n, seed=s) for n, s in [("a", 0), ("b", 0), ("c", 1)])
    assert first.names == again.names and np.array_equal(first.tokens, again.tokens)
    assert first.names != other.names and set(first.names) == set(other.names)
    assert len({Path(name).parent for name in first.names[:5]}) > 1


def test_limits_are_those_of_other_corpora(books, tokenizer, tmp_path):
    lengths = sorted(len(load_tokenizer(tokenizer).encode(text).ids) for text in TEXTS)
    corpus = build(books, tokenizer, tmp_path / "out", min_tokens=lengths[10], documents=4)
    assert len(corpus.names) == 4 and min(corpus.lengths) - 2 >= lengths[10]
    assert build(books, tokenizer, tmp_path / "cut", max_tokens=1000).tokens.size < 1000 + max(corpus.lengths)
    with pytest.raises(CorpusError, match=r"corpora\.few: only 10 documents of .*my books have .* 11 are asked for"):
        build(books, tokenizer, tmp_path / "few", min_tokens=lengths[10], documents=11)
    blocks = build(books, tokenizer, tmp_path / "blocks", blocks={"length": 64, "bookends": "chunk"})
    assert set(blocks.lengths) == {64}


@pytest.mark.parametrize("border", [0.0, 0.05, 0.1, 0.5, 0.77, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_parts_share_no_text_and_leave_none_out(tmp_path, border, seed):
    """Also where a text occurs several times, in whatever files."""
    texts = [TEXTS[i] for i in np.random.default_rng(seed).integers(len(TEXTS), size=15 + seed)]
    for i, text in enumerate(texts):
        (tmp_path / f"{i}.txt").write_text(text)
    files = TextFiles((str(tmp_path),)).files()
    found = []
    for part in ((0.0, border), (border, 1.0)):
        try:
            found.append([text for _, text in LocalDocuments(files, "text", part, seed)._of_part()])
        except CorpusError:
            found.append([])
    assert not set(found[0]) & set(found[1])
    assert Counter(found[0] + found[1]) == Counter(texts)
    assert abs(len(set(found[0])) - border * len(set(texts))) <= 0.5 + 1e-9


def test_a_part_without_documents_is_refused(books, tokenizer, tmp_path):
    with pytest.raises(CorpusError, match=r"corpora\.out: part \[0\.95, 1\.0\] of 5 different documents is none"):
        build(books / "author 1", tokenizer, tmp_path / "out", part=[0.95, 1.0])


def test_a_mark_of_utf_8_and_blank_files_are_no_text(tokenizer, tmp_path):
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"\xef\xbb\xbf" + TEXTS[0].encode())
    (folder / "b.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps({"text": TEXTS[1]}).encode() + b'\n{"text": " "}\n')
    (folder / "c.txt").write_text(" \n\t")
    (folder / "d.txt").write_text("")
    (folder / "e.txt").write_bytes(TEXTS[2].replace(". ", ".\r\n").encode())
    expected = [TEXTS[0], TEXTS[1], TEXTS[2].replace(". ", ".\n")]
    assert Counter(texts_of(build(folder, tokenizer, tmp_path / "out"), tokenizer)) == Counter(expected)
    facts = build_corpus(
        {"corpus": {"source": "local-text", "path": str(folder), "column": "text"}, "seed": 0},
        tokenizer,
        tmp_path / "out",
        asset=None,
        log=None,
    )
    assert (facts["documents"], facts["files"], facts["empty"]) == (3, 5, 3)
    with pytest.raises(CorpusError, match=r"only 0 documents of .*/c\.txt"):
        build(folder / "c.txt", tokenizer, tmp_path / "empty")


def test_hidden_and_foreign_files_of_a_folder_are_no_text(books, tokenizer, tmp_path):
    """Links are followed; one that leads back is no second copy."""
    (books / ".git").mkdir()
    (books / ".git/x.txt").write_text("hidden")
    (books / "author 1/._1.txt").write_text("hidden")
    (books / "cover.png").write_bytes(b"\x89PNG")
    (books / "loop").symlink_to(books)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "far.txt").write_text("A linked text.")
    (books / "linked").symlink_to(elsewhere)
    found = texts_of(build(books, tokenizer, tmp_path / "out"), tokenizer)
    assert Counter(found) == Counter([*TEXTS, "A linked text."])


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("{books}/author 9", r"path .*/author 9: there is no .*/author 9; name files, folders or shell patterns"),
        ("{books}/*.rst", r"path .*/\*\.rst: nothing matches .*/my books/\*\.rst"),
        ("{books}/none", r"holds no file that ends in \.txt, \.md, .*\.parquet; name others one by one"),
        ("nowhere/at all", r"path nowhere/at all: there is no /.*/nowhere/at all"),
        ("~nobody-here/x", r"path ~nobody-here/x: .*home directory"),
        ("{books}/broken.txt", r"/broken\.txt can't be read \(No such file or directory\): make it readable"),
        ("{books}/", r"/broken\.txt can't be read"),
    ],
)
def test_what_is_not_there_is_named(books, path, message):
    (books / "none").mkdir()
    (books / "none/a.pdf").write_bytes(b"%PDF")
    (books / "broken.txt").symlink_to(books / "gone")
    with pytest.raises(CorpusError, match=message):
        TextFiles((path.format(books=books),)).read()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.txt",
            "café".encode("latin-1"),
            r"corpora\.out: .*/a\.txt: no text in UTF-8 \(.*0xe9.*: leave the file out",
        ),
        ("a.md", "naïve".encode("utf-16"), r"/a\.md: no text in UTF-8"),
        ("a.jsonl", b'{"text": "a"}\n{"body": "b"}\n', r"a\.jsonl:2: no JSON object with 'text'; it has body: correct"),
        ("a.jsonl", b'{"text": "a"}\n\n{"text": 5}\n', r"a\.jsonl:3: 'text' is of type int, not a text"),
        ("a.parquet", b"PAR1", r"a\.parquet is no readable parquet file"),
        ("a.jsonl.gz", b"{}", r"a\.jsonl\.gz is damaged or cut off after line 0"),
    ],
)
def test_a_file_that_is_no_text_is_named_with_its_corpus(name, content, message, tokenizer, tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / name).write_bytes(content)
    with pytest.raises(CorpusError, match=message):
        build(tmp_path / "text", tokenizer, tmp_path / "out")
    assert not (tmp_path / "out/tokens.npy").exists()


def test_another_column_is_read_and_its_lack_named(tokenizer, tmp_path):
    file = tmp_path / "a.parquet"
    pd.DataFrame({"title": TEXTS[:2], "n": [1, 2]}).to_parquet(file)
    assert len(build(file, tokenizer, tmp_path / "out", column="title").names) == 2
    with pytest.raises(CorpusError, match=r"a\.parquet has no column 'text'; it has title, n"):
        build(file, tokenizer, tmp_path / "lacking")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_named(books):
    (books / "author 1/1.txt").chmod(0)
    with pytest.raises(CorpusError, match=r"1\.txt can't be read \(Permission denied\)"):
        TextFiles((str(books),)).read()


def test_content_counts_and_not_its_time(books):
    """Neither a touched file nor the same files in another place are other text; an edit of equal length is."""
    texts = TextFiles((str(books),))
    before = content_of(texts.read())
    os.utime(books / "author 1/1.txt", ns=(1, 1))
    moved = books.rename(books.with_name("moved"))
    assert content_of(TextFiles((str(moved),)).read()) == before
    moved.rename(books)
    file = books / "author 1/1.txt"
    file.write_text(file.read_text().replace("green", "ocher"))
    edited = content_of(texts.read())
    assert edited != before
    file.rename(books / "author 2/1.txt")
    assert content_of(texts.read()) not in (before, edited)


def test_text_that_was_read_is_not_read_again_at_the_next_start(books, tokenizer, tmp_path, monkeypatch):
    build(books, tokenizer, tmp_path / "out")
    known, read = json.loads((tmp_path / "out" / SOURCES).read_text()), []
    monkeypatch.setattr("yarnlab.hub.local.sha256_of", lambda path: read.append(path.name) or "0")
    (books / "author 1/1.txt").write_text("Other text.")
    TextFiles((str(books),)).read(known)
    assert read == ["1.txt"]


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_text_that_changes_under_a_run_is_refused(books, tokenizer, tmp_path, monkeypatch, when):
    noted = content_of(TextFiles((str(books),)).read())

    def edit() -> None:
        (books / "author 1/1.txt").write_text("Other text.")

    if when == "before":
        edit()
    else:
        monkeypatch.setattr(LocalDocuments, "empty", property(lambda self: 0, lambda self, value: edit()))
    with pytest.raises(CorpusError, match=r"corpora\.out: path .*my books: files have changed since this run started"):
        build(books, tokenizer, tmp_path / "out", content=noted)
