"""A finished model is not lost to an edit that is taken back or to inputs that were made again with the same content,
and a state is continued only as what it was begun as."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from stage_runs import PLAIN, make, make_and_stop, run_id, spec, step_log, stored
from tiny_runs import parallel

from yarnlab.errors import EXIT_INTERRUPTED
from yarnlab.provenance import replacing, sha256_of
from yarnlab.stages.finished import FORCED, MANIFEST, RECORD, STEPS
from yarnlab.stages.layout import Layout
from yarnlab.tracking.records import read_record


@pytest.fixture
def job(forked_job):
    """Runs a function in a process of its own and wants that it ends with this code; returns what it said.

    The job is started for Snakemake's own reasons; `asked` names what was asked for, None is a command by hand.
    """

    def run(function, *arguments, code: int = 0, asked: str | None = "") -> str:
        ended, said = forked_job(function, *arguments, **({} if asked is None else {FORCED: asked}))
        assert ended == code, said
        return said

    return run


def kept(layout: Layout, name: str = "base") -> Path:
    return layout.root / ".finished" / f"train.{name}"


@pytest.fixture
def given(architecture):
    return spec(architecture, "base", None, parallel())


def with_lr(given: dict, lr: float) -> dict:
    return given | {"phases": [given["phases"][0] | {"lr": lr}]}


def interrupted(layout: Layout, given: dict) -> None:
    """Ctrl-C before the first step."""
    from yarnlab.training import loop

    def at_once(*_: object) -> None:
        raise KeyboardInterrupt

    loop.train = at_once
    make(layout, given)


def manifest_of(layout: Layout, name: str = "base") -> Path:
    return layout.model(name) / "manifest.json"


def as_snakemake(layout: Layout, job, function, *arguments, code: int = 0, asked: str | None = "") -> str:
    """Start a job as Snakemake does: the declared output is deleted first, and after a failure."""
    manifest_of(layout).unlink(missing_ok=True)
    said = job(function, layout, *arguments, code=code, asked=asked)
    if code:
        manifest_of(layout).unlink(missing_ok=True)
    return said


def everything(layout: Layout) -> dict[str, bytes]:
    """What a reader sees of a finished model; of its tracking record, all but when it was put back."""
    files = [file for file in layout.model("base").iterdir() if file.is_file()]
    files += [layout.training("base")]
    record = {key: value for key, value in read_record(layout.root, "train", "base").items() if key != "restored"}
    return {str(file): file.read_bytes() for file in files} | {"record": json.dumps(record).encode()}


@pytest.mark.parametrize(
    "attempt",
    [
        pytest.param((interrupted, with_lr, 1), id="before-the-first-step"),
        pytest.param((make_and_stop, with_lr, EXIT_INTERRUPTED), id="with-a-checkpoint"),
    ],
)
def test_an_edit_that_is_taken_back_finds_the_model_finished(layout, given, job, attempt):
    """Finished, edited, stopped, edited back: manifest, step log and tracking record are those of the first training,
    to the byte (the record says besides that it was put back), nothing is trained, and the weights were never touched.
    What the edit had trained is kept; taken up again, it continues. A forced repetition of the unchanged model trains.
    """
    stop, edit, code = attempt
    edited, more = edit(given, 1e-2), (1,) if stop is make_and_stop else ()
    job(make, layout, given)
    before, touched = everything(layout), {f: f.stat().st_mtime_ns for f in layout.model("base").glob("*.safetensors")}
    as_snakemake(layout, job, stop, edited, *more, code=code)
    edit_began = read_record(layout.root, "train", "base")["started"]
    assert run_id(layout, "base") not in before[str(manifest_of(layout))].decode()

    said = as_snakemake(layout, job, make, given)
    assert "put back, nothing is trained" in said and "3/3" not in said
    assert everything(layout) == before
    assert read_record(layout.root, "train", "base")["restored"] > edit_began
    assert {f: f.stat().st_mtime_ns for f in touched} == touched
    assert (layout.root / "base.log").read_text().count("put back") == 1
    assert (layout.root / "state" / "base").exists() == bool(more)  # nothing to continue, nothing left

    if more:
        said = as_snakemake(layout, job, make_and_stop, edited, 1, code=EXIT_INTERRUPTED)
        assert "continuing after step 1" in said
        as_snakemake(layout, job, make, given)
    first = run_id(layout, "base")
    said = as_snakemake(layout, job, make, given, asked="train")
    assert "base: 3/3" in said and run_id(layout, "base") != first
    assert (layout.root / "state" / "base").exists() == bool(more)  # the edit's state is not this training's to remove


def killed_after_the_manifest(layout: Layout, given: dict) -> None:
    """SIGKILL while what is kept of the tracking record is written anew, when the model is finished."""
    from yarnlab.stages import finished

    write = finished.write_record

    def killed(path: Path, value: object) -> None:
        if manifest_of(layout).exists():
            with replacing(path):
                os.kill(os.getpid(), signal.SIGKILL)
        write(path, value)

    finished.write_record = killed
    make(layout, given)


def test_what_a_killed_process_was_writing_of_a_finished_model_is_removed(layout, given, job):
    job(killed_after_the_manifest, layout, given, code=-signal.SIGKILL)
    assert len([*kept(layout).iterdir()]) == 4
    assert "put back" in as_snakemake(layout, job, make, given)
    assert {file.name for file in kept(layout).iterdir()} == {MANIFEST, STEPS, RECORD}


def test_another_seed_does_not_take_the_place_of_the_first(layout, given, job):
    """The finished model of a seed is put back for that seed alone; one that finishes takes the other's place."""
    job(make, layout, given)
    weights = stored(layout.model("base"))
    as_snakemake(layout, job, make_and_stop, given | {"seed": 1}, 1, code=EXIT_INTERRUPTED)
    said = as_snakemake(layout, job, make_and_stop, given | {"seed": 2}, 1, code=EXIT_INTERRUPTED)
    assert "put back" not in said
    assert "put back" in as_snakemake(layout, job, make, given)
    assert "put back" not in as_snakemake(layout, job, make, given | {"seed": 1})
    other = stored(layout.model("base"))
    assert not torch.equal(weights["model.embed_tokens.weight"], other["model.embed_tokens.weight"])
    assert "put back" not in as_snakemake(layout, job, make, given)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in stored(layout.model("base")).items())


