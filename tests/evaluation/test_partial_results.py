"""An evaluation that ended early goes on from its parts, to the same results as one that was never interrupted."""

from __future__ import annotations

import dataclasses
import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from yarnlab import attention
from yarnlab.evaluation import key_cache, sliding_window
from yarnlab.evaluation.partial_results import PartialResults
from yarnlab.modeling import rope_of, save_model, set_rope
from yarnlab.progress import Progress
from yarnlab.stages.evaluate import evaluate
from yarnlab.stages.finished import FORCED
from yarnlab.stages.layout import Layout
from yarnlab.study.evaluations import KINDS

TEMPERATURE = {
    "method": "ntk-by-parts",
    "scales": [2, 4],
    "factors": {"start": 1.0, "stop": 1.1, "step": 0.1},
    "segments": 4,
    "documents": 2,
    "max_length": 256,
}
# Kind, its settings, the steps of progress after which the first attempt dies, and those in the parts before.
CASES = [
    ("temperature", TEMPERATURE, 11, 10),
    ("perplexity", {"lengths": {"start": 64, "stop": 512, "step": 64}}, 2, 1),
    ("context", {"contexts": [32, 128], "max_length": 512}, 2, 1),
    ("short_texts", {"lengths": [32, 64], "max_tokens": 300}, 2, 1),
    ("zero_shot", {"methods": ["none", "pi", "yarn"], "scales": [2, 4], "max_length": 256}, 8, 7),
    (
        "ramp",
        {
            "method": "yarn",
            "variants": {"a": {}, "b": {"truncate": False}},
            "scales": [2, 4],
            "documents": 2,
            "max_length": 256,
        },
        5,
        4,
    ),
    ("sliding_window", {"window": 128, "stride": 64, "max_tokens": 700}, 20, 18),
    ("dynamic", {"methods": ["none", "dynamic-yarn"], "lengths": [64, 128], "tail": 16}, 700, 640),
    ("key_cache", {"methods": ["dynamic-pi", "dynamic-yarn"], "length": 150, "documents": 2}, 4, 3),
    ("passkey", {"lengths": [128, 192, 256], "trials": 10}, 30, 20),
    ("passkey_official", {"lengths": [400, 600], "trials": 3, "new_tokens": 3, "decoding": "released"}, 5, 3),
]


class Killed(Exception):
    """Stands for a process that ends here."""


class Counting(Progress):
    """Counts the steps that are made, and ends the process before the last of `alive` of them is reported."""

    def __init__(self, total: int, unit: str, alive: float, log: Path | None = None) -> None:
        super().__init__("test", total, log=log, unit=unit)
        self.alive, self.made = alive, 0

    def advance(self, count: int = 1, note: str = "") -> None:
        if self.made + count >= self.alive:
            raise Killed
        self.made += count
        super().advance(count, note)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(sliding_window, "BATCHES_PER_PART", 1)
    monkeypatch.setattr(sliding_window, "TOKENS_PER_BATCH", 5 * 128)
    monkeypatch.setattr(key_cache, "TOKENS_PER_BATCH", 150)


def attempt(task, kind: str, folder: Path | None, alive: float = float("inf"), log: Path | None = None):
    """(outcome, progress) of one attempt; the outcome is None if it was killed."""
    made: list[Counting] = []

    def progress(total: int, unit: str) -> Counting:
        made.append(Counting(total, unit, alive, log))
        return made[0]

    own = dataclasses.replace(task, progress=progress, partial_results=PartialResults(folder))
    try:
        outcome = KINDS[kind](**task.settings).evaluate(own)
    except Killed:
        outcome = None
    return outcome, made[0]


def assert_equal(ours, theirs, folder: Path) -> None:
    """Tables alike in columns, types and values, and byte by byte as files; equal metrics and per-token NLL."""
    files = []
    for i, outcome in enumerate((ours, theirs)):
        files.append(folder / f"{i}.parquet")
        outcome.table.to_parquet(files[-1], index=False)
    pd.testing.assert_frame_equal(ours.table, theirs.table, check_exact=True)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert ours.metrics == theirs.metrics
    assert (ours.nll is None) == (theirs.nll is None)
    if ours.nll is not None:
        assert ours.nll.dtype == theirs.nll.dtype and np.array_equal(ours.nll, theirs.nll)


