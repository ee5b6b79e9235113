"""A study on the user's own text: what the files hold is part of it, held-out text is, and each fault one message."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from yarnlab.corpus.packages import CorpusError
from yarnlab.outdated import outdated
from yarnlab.plan import plan_study
from yarnlab.stages.data import make_corpus
from yarnlab.stages.layout import Layout
from yarnlab.study.read import StudyError
from yarnlab.workflow import Workflow

STUDY = """\
study: mine
title: a model of a folder, extended on text of a folder
seed: 3
assets:
  mine: {{type: model, path: {model}}}
corpora:
  train: {{source: local-text, path: {books}, part: [0, 0.75], tokenizer: mine}}
  held: {{source: local-text, path: {books}, part: [0.75, 1], tokenizer: mine, min_tokens: 100, documents: 2}}
models:
  base:
    hub:
      asset: mine
      vocab_size: 512
      architecture:
        family: llama
        hidden_size: 32
        intermediate_size: 64
        num_hidden_layers: 2
        num_attention_heads: 2
        num_key_value_heads: 1
        head_dim: 16
        original_context: 64
        rope_theta: 10000.0
        tie_word_embeddings: true
  yarn:
    from: base
    rope: {{method: yarn, scale: 2}}
    train:
      corpus: train
      rows: {{text: spans}}
      steps: 2
      seq_len: 64
      global_batch: 2
      micro_batch: 1
      lr: 0.001
      schedule: constant
      warmup_steps: 0
      betas: [0.9, 0.95]
      weight_decay: 0
      max_grad_norm: 1
      precision: fp32
      parallel: {{processes: 1, threads: 1, sharding: replicate, activation_checkpointing: none}}
      checkpoint_minutes: 5
evaluations:
  perplexity:
    corpus: held
    models: [base, yarn]
    precision: fp32
    threads: 1
    lengths: {{start: 32, stop: 64, step: 32}}
"""


@pytest.fixture
def books(tmp_path: Path) -> Path:
    folder = tmp_path / "my books"
    folder.mkdir()
    for i in range(12):
        (folder / f"{i}.txt").write_text(f"Chapter {i}. " + f"The grass is green, {i} times over. " * 40)
    return folder


@pytest.fixture
def flow(tmp_path: Path, books: Path):
    """Loads the study, with changes of its text; `study` is what it says, results lie below the test's folder."""
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (model / name).write_text("{}")

    def load(**changes: str) -> Workflow:
        text = STUDY.format(model=model, books=books)
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "mine.yaml").write_text(text)
        return Workflow.load(str(tmp_path / "mine.yaml"), tmp_path)

    return load


@pytest.fixture
def layout(tmp_path: Path, tiny_data: Path) -> Layout:
    """A results folder with the model's tokenizer in it."""
    layout = Layout(tmp_path / "results" / "mine")
    shutil.copytree(tiny_data / "tokenizer", layout.asset("mine"))
    (layout.asset("mine") / "manifest.json").write_text('{"outputs": {}}')
    return layout


def test_what_the_files_hold_is_part_of_the_corpus_s_section(flow, books) -> None:
    """So Snakemake sees another one after an edit, and none after a mere touch."""
    before = flow().section("corpus", "held")
    assert len(before["content"]) == 64
    os.utime(books / "1.txt", ns=(1, 1))
    assert flow().section("corpus", "held") == before
    (books / "1.txt").write_text("Other text.")
    assert flow().section("corpus", "held")["content"] != before["content"]
    assert flow().corpus_dataset(SimpleNamespace(corpus="held")) == []
    assert flow().corpus_tokenizer(SimpleNamespace(corpus="held")).endswith("/assets/mine/manifest.json")