@pytest.mark.parametrize("what", ["weights", "config", "log", "copy", "bit of steps.jsonl", "bit of manifest.json"])
def test_files_that_are_not_as_they_were_are_made_again(layout, given, job, what):
    """A bit of the weights, a removed config, a copy without its step log, cut short or with a flipped bit: the model is
    trained."""
    job(make, layout, given)
    as_snakemake(layout, job, interrupted, with_lr(given, 1e-2), code=1)
    folder = layout.model("base")
    if what == "weights":
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    elif what == "config":
        (folder / "config.json").unlink()
    elif what.startswith("bit of "):
        file = kept(layout) / what.removeprefix("bit of ")
        content = file.read_bytes()
        at = content.index(b'"seconds": ') + 11
        file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])  # another digit
    elif what == "log":
        (kept(layout) / "steps.jsonl").unlink()
    else:
        (kept(layout) / "manifest.json").write_text("{")
    said = as_snakemake(layout, job, make, given)
    assert "base: 3/3" in said and "put back" not in said
    outputs = json.loads(manifest_of(layout).read_text())["outputs"]
    assert all(sha256_of(layout.root / name) == made["sha256"] for name, made in outputs.items())


def killed_while_replacing(layout: Layout, given: dict) -> None:
    """The new weights have just been renamed into place when the process is killed."""
    import os

    original = Path.replace

    def replace(self: Path, target: Path) -> Path:
        renamed = original(self, target)
        if Path(target).name == "model.safetensors":
            os._exit(9)
        return renamed

    Path.replace = replace
    make(layout, given)


def test_a_folder_whose_weights_began_to_change_is_not_taken_for_the_former_model(layout, given, job):
    """What was kept of the former one counts for its own bytes only."""
    job(make, layout, given)
    as_snakemake(layout, job, killed_while_replacing, with_lr(given, 1e-2), code=9)
    assert (kept(layout) / "manifest.json").exists()
    assert "base: 3/3" in as_snakemake(layout, job, make, given)


def test_a_parent_of_other_weights_has_another_child(layout, given, architecture, job):
    """The parent is edited and finishes, its child is stopped; with the parent edited back and trained to the same
    weights as before, the child is the finished one."""
    child = spec(architecture, "child", "base", parallel())
    job(make, layout, given)
    job(make, layout, child)
    before = manifest_of(layout, "child").read_bytes()
    job(make, layout, given | {"seed": 1})
    manifest_of(layout, "child").unlink()
    assert "put back" not in job(make_and_stop, layout, child, 1, code=EXIT_INTERRUPTED)
    job(make, layout, given)
    assert "put back" in job(make, layout, child)
    assert manifest_of(layout, "child").read_bytes() == before