@pytest.mark.parametrize(("kind", "settings", "alive", "kept"), CASES, ids=[case[0] for case in CASES])
def test_the_next_attempt_computes_the_rest_alone(tiny_task, tmp_path, kind, settings, alive, kept):
    """The parts before the one at work are read, the others computed; nothing shows that in the results. One line
    says where the second attempt goes on."""
    task, folder, log = tiny_task(settings), tmp_path / "parts", tmp_path / "log"
    clean, whole = attempt(task, kind, None)
    assert attempt(task, kind, folder, alive)[0] is None
    again, rest = attempt(task, kind, folder, log=log)
    assert rest.made == whole.made - kept and whole.made == whole.total
    assert_equal(again, clean, tmp_path)
    assert log.read_text().count("continuing after") == 1
    assert f"continuing after {kept} of {rest.total} {rest.unit}s" in log.read_text()
    last, nothing = attempt(task, kind, folder, log=log)  # killed between its last part and its outputs
    assert nothing.made == 0
    assert_equal(last, clean, tmp_path)


def test_passes_of_the_model_are_saved(tiny_task, tiny_model, tmp_path):
    """The model itself runs for the missing parts only: one pass a document."""
    task, passes = tiny_task(TEMPERATURE), []
    tiny_model.model.embed_tokens.register_forward_pre_hook(lambda *_: passes.append(1))
    attempt(task, "temperature", tmp_path / "parts", alive=6)
    assert len(passes) == 6
    attempt(task, "temperature", tmp_path / "parts")
    assert len(passes) == 6 + 2 * 4 * 2 - 5


@pytest.mark.parametrize("kind", ["temperature", "perplexity"])
@pytest.mark.parametrize("left", [b"", b"[{", b"{}", b"\x93NUMPY\x01\x00", b"\0" * 500])
def test_an_unreadable_part_is_computed_again(tiny_task, tmp_path, kind, left):
    """Whatever a full disk or a failing node left under a part's name."""
    task, folder = tiny_task(dict(CASES[0][1] if kind == "temperature" else CASES[1][1])), tmp_path / "parts"
    clean, _ = attempt(task, kind, folder)
    broken = sorted(folder.iterdir())[1]
    broken.write_bytes(left)
    again, rest = attempt(task, kind, folder)
    assert rest.made == 1
    assert_equal(again, clean, tmp_path)
    assert broken.read_bytes() != left


def test_a_part_counts_whole_and_with_every_bit_as_it_was_written(tmp_path):
    """Cut off anywhere, or with any bit flipped, neither rows nor numbers are read; one line of the log says so."""
    log = tmp_path / "log"
    progress, partial_results, file = Progress("test", 1, log=log), PartialResults(tmp_path), tmp_path / "part.json"
    for made in ([{"a": 1.5, "b": "x"}], [0.0, 1.0, 2.0]):
        file.unlink(missing_ok=True)
        assert partial_results.part("part", progress, 1, lambda made=made: made) == made
        assert not log.exists()
        whole = file.read_bytes()
        flipped = (
            whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :] for at in range(len(whole)) for bit in range(8)
        )
        for left in (*(whole[:size] for size in range(len(whole))), *flipped):
            file.write_bytes(left)
            with pytest.raises(Killed):
                partial_results.part("part", progress, 1, _die)
            assert log.read_text().count("\n") == 1
            assert f"{file} is not what was written; it is computed again" in log.read_text()
            log.unlink()


def test_numbers_of_fp32_come_back_bit_for_bit(tmp_path):
    """Through text, computed now or by an earlier attempt."""
    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    progress, parts = Progress("test", 2, log=None), PartialResults(tmp_path)
    for compute in (values.tolist, _die):
        found = np.array(parts.part("nll", progress, 1, compute), np.float32)
        assert found.tobytes() == values.tobytes()


def _die():
    raise Killed


def test_a_folder_that_can_not_be_written_stops_nothing(tiny_task, tmp_path):
    """The evaluation ends well without keeping anything, and says so."""
    (tmp_path / "file").write_text("")
    outcome, progress = attempt(tiny_task(TEMPERATURE), "temperature", tmp_path / "file" / "x", log=tmp_path / "log")
    assert progress.made == 16 and len(outcome.table) == 64
    assert "can't be kept for a later attempt" in (tmp_path / "log").read_text()


@pytest.fixture
def layout(tiny_data, tiny_model, tmp_path) -> Layout:
    """A results folder with a corpus and a model."""
    layout = Layout(tmp_path / "results")
    shutil.copytree(tiny_data, layout.root / "data")
    rope = rope_of(spec())
    set_rope(tiny_model, rope)
    save_model(tiny_model, rope, layout.tokenizer, layout.model("tiny"))
    for folder in (layout.corpus("held"), layout.model("tiny")):
        (folder / "manifest.json").write_text(json.dumps({"datasets": [], "outputs": {"file": "1"}}))
    return layout


