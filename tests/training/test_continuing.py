"""What of a training's settings may change on the way, what stays of others, and how a training is stopped."""

from __future__ import annotations

import json
import os
import re
import signal
import time

import pytest
import torch
from stage_runs import make, make_and_stop, run_id, spec, step_log, stored
from tiny_runs import during, parallel

from yarnlab.errors import EXIT_INTERRUPTED
from yarnlab.provenance import write_json
from yarnlab.stages.layout import Layout


@pytest.fixture
def given(architecture):
    return spec(architecture, "base", None, parallel())


def changed(given: dict, parallel: dict | None = None, **settings) -> dict:
    phase = given["phases"][0]
    return given | {"phases": [phase | settings | {"parallel": phase["parallel"] | (parallel or {})}]}


def manifest(layout: Layout) -> dict:
    return json.loads((layout.model("base") / "manifest.json").read_text())


def states(layout: Layout) -> list[str]:
    return sorted(place.parent.name for place in layout.root.glob("state/base/*/checkpoint-*"))


@pytest.mark.parametrize(
    "change",
    [{"checkpoint_minutes": 5.0}, {"parallel": {"activation_checkpointing": "full"}}, {"parallel": {"threads": 2}}],
    ids=lambda change: next(iter(change.get("parallel", change))),
)
def test_settings_that_change_no_bit_continue_and_are_no_other_training(layout, given, job, change):
    """Stopped, edited, finished: the same tracking run goes on, weights and log are those of a training without a
    stop. The manifest's specification, by which a model is told to be up to date, does not hold the setting."""
    edited = changed(given, **change)
    job(make, layout, given)
    expected, log, section = stored(layout.model("base")), step_log(layout, "base"), manifest(layout)["spec"]
    job(make_and_stop, layout, given, 2, code=EXIT_INTERRUPTED)
    first = run_id(layout, "base")
    said = job(make, layout, edited)
    assert "continuing after step 2" in said and run_id(layout, "base") == first
    assert manifest(layout)["spec"] == section
    if "threads" not in change.get("parallel", {}):  # more threads may add in another order
        assert all(torch.equal(expected[name], tensor) for name, tensor in stored(layout.model("base")).items())
        assert step_log(layout, "base") == log


@pytest.mark.parametrize(
    ("change", "noted"),
    [
        ({"parallel": {"processes": 2}}, ("world", [1, 2])),
        ({"parallel": {"processes": 2, "sharding": "fsdp", "context": 2}}, ("context", [1, 2])),
        ({"loss": "torch"}, ("loss", ["torch"])),
    ],
    ids=["processes", "sharding-and-context", "loss"],
)
def test_who_computes_may_change_on_the_way_and_the_manifest_says_so(layout, given, job, change, noted):
    """An unfinished training goes on under other processes, shards or kernels: weights are the same up to the order of
    additions, and the manifest has a line for each stretch. It names what changed that order, and nothing if none did."""
    job(make, layout, given)
    expected = stored(layout.model("base"))
    assert [one["after_step"] for one in manifest(layout)["facts"]["stretches"]] == [0]
    assert manifest(layout)["facts"]["summation_order_changed_by"] == []
    job(make_and_stop, layout, given, 2, code=EXIT_INTERRUPTED)
    said = job(make, layout, changed(given, **change))
    assert "continuing after step 2" in said
    for name, tensor in stored(layout.model("base")).items():
        assert (tensor - expected[name]).abs().max() <= 1e-4 * expected[name].abs().max(), name
    facts, (key, values) = manifest(layout)["facts"], noted
    assert [one[key] for one in facts["stretches"]] == values
    assert [one["after_step"] for one in facts["stretches"]] == [0, 2][: len(values)]
    assert (key in facts["summation_order_changed_by"]) == (len(values) > 1)


def test_steps_that_are_made_again_are_noted_once(layout, given, job):
    """Two stops without a step in between leave no stretch of no steps."""
    job(make_and_stop, layout, given, 1, code=EXIT_INTERRUPTED)
    two = changed(given, {"processes": 2})
    job(interrupted, layout, two, code=1)
    job(make, layout, given)
    assert [one["world"] for one in manifest(layout)["facts"]["stretches"]] == [1]


