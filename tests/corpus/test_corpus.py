"""Corpora and the passkey text: the same bytes everywhere, documents set apart, prompts that fit."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yarnlab.corpus.build import build_corpus
from yarnlab.corpus.packages import CorpusError, read_packages
from yarnlab.corpus.passkey import PasskeyText, PromptError, random_key
from yarnlab.corpus.tokenizer import BOS_ID, EOS_ID, load_tokenizer
from yarnlab.corpus.tokens import TokenisedCorpus

BUILD = """
import hashlib, sys; from pathlib import Path
from yarnlab.corpus.packages import read_packages
from yarnlab.corpus.tokenizer import save_tokenizer, train_tokenizer
from yarnlab.corpus.build import build_corpus
folder = Path(sys.argv[1])
tokenizer = train_tokenizer(read_packages(("networkx",)), vocab_size=512, split_digits=True, sample=40, seed=0)
save_tokenizer(tokenizer, folder / "tokenizer")
spec = {"corpus": {"source": "python-packages", "packages": ["networkx"], "max_tokens": 60_000}, "seed": 0}
build_corpus(spec, folder / "tokenizer", folder / "train", log=None)
"""


def digests(folder) -> list[str]:
    files = [
        folder / "tokenizer" / "tokenizer.json",
        folder / "train" / "tokens.npy",
        folder / "train" / "documents.json",
    ]
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


def test_the_same_lock_gives_the_same_bytes(tiny_data, tmp_path):
    """Tokenizer and token array are equal in another process with another hash seed, locale and thread count."""
    environment = {**os.environ, "PYTHONHASHSEED": "7", "LC_ALL": "C", "RAYON_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", BUILD, str(tmp_path)], check=True, env=environment, capture_output=True)
    assert digests(tmp_path) == digests(tiny_data)


def test_documents_are_set_apart_by_bos_and_eos(tiny_data):
    corpus = TokenisedCorpus.open(tiny_data / "held")
    assert isinstance(corpus.tokens, np.memmap) and corpus.tokens.dtype == np.uint16
    assert sum(corpus.lengths) == len(corpus.tokens)
    for i in range(3):
        ids = corpus.document(i)
        assert len(ids) >= 1024 + 2
        assert (ids[0], ids[-1]) == (BOS_ID, EOS_ID)
        assert not np.isin(ids[1:-1], (BOS_ID, EOS_ID)).any()


def test_tokens_decode_to_the_source(tiny_data):
    """A held-out document's ids are its text, byte for byte."""
    corpus, tokenizer = TokenisedCorpus.open(tiny_data / "held"), load_tokenizer(tiny_data / "tokenizer")
    texts = {document.name: document.text for document in read_packages(("accelerate",))}
    assert tokenizer.decode(corpus.document(0)[1:-1].tolist()) == texts[corpus.names[0]]


def test_packages_with_compiled_parts_are_refused():
    """Their files differ between builds, so a corpus of them would differ between machines."""
    with pytest.raises(CorpusError, match=r"torch.*has compiled parts"):
        read_packages(("torch",))


def test_a_missing_package_is_named():
    with pytest.raises(CorpusError, match="'no-such-package' is not installed"):
        read_packages(("no-such-package",))


def test_a_locally_edited_package_is_refused(tmp_path, monkeypatch):
    """A file that differs from its wheel's RECORD would silently change the corpus."""
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "a.py").write_text("x = 1\n")
    info = tmp_path / "demo-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n")
    (info / "WHEEL").write_text("Root-Is-Purelib: true\n")
    (info / "RECORD").write_text("demo/a.py,sha256=AAAA,6\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(CorpusError, match="differs from the installed wheel's RECORD"):
        read_packages(("demo",))


def test_too_few_long_documents(tiny_data, tmp_path):
    spec = {
        "corpus": {"source": "python-packages", "packages": ["accelerate"], "min_tokens": 4096, "documents": 1000},
        "seed": 0,
    }
    with pytest.raises(CorpusError, match="1000 are asked for; lower `documents`"):
        build_corpus(spec, tiny_data / "tokenizer", tmp_path, log=None)
    assert not (tmp_path / "tokens.npy").exists()


def demo(monkeypatch, folder, files: dict[str, str]) -> None:
    """An installed pure-Python package `demo` of these files."""
    info = folder / "demo-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n")
    (info / "WHEEL").write_text("Root-Is-Purelib: true\n")
    record = []
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record.append(f"{name},sha256={digest},{len(text.encode())}\n")
    (info / "RECORD").write_text("".join(record))
    monkeypatch.syspath_prepend(str(folder))


def test_text_that_spells_a_special_token_stays_text(tiny_data, tmp_path, monkeypatch):
    """`<s>` in a file is three characters, not the border of a document; nothing of the text is lost."""
    text = 'print("<s>the text</s>")\n' * 3
    demo(monkeypatch, tmp_path / "site", {"demo/a.py": text})
    build_corpus(
        {"corpus": {"source": "python-packages", "packages": ["demo"]}, "seed": 0},
        tiny_data / "tokenizer",
        tmp_path,
        log=None,
    )
    ids = TokenisedCorpus.open(tmp_path).document(0)
    assert (ids[0], ids[-1]) == (BOS_ID, EOS_ID) and not np.isin(ids[1:-1], (BOS_ID, EOS_ID)).any()
    assert load_tokenizer(tiny_data / "tokenizer").decode(ids[1:-1].tolist()) == text