def spec(**changes) -> dict:
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape |= {"num_key_value_heads": 1, "head_dim": 16, "original_context": 64, "rope_theta": 10000.0}
    return {
        "model": "tiny",
        "arm": "tiny",
        "seed": 0,
        "architecture": {**shape, "family": "llama", "tie_word_embeddings": True},
        "rope": {"method": "none", "scale": 1.0},
        "evaluation": {"corpus": "held", "precision": "fp32", **TEMPERATURE, **changes},
        "evaluation_seed": 0,
    }


def run(layout: Layout, monkeypatch, alive: float = float("inf"), code: str = "c", **changes) -> int:
    """The steps that one attempt at the stage makes."""
    made = []

    def progress(label, total, *, log, unit="step"):
        made.append(Counting(total, unit, alive, log))
        return made[0]

    stage = importlib.import_module("yarnlab.stages.evaluate")  # the package has a function of this name too
    monkeypatch.setattr(stage, "Progress", progress)
    try:
        evaluate("temperature", layout, "tiny", spec(**changes), code, layout.root / "log", threads=1)
    except Killed:
        assert not layout.evaluation("temperature", "tiny").with_suffix(".manifest.json").exists()
    return made[0].made


def test_the_stage_goes_on_and_leaves_nothing_behind(layout, monkeypatch):
    """Table as without the interruption, the same run for tracking, no state and no draft when it is done; asked again,
    it computes all."""
    table = layout.evaluation("temperature", "tiny")
    assert run(layout, monkeypatch) == 16
    clean = table.read_bytes()
    table.unlink()
    table.with_suffix(".manifest.json").unlink()
    assert run(layout, monkeypatch, alive=8) == 7
    record = layout.root / "tracking" / "records"
    before = [json.loads(file.read_text())["run"] for file in record.iterdir()]
    (state,) = layout.partial_results("temperature", "tiny").iterdir()
    (parts,) = state.iterdir()
    assert parts.is_relative_to(layout.root / "state" / ".evaluations") and len(list(parts.iterdir())) == 7
    (parts / ".4-grid-1.0-0.json.abc").write_bytes(b"[")  # a draft of the part at work
    assert run(layout, monkeypatch) == 9
    assert table.read_bytes() == clean
    assert [json.loads(file.read_text())["run"] for file in record.iterdir()] == before
    assert not layout.partial_results("temperature", "tiny").exists()
    assert run(layout, monkeypatch) == 16


def test_a_table_that_is_there_unchanged_is_put_back(layout, monkeypatch):
    """When Snakemake starts the job for an input's sake; with another setting, or cut short, it is computed."""
    table = layout.evaluation("temperature", "tiny")
    manifest = table.with_suffix(".manifest.json")
    assert run(layout, monkeypatch) == 16
    before = [file.read_bytes() for file in (table, manifest)]
    monkeypatch.setenv(FORCED, "")
    manifest.unlink()
    assert run(layout, monkeypatch) == 0
    assert [file.read_bytes() for file in (table, manifest)] == before
    assert run(layout, monkeypatch, code="d") == 16
    table.write_bytes(before[0][:-1])
    assert run(layout, monkeypatch, code="d") == 16


def test_parts_of_another_evaluation_are_not_reused(layout, monkeypatch):
    """Settings, code, and what model and corpus hold decide; what a manifest says beside that does not. An evaluation
    that is finished leaves the parts of the others."""
    assert run(layout, monkeypatch, alive=8) == 7
    assert run(layout, monkeypatch, alive=8, segments=8) == 7
    assert run(layout, monkeypatch, alive=8, code="d") == 7
    for folder in (layout.model("tiny"), layout.corpus("held")):
        manifest = folder / "manifest.json"
        before = json.loads(manifest.read_text())
        manifest.write_text(json.dumps(before | {"outputs": {"file": "2"}}))
        assert run(layout, monkeypatch, alive=8) == 7
        manifest.write_text(json.dumps(before | {"ended": "later"}))
    assert len(list(layout.partial_results("temperature", "tiny").iterdir())) == 5
    assert run(layout, monkeypatch) == 9
    assert len(list(layout.partial_results("temperature", "tiny").iterdir())) == 4
    assert run(layout, monkeypatch, code="d") == 9


def test_one_table_is_computed_by_one_kernel(layout, monkeypatch):
    """An attempt that was killed on another machine, or before another choice, is not continued: its numbers differ."""
    table = layout.evaluation("temperature", "tiny")
    monkeypatch.setenv(attention.VARIABLE, "eager")
    assert run(layout, monkeypatch) == 16
    expected = table.read_bytes()
    table.with_suffix(".manifest.json").unlink()
    monkeypatch.delenv(attention.VARIABLE)
    assert run(layout, monkeypatch, alive=8) == 7
    monkeypatch.setenv(attention.VARIABLE, "eager")
    assert run(layout, monkeypatch) == 16
    assert table.read_bytes() == expected and not layout.partial_results("temperature", "tiny").exists()