def interrupted(layout: Layout, given: dict) -> None:
    """Ctrl-C twice in the first step that is made."""
    from yarnlab.training import loop

    def accumulate(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)

    loop.accumulate = accumulate
    make(layout, given)


def test_a_finished_model_of_other_processes_is_not_taken_for_this_one(layout, given, job):
    """Their last bits differ. Finished with one process, edited, stopped, edited back with two: it is trained."""
    job(make, layout, given)
    (layout.model("base") / "manifest.json").unlink()
    job(make_and_stop, layout, changed(given, lr=1e-2), 1, code=EXIT_INTERRUPTED)
    said = job(make, layout, changed(given, {"processes": 2}))
    assert "put back" not in said and manifest(layout)["facts"]["world"] == 2


def test_a_finished_training_leaves_the_states_of_other_settings(layout, given, job):
    """Stopped, edited, finished: the first one's state is kept, named with its size, and continues after an edit
    back. With the last of them the folder goes."""
    other = changed(given, lr=1e-2)
    job(make_and_stop, layout, given, 2, code=EXIT_INTERRUPTED)
    (kept,) = states(layout)
    said = job(make, layout, other)
    found = re.search(r"kept: an unfinished training of other settings or inputs, ([\d.e-]+) GB in (\S+);", said)
    assert found is not None and float(found[1]) > 1e-4 and found[2].endswith(f"state/base/{kept}")
    assert states(layout) == [kept]
    said = job(make, layout, given)
    assert "continuing after step 2" in said and "kept:" not in said
    assert not (layout.root / "state" / "base").exists()


def ctrl_c(layout: Layout, given: dict) -> None:
    during(2, lambda: os.kill(os.getpid(), signal.SIGINT))
    make(layout, given)


@pytest.mark.parametrize("processes", [1, 2])
def test_the_first_ctrl_c_saves_and_the_second_ends_at_once(layout, given, job, processes):
    """Like SIGTERM: the state is saved. Twice: it is not, and no process says a traceback beside the leading one's."""
    chosen = changed(given, {"processes": processes})
    said = job(ctrl_c, layout, chosen, code=EXIT_INTERRUPTED)
    assert said.count("stopping: the state is saved first") == 1 and "after step 2" in said
    (state,) = states(layout)
    began = time.monotonic()
    said = job(interrupted, layout, chosen, code=1)
    assert time.monotonic() - began < 9 and said.count("Traceback") == 1 and states(layout) == [state]
    assert "continuing after step 2" in job(make, layout, chosen)


def test_a_training_stopped_in_its_last_step_has_its_final_loss(layout, given, job):
    """The next attempt makes no step, and finds the loss in the step log."""
    job(make_and_stop, layout, given, 3, code=EXIT_INTERRUPTED)
    job(make, layout, given)
    assert manifest(layout)["metrics"]["final_loss"] == step_log(layout, "base")[-1][1]


def test_json_has_no_nan(tmp_path):
    """Strict readers stop at it; the file that was there stays."""
    write_json(tmp_path / "manifest.json", {"metrics": {"final_loss": 1.0}})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "manifest.json", {"metrics": {"final_loss": float("nan")}})
    assert json.loads((tmp_path / "manifest.json").read_text()) == {"metrics": {"final_loss": 1.0}}


def without_waitid(layout: Layout, given: dict) -> None:
    """As Python before 3.13 on macOS."""
    if hasattr(os, "waitid"):
        del os.waitid
    make(layout, given)


def test_processes_are_waited_for_without_waitid(layout, given, job):
    job(without_waitid, layout, changed(given, {"processes": 2}))
    assert manifest(layout)["facts"]["world"] == 2


def stubborn(count: int) -> None:
    """Children that do not end, and a parent that has waited long enough: their code is not that of one that the kernel
    killed."""
    from yarnlab.training import parallel

    children = []
    for _ in range(count):
        if (child := os.fork()) == 0:
            time.sleep(60)
            os._exit(0)
        children.append(child)
    assert parallel._reap(children, time.monotonic()) == [1] * count


def test_every_process_that_does_not_end_is_killed(job):
    job(stubborn, 2)
