"""`yarnlab clean`: what can go, and what must not."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from yarnlab.cli import app
from yarnlab.stages import clean
from yarnlab.stages.layout import Layout
from yarnlab.study.load import load_study

SMOKE = Path(__file__).resolve().parents[1] / "config" / "studies" / "smoke.yaml"
KEPT = (
    "models/base/manifest.json",
    "data/train/manifest.json",
    "data/tokenizer/manifest.json",
    "evaluations/perplexity/base.manifest.json",
    "state/yarn-s16/2222/checkpoint-00000002/rows",  # unfinished: it may go on from any of these
    "state/yarn-s16/3333/checkpoint-00000001/rows",
    "state/.evaluations/passkey/base/4444/5555/part.json",
    "models/.base.partial/model.safetensors",  # being written
    ".finished/train.base/manifest.json",
    "figures/.vega-1.9.0.js",
    "training/base.jsonl",
    "evaluations/perplexity/base.parquet",
    "evaluations/temperature/base.documents.parquet",
    "nll/held-out/base.npz",
    "tracking/records/train.base.json",
    "tracking/records/corpus.train.json",
    ".finished/perplexity.base/manifest.json",
)
GONE = {
    "training/dropped.jsonl": "training/dropped.jsonl",
    "evaluations/perplexity/dropped.parquet": "evaluations/perplexity/dropped.parquet",
    "evaluations/perplexity/dropped.manifest.json": "evaluations/perplexity/dropped.manifest.json",
    "evaluations/sliding_window/base.parquet": "evaluations/sliding_window/base.parquet",  # which is not evaluated so
    "nll/held-out/dropped.npz": "nll/held-out/dropped.npz",
    "tracking/records/train.dropped.json": "tracking/records/train.dropped.json",
    ".finished/train.dropped/manifest.json": ".finished/train.dropped",
    "models/dropped/model.safetensors": "models/dropped",
    "assets/dropped/model.safetensors": "assets/dropped",
    "data/dropped/tokens.npy": "data/dropped",
    "state/base/1111/checkpoint-00000002/rows": "state/base/1111",
    "state/dropped/1111/checkpoint-00000002/rows": "state/dropped/1111",
    "state/.evaluations/perplexity/base/1111/2222/part.json": "state/.evaluations/perplexity/base/1111",
    "state/.evaluations/perplexity/dropped/1111/2222/part.json": "state/.evaluations/perplexity/dropped/1111",
    "models/.yarn-s16.partial/model.safetensors": "models/.yarn-s16.partial",
    "data/train/.tokens.npy.ab12cd_8.npy": "data/train/.tokens.npy.ab12cd_8.npy",
}


@pytest.fixture
def root(tmp_path) -> Path:
    root = tmp_path / "results" / "smoke"
    for name in (*KEPT, *GONE):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x" * 2_000_000)
    (root / "state/base/lock").touch()
    old = time.time() - 2 * 86400
    for name in ("models/.yarn-s16.partial", "data/train/.tokens.npy.ab12cd_8.npy"):
        os.utime(root / name, (old, old))
    return root


def cleaned(root: Path, answer: str) -> str:
    assert load_study(SMOKE).study == root.name
    done = CliRunner().invoke(app, ["clean", "smoke", "--results", str(root.parent)], input=answer)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    return done.output


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_it_says_what_can_go_and_asks(root):
    before = files(root)
    said = cleaned(root, "n\n")
    listed = {line.split(" GB  ")[1].partition(": ")[0] for line in said.splitlines() if " GB  " in line}
    assert listed == {str(root / name) for name in GONE.values()}
    assert all(line.strip().startswith("0.002 GB") for line in said.splitlines() if " GB  " in line)
    assert f"Remove all of these, {len(GONE) * 0.002:.3g} GB?" in said and files(root) == before


def test_what_was_named_goes_and_nothing_else(root):
    cleaned(root, "y\n")
    assert files(root) == set(KEPT)
    assert not (root / "state/base").exists() and not (root / "state/dropped").exists()
    assert "everything there is needed" in cleaned(root, "")


def test_a_state_in_use_stays(root):
    with FileLock(root / "state/base/lock"):
        assert f"{root}/state/base/1111: in use or gone, left as it is" in cleaned(root, "y\n")
    assert files(root) == {*KEPT, "state/base/lock", "state/base/1111/checkpoint-00000002/rows"}


def test_what_goes_while_it_looks_or_asks_is_gone(root, monkeypatch):
    """A run under way finishes a model, renames a draft: neither the list nor the removal stumbles over that."""
    look = clean.leftovers

    def goes(name: str) -> None:
        if (root / name).is_dir():
            shutil.rmtree(root / name)
        else:
            (root / name).unlink(missing_ok=True)

    def sized(path: Path) -> int:
        size = measure(path)
        goes("data/train/.tokens.npy.ab12cd_8.npy")
        goes("state/base/1111")
        return size

    measure = clean._size
    monkeypatch.setattr(clean, "_size", sized)
    found = look(Layout(root), load_study(SMOKE))
    assert all(clean.remove(one) for one in found)
    assert files(root) == {*KEPT}


def test_a_result_that_is_being_made_again_keeps_its_state(root, monkeypatch):
    """It was made again after the question was asked: what is removed is what can go when the answer comes."""

    def confirm(question: str) -> bool:
        (root / "evaluations/perplexity/base.manifest.json").unlink()
        return True

    monkeypatch.setattr("typer.confirm", confirm)
    cleaned(root, "")
    part = "state/.evaluations/perplexity/base/1111/2222/part.json"
    assert files(root) == {*KEPT, part} - {"evaluations/perplexity/base.manifest.json"}


def test_a_draft_that_is_renamed_while_it_looks_is_none(root, monkeypatch):
    draft, stat = root / "data/train/.tokens.npy.ab12cd_8.npy", Path.stat

    def vanishing(self: Path, **how: bool) -> os.stat_result:
        if self == draft:
            raise FileNotFoundError(self)
        return stat(self, **how)

    monkeypatch.setattr(Path, "stat", vanishing)
    assert draft not in {one.path for one in clean.leftovers(Layout(root), load_study(SMOKE))}