def test_the_stage_writes_what_the_study_asks_for(flow, layout, books, monkeypatch) -> None:
    """Its manifest names the content; held-out documents are none of those that are trained on; a start after it
    finds it fitting, and after an edit outdated."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(layout.root.parents[1])
    study = flow()
    for name in ("train", "held"):
        make_corpus(layout, name, study.section("corpus", name), study.key_of("corpus", name), None)
    made = {n: json.loads((layout.corpus(n) / "manifest.json").read_text()) for n in ("train", "held")}
    names = {
        n: {d["name"] for d in json.loads((layout.corpus(n) / "documents.json").read_text())["documents"]}
        for n in ("train", "held")
    }
    assert (len(names["train"]), len(names["held"])) == (9, 2) and not names["train"] & names["held"]
    assert made["held"]["facts"]["content"] == made["held"]["spec"]["content"]
    assert made["held"]["datasets"][0]["source"] == str(books)
    assert not {key for key in outdated(flow()) if key[0] == "corpus"}
    (books / "1.txt").write_text("Other text.")
    assert {key for key in outdated(flow()) if key[0] == "corpus"} == {("corpus", "train"), ("corpus", "held")}
    with pytest.raises(CorpusError, match=r"^corpora\.held: path .*: files have changed since this run started"):
        make_corpus(layout, "held", study.section("corpus", "held"), "0", None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda books: shutil.rmtree(books), r"^corpora\.train: path .*my books: there is no .*my books"),
        (lambda books: (books / "x.txt").symlink_to("gone"), r"^corpora\.train: .*/x\.txt can't be read \(No such"),
    ],
)
def test_a_file_that_is_missing_ends_the_start_with_one_message(flow, books, change, message) -> None:
    change(books)
    with pytest.raises(CorpusError, match=message):
        flow()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"part: [0, 0.75], ": ""}, r"corpora\.held\.path: .*my books is training text too \(corpus train\)"),
        ({"part: [0, 0.75]": "part: [0, 0.8]"}, r"corpora\.held\.path: .*my books is training text too"),
        ({"[0, 0.75], tok": "[0, 0.75], column: body, tok"}, r"corpora\.held\.path: .*my books is training text too"),
        ({"{books}, part: [0.75, 1]": "{books}/1.txt"}, r"^corpora\.held\.path: 1\.txt is training text too"),
        ({"{books}, part: [0.75, 1]": "{books}/*.txt"}, r"^corpora\.held\.path: \S+ and 11 more is training text"),
        ({"{books}, part: [0, 0.75]": "{copy}"}, r"^corpora\.held\.path: 5\.txt is training text too .* as copy\.txt"),
        ({"part: [0, 0.75]": "part: [0.75, 0.75]"}, r"corpora\.train: part \[0\.75, 0\.75\] is empty"),
        ({"part: [0, 0.75]": "part: [0, 75]"}, r"corpora\.train\.part\.1: input should be less than or equal to 1"),
    ],
)
def test_text_that_is_trained_on_is_not_held_out(flow, books, tmp_path, changes, message) -> None:
    """Under whatever name it is evaluated on: names tell before anything runs, contents where the files are."""
    (tmp_path / "copy.txt").write_text((books / "5.txt").read_text())
    changes = {
        old.format(books=books): new.format(books=books, copy=tmp_path / "copy.txt") for old, new in changes.items()
    }
    with pytest.raises(StudyError, match=message):
        flow(**changes)


def test_parts_that_do_not_meet_are_held_out(flow, books) -> None:
    assert flow().study.corpora["held"].part == (0.75, 1)
    assert flow(**{f"{books}, part: [0.75, 1]": f"{books}/*.txt, part: [0.75, 1]"})  # the same files, said otherwise


def test_the_plan_knows_the_size_of_the_files(flow, books) -> None:
    study = flow().study
    plan = plan_study(study)
    size = sum(file.stat().st_size for file in books.iterdir())
    (train,) = [stage for stage in plan.stages if (stage.stage, stage.name) == ("corpus", "train")]
    assert train.disk == 2 * 0.75 * size / 4  # two bytes a token
    shutil.rmtree(books)
    with pytest.raises(CorpusError, match=r"^corpora\.train: path .*my books: there is no"):
        plan_study(study)
