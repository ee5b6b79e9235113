"""The stage: a parent's weights, trained in shards, saved so that stock transformers loads what was trained."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from stage_runs import make, make_and_stop, run_id, spec, step_log, stored
from tiny_runs import VOCABULARY, parallel

from yarnlab.errors import EXIT_INTERRUPTED
from yarnlab.stages.layout import Layout


def to_bf16(folder: Path) -> None:
    """A parent as they are published: 16 bits, in several files."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")


def stock_logits(folder: Path, out: Path) -> None:
    """What stock transformers computes from a folder, in the dtype that it finds there."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        logits = model.float()(torch.arange(200)[None] * 7 % VOCABULARY).logits
    torch.save(logits, out)


def our_logits(folder: Path, out: Path) -> None:
    from yarnlab.modeling import load_model, rope_of

    model = load_model(folder, rope_of(json.loads((folder / "manifest.json").read_text())["spec"]))
    with torch.no_grad():
        torch.save(model(torch.arange(200)[None] * 7 % VOCABULARY).logits, out)


@pytest.mark.slow
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_shards_of_a_published_parent_become_a_stock_checkpoint(layout, architecture, tmp_path, forked_job, tied):
    """A bf16 parent in several files, read by two processes as shards, trained and saved: bf16 again, with the rope in
    the config, the same weights (to bf16's rounding) as those of a run with whole models; stock transformers computes
    from it what we do. The manifest says what was in force; no state is left."""
    base = spec(architecture, "base", None, parallel())
    code, said = forked_job(make, layout, base)
    assert code == 0, said
    if not tied:
        base["architecture"] = untie(layout.model("base"), base["architecture"])
    code, said = forked_job(to_bf16, layout.model("base"))
    assert code == 0, said
    shape = architecture.model_copy(update={"tie_word_embeddings": tied})
    for name, ways in (("sharded", parallel(2, "fsdp", activation_checkpointing="full")), ("whole", parallel(2))):
        code, said = forked_job(make, layout, spec(shape, name, "base", ways))
        assert code == 0, said
    sharded, whole = (stored(layout.model(name)) for name in ("sharded", "whole"))
    assert sharded.keys() == whole.keys() and len(sharded) == 20 + (not tied)
    for name, tensor in whole.items():
        assert tensor.dtype == sharded[name].dtype == torch.bfloat16
        assert (tensor.float() - sharded[name].float()).abs().max() <= 2**-8 * tensor.float().abs().max(), name
    assert any(
        not torch.equal(tensor, parent)
        for tensor, parent in zip(sharded.values(), stored(layout.model("base")).values(), strict=True)
    )
    manifest = json.loads((layout.model("sharded") / "manifest.json").read_text())
    facts = {
        "sharding": "fsdp",
        "precision": "fp32",
        "weights_dtype": "float32",
        "world": 2,
        "device": "cpu",
        "loss": "torch",
    }
    assert manifest["facts"].items() >= facts.items() and manifest["facts"]["activation_checkpointing"] == "full"
    config = json.loads((layout.model("sharded") / "config.json").read_text())
    assert config["dtype"] == "bfloat16" and config["rope_parameters"]["rope_type"] == "yarn"
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert not (layout.root / "state" / "sharded").exists()
    for job in (stock_logits, our_logits):
        code, said = forked_job(job, layout.model("sharded"), tmp_path / job.__name__)
        assert code == 0, said
    theirs, ours = (torch.load(tmp_path / job.__name__) for job in (stock_logits, our_logits))
    assert (theirs - ours).abs().max() < 1e-4 * theirs.std()


def untie(folder: Path, shape: dict) -> dict:
    """Give the checkpoint in a folder a head of its own."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].flip(0).contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    return shape | {"tie_word_embeddings": False}


def test_a_second_job_waits_and_finds_the_model_made(layout, architecture, forked_job):
    """Both are asked for the same model at once: one trains it, the other waits and ends well, having written nothing."""

    code, said = forked_job(_two_jobs, layout, spec(architecture, "base", None, parallel()))
    assert code == 0, said
    # Who holds the lock writes its name right after it has it.
    assert re.search(r"waiting for (process \d+ on \S+|another process), which trains from", said)
    assert "the job that was waited for has made it" in said
    assert said.count("base: 3/3") == 1


def _two_jobs(layout: Layout, given: dict) -> None:
    from yarnlab.training import loop

    state, first = layout.root / "state", os.getpid()
    if (second := os.fork()) == 0:
        while not list(state.glob("*/lock")):
            if os.getppid() != first:
                os._exit(1)
            time.sleep(0.01)
        make(layout, given)
        os._exit(0)
    original = loop.train

    def slowly(*arguments):
        time.sleep(1.5)
        return original(*arguments)

    loop.train = slowly
    make(layout, given)
    written = (layout.model("base") / "manifest.json").stat().st_mtime_ns
    assert os.waitstatus_to_exitcode(os.waitpid(second, 0)[1]) == 0
    assert (layout.model("base") / "manifest.json").stat().st_mtime_ns == written
    assert not list(state.glob("*/*"))


@pytest.mark.slow
def test_a_killed_job_leaves_no_model_and_its_processes_end(layout, architecture, forked_job):
    """kill -9 of the leading process: the other one ends too, no manifest is there, and the next call makes it."""
    given = spec(architecture, "base", None, parallel(2, "fsdp"))
    code, said = forked_job(_killed, layout, given)
    assert code == 0, said
    assert not (layout.model("base") / "manifest.json").exists()
    code, said = forked_job(make, layout, given)
    assert code == 0, said
    assert (layout.model("base") / "manifest.json").exists()


def _killed(layout: Layout, given: dict) -> None:
    import psutil

    if (child := os.fork()) == 0:
        make(layout, given)
        os._exit(0)
    while not (layout.training("base")).exists() or not layout.training("base").read_text():
        time.sleep(0.01)
    workers = psutil.Process(child).children()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert len(workers) == 1 and not alive


@pytest.mark.slow
def test_a_state_of_another_parent_is_not_continued(layout, architecture, tmp_path, job):
    """A training is stopped, its parent is made again with other weights, the same command is given again: the result
    is that of a training which has never seen the former parent, under a tracking run of its own. After a parent that
    was made again with the same weights it continues where it stopped, in the same tracking run."""
    base, child = spec(architecture, "base", None, parallel()), spec(architecture, "child", "base", parallel())
    job(make, layout, base)
    job(make_and_stop, layout, child, 2, code=EXIT_INTERRUPTED)
    first = run_id(layout, "child")
    clean = Layout(tmp_path / "clean")
    shutil.copytree(layout.root, clean.root)
    manifest = (layout.model("base") / "manifest.json").read_bytes()

    job(make, layout, base)
    assert (layout.model("base") / "manifest.json").read_bytes() != manifest
    said = job(make_and_stop, layout, child, 1, code=EXIT_INTERRUPTED)
    assert "continuing after step 2" in said and run_id(layout, "child") == first

    other = base | {"seed": 1}
    job(make, layout, other)
    said = job(make, layout, child)
    assert "continuing" not in said and run_id(layout, "child") != first
    shutil.rmtree(clean.root / "state")
    job(make, clean, other)
    job(make, clean, child)
    found, expected = stored(layout.model("child")), stored(clean.model("child"))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert step_log(layout, "child") == step_log(clean, "child")


def _late(layout: Layout, given: dict, looks: int) -> None:
    """Every process but the leading one sees an input as it was before, the first `looks` times."""
    from yarnlab.stages import models

    leader, seen, original = os.getpid(), iter(range(looks)), models.state_key

    def state_key(run, *resolved):
        if os.getpid() != leader and (look := next(seen, None)) is not None:
            if look == 0:
                raise FileNotFoundError(run.inputs[0])
            return original(run, *resolved, "before")
        return original(run, *resolved)

    models.state_key, models.LATE_S = state_key, 4
    make(layout, given)


@pytest.mark.parametrize("looks", [2, 99])
def test_processes_that_see_other_inputs_train_nothing(layout, architecture, job, looks):
    """A file system that shows new files late is waited for, and not for ever; nobody looks for another state."""
    given = spec(architecture, "base", None, parallel(2))
    said = job(_late, layout, given, looks, code=looks == 99)
    if looks == 99:
        assert "GroupError: base: its processes see different inputs" in said and "run the same command again" in said
        assert not layout.training("base").exists()
    else:
        assert (layout.model("base") / "manifest.json").exists()


def test_an_edit_that_is_taken_back_finds_its_own_step_log(layout, architecture, job):
    """Stopped after two steps, edited, stopped after one, edited back, finished: the log is that of one training."""
    given = spec(architecture, "base", None, parallel())
    edited = given | {"phases": [given["phases"][0] | {"lr": 1e-2}]}
    job(make, layout, given)
    expected = step_log(layout, "base")
    shutil.rmtree(layout.model("base"))
    job(make_and_stop, layout, given, 2, code=EXIT_INTERRUPTED)
    job(make_and_stop, layout, edited, 1, code=EXIT_INTERRUPTED)
    assert len(step_log(layout, "base")) == 1
    said = job(make, layout, given)
    assert "continuing after step 2" in said and step_log(layout, "base") == expected


def test_a_mixture_of_corpora_is_trained_on_and_its_shares_recorded(layout, architecture, job):
    """A corpus of a manifest of its own is an input; the shares are those of the rows, which one job and a continued
    one draw alike."""
    shutil.copytree(layout.corpus("train"), layout.corpus("other"))
    given = spec(architecture, "base", None, parallel())
    given["phases"][0] |= {"corpus": {"train": 3, "other": 1}}
    job(make_and_stop, layout, given, 2, code=EXIT_INTERRUPTED)
    job(make, layout, given)
    manifest = json.loads((layout.model("base") / "manifest.json").read_text())
    (found,) = manifest["facts"]["mixture"]
    assert set(found) == {"train", "other"} and sum(found.values()) == 1
    assert found["train"] * 12 == round(found["train"] * 12)  # of 3 steps with 4 rows each
    assert {Path(name).parent.name for name in manifest["inputs"]} >= {"train", "other"}
    stopped, expected = stored(layout.model("base")), step_log(layout, "base")
    shutil.rmtree(layout.root / ".finished")
    job(make, layout, given)
    assert step_log(layout, "base") == expected
    assert all(torch.equal(stopped[name], tensor) for name, tensor in stored(layout.model("base")).items())


def _train_with(stock_form, layout: Layout, given: dict) -> None:
    """Train with a method of the user's own, whose stock form is this one."""
    from yarnlab import rope

    class Mine(rope.Rope):
        method = "mine"

        def inv_freq(self):
            return super().inv_freq() / 3

        def to_hf(self):
            return stock_form(self)

    rope.METHODS["mine"] = Mine
    make(layout, given)


def _plain(rope) -> dict:
    return {"rope_type": "default", "rope_theta": rope.base}


def _unknown(rope) -> dict:
    return {"rope_type": "mine", "rope_theta": rope.base}


def _none(rope) -> dict:
    raise NotImplementedError("no stock form")


@pytest.mark.parametrize(
    ("stock_form", "why"), [(_plain, "frequencies up to 2.0e+00"), (_unknown, "KeyError"), (_none, "no stock form")]
)
def test_a_method_that_could_not_be_saved_is_not_trained(layout, architecture, job, stock_form, why):
    """Its to_hf gives other frequencies than its inv_freq, a type that transformers does not know, or nothing: one
    message before the first step."""
    given = spec(architecture, "base", None, parallel()) | {"rope": {"method": "mine", "scale": 2.0}}
    said = job(_train_with, stock_form, layout, given, code=1)
    assert "RopeMismatch: base: a model with the rope method mine can't be saved" in said and why in said
    assert "Have Mine.to_hf return" in said
    assert not layout.training("base").exists() and not layout.model("base").exists()