def test_bos_and_eos_are_the_tokenizers(tiny_data, tmp_path):
    """An adopted model's tokenizer has other ids for them than the study's own."""
    folder = tmp_path / "tokenizer"
    shutil.copytree(tiny_data / "tokenizer", folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"bos_token": "a", "eos_token": "b"}))
    bos, eos = (load_tokenizer(folder).token_to_id(token) for token in "ab")
    spec = {"corpus": {"source": "python-packages", "packages": ["accelerate"], "documents": 2}, "seed": 0}
    facts = build_corpus(spec, folder, tmp_path / "corpus", log=None)
    corpus = TokenisedCorpus.open(tmp_path / "corpus")
    assert (corpus.bos, corpus.eos) == (facts["bos"], facts["eos"]) == (bos, eos) != (BOS_ID, EOS_ID)
    assert [corpus.document(1)[0], corpus.document(1)[-1]] == [bos, eos]


def test_tables_of_numbers_are_left_out_and_folders_count_once(tiny_data, tmp_path, monkeypatch):
    """`max_digits` is a share of characters that is still allowed; `per_folder` counts what is kept of a folder."""
    half = "12345abcde" * 20
    files = {f"demo/a/{i}.py": f"text = 'words {'only ' * 30}'\n" for i in range(3)}
    files |= {"demo/a/numbers.py": "1234567890" * 20, "demo/b/half.py": half, "demo/b/more.py": half + "1"}
    demo(monkeypatch, tmp_path / "site", files)

    def names(**limits) -> set[str]:
        spec = {"corpus": {"source": "python-packages", "packages": ["demo"], **limits}, "seed": 0}
        build_corpus(spec, tiny_data / "tokenizer", tmp_path / "corpus", log=None)
        return {name.removeprefix("demo/demo/") for name in TokenisedCorpus.open(tmp_path / "corpus").names}

    assert len(names()) == 6
    assert names(max_digits=0.5) == {"a/0.py", "a/1.py", "a/2.py", "b/half.py"}
    kept = names(max_digits=0.5, per_folder=1)
    assert len(kept) == 2 and "b/half.py" in kept
    assert len(names(per_folder=2)) == 4
    with pytest.raises(CorpusError, match="within max_digits and per_folder, 3 are asked for"):
        names(max_digits=0.5, per_folder=1, documents=3)


def test_a_file_gives_its_source_or_its_docstrings(tiny_data, tmp_path, monkeypatch):
    """Files take turns, so no file is in a corpus twice; documentation is the docstrings in their order, nothing else."""
    module = '"""Module {0}.\\n\\nAll of it."""\nx = 1\n\n\nclass A:\n    """Class {0}."""\n\n    def f(self):\n'
    module += '        """Method {0}."""\n        return "not this"\n\n\nasync def g():\n    """Last {0}."""\n'
    files = {f"demo/{i}.py": module.format(i) for i in range(6)} | {
        "demo/none.py": "x = 2\n",
        "demo/bad.py": "x = = 3\n",
    }
    demo(monkeypatch, tmp_path / "site", files)

    def texts(**keys) -> dict[str, str]:
        spec = {"corpus": {"source": "python-packages", "packages": ["demo"], **keys}, "seed": 0}
        build_corpus(spec, tiny_data / "tokenizer", tmp_path / "corpus", log=None)
        corpus, tokenizer = TokenisedCorpus.open(tmp_path / "corpus"), load_tokenizer(tiny_data / "tokenizer")
        return {n: tokenizer.decode(corpus.document(i)[1:-1].tolist()) for i, n in enumerate(corpus.names)}

    whole, prose = texts(), texts(parts=["docstrings"])
    assert texts(parts=["source"]) == whole and len(whole) == 8
    assert set(prose) == {f"demo/demo/{i}.py#docstrings" for i in range(6)}
    assert prose["demo/demo/3.py#docstrings"] == "Module 3.\n\nAll of it.\n\nClass 3.\n\nMethod 3.\n\nLast 3."
    both = list(texts(parts=["source", "docstrings"], documents=4))
    assert [name.endswith("#docstrings") for name in both] == [False, True, False, True]
    assert len({name.partition("#")[0] for name in both}) == 4
    assert len(texts(parts=["source", "docstrings"], per_folder=1)) == 2  # one of each kind


@given(length=st.integers(120, 2000), depth=st.floats(0, 1), seed=st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_prompts_fill_their_window_exactly(tiny_data, length, depth, seed):
    """Prompt and answer are `length` tokens together; the key stands in it twice; the last token precedes the key."""
    text = PasskeyText(load_tokenizer(tiny_data / "tokenizer"))
    rng = np.random.default_rng(seed)
    key = random_key(rng)
    answer = text.key_ids(key)
    prompt = text.prompt(answer, rng.integers(10, 300, length), depth, length)
    assert len(prompt) + len(answer) == length
    decoded = load_tokenizer(tiny_data / "tokenizer").decode(prompt.tolist())
    assert decoded.count(key) >= 2 and decoded.endswith("The pass key is ")
    assert len(key) == 5 and key.isdigit()


def test_a_window_without_room_is_an_error(tiny_data):
    text = PasskeyText(load_tokenizer(tiny_data / "tokenizer"))
    with pytest.raises(PromptError, match="tokens at least, 30 are allowed"):
        text.prompt(text.key_ids("12345"), np.zeros(30, np.int64), 0.5, 30)