def test_inputs_that_were_made_again_with_the_same_content_train_nothing(layout, given, architecture, job):
    """A corpus or a parent with a new manifest of the same outputs: the model and its child are put back to the byte,
    with another content they are trained."""
    child = spec(architecture, "child", "base", parallel())
    job(make, layout, given)
    job(make, layout, child)
    before = [manifest_of(layout, name).read_bytes() for name in ("base", "child")]
    corpus = layout.corpus("train") / "manifest.json"
    corpus.write_text(json.dumps({"datasets": [], "outputs": {}, "run": "another", "ended": "later"}))
    assert "put back" in as_snakemake(layout, job, make, given)
    assert "put back" in job(make, layout, child)
    assert [manifest_of(layout, name).read_bytes() for name in ("base", "child")] == before
    corpus.write_text(json.dumps({"datasets": [], "outputs": {"data/train/tokens.npy": {"sha256": "0", "bytes": 1}}}))
    assert "base: 3/3" in as_snakemake(layout, job, make, given)


@pytest.mark.parametrize("asked", ["train", "*", "FILE", None])
def test_who_asks_for_a_model_again_gets_it_trained(layout, given, job, asked):
    """By its rule, its file or everything; or by hand, without Snakemake."""
    job(make, layout, given)
    named = asked and "passkey\n" + asked.replace("FILE", str(manifest_of(layout)))
    assert "base: 3/3" in as_snakemake(layout, job, make, given, asked=named)
    other = f"passkey\n{manifest_of(layout, 'another')}"
    assert "put back" in as_snakemake(layout, job, make, given, asked=other)


def on_a_machine(multiplies: bool, function, layout: Layout, *arguments) -> None:
    from yarnlab import precision

    precision.processor_multiplies_bf16 = lambda: multiplies
    function(layout, *arguments)


def test_a_state_is_not_continued_in_another_number_format(layout, given, job):
    """`auto`, begun where bf16 is multiplied, goes on where it is not: from the start, saying so, and the log is that
    of a training in fp32 alone. Back on the first machine, its own state continues."""
    auto = given | {"phases": [given["phases"][0] | {"precision": "auto"}]}
    job(on_a_machine, True, make_and_stop, layout, auto, 2, code=EXIT_INTERRUPTED)
    said = job(on_a_machine, False, make_and_stop, layout, auto, 1, code=EXIT_INTERRUPTED)
    assert "continuing" not in said and "unfinished training of other settings or inputs lies in" in said
    said = job(on_a_machine, True, make_and_stop, layout, auto, 1, code=EXIT_INTERRUPTED)
    assert "continuing after step 2" in said and "other settings" not in said
    job(on_a_machine, False, make, layout, auto)
    found = step_log(layout, "base")
    assert json.loads(manifest_of(layout).read_text())["facts"]["precision"] == "fp32"
    job(make, layout, given)
    assert step_log(layout, "base") == found


@pytest.mark.slow
def test_processes_of_different_machines_compute_in_one_format(layout, architecture, job):
    """Of two processes one multiplies bf16: both compute in fp32."""
    two = spec(architecture, "base", None, parallel(2))
    two = two | {"phases": [two["phases"][0] | {"precision": "auto"}]}
    job(_one_multiplies, layout, two)
    assert json.loads(manifest_of(layout).read_text())["facts"]["precision"] == "fp32"


def _one_multiplies(layout: Layout, given: dict) -> None:
    import os

    from yarnlab import precision

    leader = os.getpid()
    precision.processor_multiplies_bf16 = lambda: os.getpid() == leader
    make(layout, given)


def test_an_abandoned_state_is_named(layout, given, job):
    """A training stopped after a checkpoint is found neither after an edit nor thrown away for it: where it lies is
    said once, on the terminal and in the log. A folder without a checkpoint holds nothing to name."""
    job(interrupted, layout, given, code=1)
    (layout.root / "state" / "base" / "0123456789abcdef").mkdir(exist_ok=True)
    assert "unfinished training" not in job(make_and_stop, layout, given, 1, code=EXIT_INTERRUPTED)
    (state,) = {place.parent for place in layout.root.glob("state/base/*/checkpoint-*")}
    log = layout.root / "base.log"
    log.write_text("")
    said = job(interrupted, layout, with_lr(given, 1e-2), code=1)
    message = f"an unfinished training of other settings or inputs lies in {state}; this one begins at step 0"
    assert said.count(message) == 1 and log.read_text().count(message) == 1
    assert "unfinished training" not in job(make, layout, given)


def test_models_that_are_not_trained_keep_nothing(layout, given, architecture, job):
    """A parent's weights under another rope take a second to make: no copy is kept, and the parent's is not linked."""
    linked = spec(architecture, "linked", "base", parallel()) | {"phases": []}
    job(make, layout, given)
    job(make, layout, linked)
    assert not kept(layout, "linked").exists()
    assert (kept(layout) / "manifest.json").exists() and linked["rope"] != PLAIN
