"""The plan of a study: its sums against costs worked out by hand, what it refuses, and what follows from a setting."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from yarnlab.cost.devices import Device
from yarnlab.evaluation.sliding_window import window_count, windows_of
from yarnlab.plan import PlanError, plan_study, render
from yarnlab.plan.stages import Plan
from yarnlab.study.evaluations import KINDS
from yarnlab.study.load import load_study
from yarnlab.study.schema import Study

STUDIES = Path(__file__).parents[1] / "config" / "studies"
FULL_SCALE = Path(__file__).parents[1] / "docs" / "full-scale.md"
CORE = Device("cpu", 1e11, 5e10, 16e9, "assumed")  # not measured: the tests' numbers must not depend on the machine


@pytest.fixture(scope="module")
def paper() -> Study:
    return load_study(STUDIES / "paper.yaml")


@pytest.fixture(scope="module")
def planned(paper) -> Plan:
    return plan_study(paper, "h100", 0.5)


def changed(study: Study, arm: str, **changes) -> Study:
    """The study with other settings of one arm's training; keys of `parallel` go there."""
    train = study.models[arm].train
    parallel = {key: changes.pop(key) for key in [*changes] if key in type(train.parallel).model_fields}
    train = train.model_copy(update={**changes, "parallel": train.parallel.model_copy(update=parallel)})
    models = study.models | {arm: study.models[arm].model_copy(update={"train": train})}
    return study.model_copy(update={"models": models})


def of(plan: Plan, name: str, stage: str = "train"):
    return next(s for s in plan.stages if (s.stage, s.name) == (stage, name))


# EFLOP in all, H100-hours at 40, 50 and 60 % of 989.4 TFLOP/s, wall hours on 8 GPUs at 40 %: causal attention, forward
# and backward, 64 rows a step; worked out by hand from 2·weights + 2·N·d·layers a token, times three.
BY_HAND = {
    "yarn-7b-s16": (153.0, 107.4, 85.9, 71.6, 13.4),
    "yarn-7b-s32": (76.5, 53.7, 42.9, 35.8, 6.7),
    "yarn-13b-s16": (264.5, 185.6, 148.5, 123.8, 23.2),
    "yarn-13b-s32": (132.2, 92.8, 74.3, 61.9, 11.6),
    "yarn-mistral-s8": (58.2, 40.9, 32.7, 27.3, 5.1),
    "yarn-mistral-s16": (29.1, 20.4, 16.4, 13.6, 2.6),
    "yarn-32k": (54.9, 38.5, 30.8, 25.7, 4.8),
    "yarn-7b-8k": (9.7, 6.8, 5.4, 4.5, 0.8),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_training_costs_what_was_worked_out_by_hand(paper, name):
    work, *hours, wall = BY_HAND[name]
    for mfu, expected in zip((0.4, 0.5, 0.6), hours, strict=True):
        plan = plan_study(paper, "h100", mfu)
        assert plan.device_hours(of(plan, name)) == pytest.approx(expected, rel=0.02)
    assert of(plan, name).flops / 1e18 == pytest.approx(work, rel=0.01)
    slow = plan_study(paper, "h100", 0.4)
    assert slow.wall_hours(of(slow, name)) == pytest.approx(wall, rel=0.02, abs=0.06)  # printed to one decimal


def test_the_authors_own_time_is_within_what_an_a100_can_do(paper):
    """The camera-ready's Table 4: 256 A100-hours for the 7B at 64k, which is 53 % of the card's peak."""
    plan = plan_study(paper, "a100", 0.53)
    assert plan.device_hours(of(plan, "yarn-7b-s16")) == pytest.approx(256, rel=0.02)


def test_one_pass_gives_all_lengths_of_the_perplexity_curve(planned):
    """10 documents of 131,072 tokens: 62.4 PFLOP, 126 seconds at 50 %; a 13B 104.1 PFLOP."""
    seven, thirteen = (of(planned, name, "perplexity") for name in ("yarn-7b-s16", "yarn-13b-s16"))
    assert seven.flops / 1e15 == pytest.approx(62.4, rel=0.01)
    assert 3600 * planned.device_hours(seven) == pytest.approx(126, rel=0.01)
    assert thirteen.flops / 1e15 == pytest.approx(104.1, rel=0.01)


def test_benchmarks_take_under_an_hour_for_a_7b(paper):
    """Between 0.65 and 0.9 H100-hours at 40 %, from 70 to 100 million tokens."""
    plan = plan_study(paper, "h100", 0.4)
    assert 0.65 < plan.device_hours(of(plan, "llama-2-7b", "benchmarks")) < 0.9


def test_a_sweeps_passes_are_counted_as_the_sweep_runs_them(planned, paper):
    """zero_shot: 6 methods on 10 documents to 2k·s tokens; temperature: 896 documents, a grid of 11 and 2 more."""
    from yarnlab.cost import forward_flops

    def passes(*lengths: int) -> float:
        return sum(forward_flops(paper.architecture("llama-7b"), 32000, n, causal=True) for n in lengths)

    assert of(planned, "llama-7b", "zero_shot").flops == pytest.approx(60 * passes(4096, 8192, 16384, 32768))
    assert of(planned, "llama-7b", "temperature").flops == pytest.approx(
        896 * 13 * passes(4096, 8192, 16384, 16384, 16384)
    )


def test_the_papers_study_fits_h100s_and_says_what_it_stores(planned):
    planned.check()
    totals = planned.totals()
    assert totals["peak_memory"] < 80e9
    weights = 2 * 13_015_864_320
    assert of(planned, "yarn-13b-s16").disk == weights and of(planned, "llama-2-13b").disk == 0  # linked
    assert of(planned, "llama-2-13b", "asset").download == weights
    assert of(planned, "pg19", "asset").download is None and totals["downloads_of_unknown_size"] > 0


def test_recorded_sizes_are_used_where_there_are_any(paper, tmp_path):
    asset = paper.assets["pg19"]
    lock = tmp_path / "hub.lock.yaml"
    files = {
        f"data/train-{i:05d}.parquet": {"size": size, "sha256": f"{i:064x}"} for i, size in enumerate((3 * 10**9, 500))
    }
    entry = {"commit": "0" * 40, "selections": [list(asset.files or ())], "files": files}
    lock.write_text(yaml.safe_dump({f"dataset:{asset.repo}@{asset.revision}": entry}))
    plan = plan_study(paper, "h100", lock=lock)
    assert of(plan, "pg19", "asset").download == 3_000_000_500
    assert not any("asset pg19:" in note for note in plan.notes)


def test_a_configuration_that_does_not_fit_is_refused_with_what_to_change(paper):
    """Without checkpointing a 7B keeps 32 layers of 14 GB: nothing but recomputation helps on eight cards."""
    plan = plan_study(changed(paper, "yarn-7b-s16", activation_checkpointing="none"), "h100")
    with pytest.raises(PlanError) as error:
        plan.check()
    message = str(error.value)
    assert "train of yarn-7b-s16 needs" in message and "activations" in message and "AdamW moments 6.7" in message
    assert "`activation_checkpointing: full`" in message and "`processes: 16`" not in message
    assert "yarn-7b-s32" not in message


def test_kept_attention_outputs_are_planned(paper):
    """`selective` fits a 7B at 65,536 tokens and is shown; a 13B is refused, and told of the modes that keep less."""
    plan = plan_study(changed(paper, "yarn-7b-s16", activation_checkpointing="selective"), "h100")
    assert not plan.problems and "attention outputs" in render(plan)
    (problem,) = plan_study(changed(paper, "yarn-13b-s16", activation_checkpointing="selective"), "h100").problems
    assert "attention outputs 26." in problem and "`activation_checkpointing: offload`" in problem


@pytest.mark.parametrize("mode", ["none", "selective", "full", "offload"])
def test_the_documents_table_of_modes_is_the_plans(paper, mode):
    row = next(line for line in FULL_SCALE.read_text().splitlines() if line.startswith(f"| `{mode}` |"))
    for arm, cell in zip(("yarn-7b-s16", "yarn-13b-s16"), row.split("|")[-3:-1], strict=True):
        peak = of(plan_study(changed(paper, arm, activation_checkpointing=mode), "h100"), arm).peak
        assert cell.strip() == f"{peak / 1e9:.0f} GB"


@pytest.mark.parametrize(
    "changes",
    [
        {"sharding": "replicate"},
        {"activation_checkpointing": "none"},
        {"micro_batch": 4},
        {"seq_len": 524288},
        {"processes": 1, "activation_checkpointing": "offload"},
    ],
)
def test_whatever_is_advised_is_enough(paper, changes):
    """Each single change that a refusal names makes the configuration fit."""
    from yarnlab.cost import memory
    from yarnlab.plan import models, room

    study = changed(paper, "yarn-7b-s16", **changes)
    (problem,) = plan_study(study, "h100").problems
    named = problem.partition("Any one of these is enough: ")[2]
    phase, fits = study.models["yarn-7b-s16"].train, 0
    for advice, altered in models.changes(phase):
        components, _ = memory.training(study.architecture("yarn-7b-s16"), 32000, altered, gpu=True)
        enough = sum(components.values()) <= room(plan_study(study, "h100").device)
        assert (advice in named) == enough
        fits += enough
    assert fits or "No single change is enough" in problem


def test_an_evaluation_that_does_not_fit_is_refused(paper):
    long = paper.evaluations.perplexity.model_copy(
        update={"lengths": paper.evaluations.perplexity.lengths.model_copy(update={"stop": 1024 * 1024})}
    )
    study = paper.model_copy(update={"evaluations": paper.evaluations.model_copy(update={"perplexity": long})})
    assert any("perplexity of llama-2-7b" in problem for problem in plan_study(study, "h100").problems)


def test_processes_of_a_cpu_share_the_machines_memory():
    study = load_study(STUDIES / "micro-base.yaml")
    assert not plan_study(study, CORE).problems
    small = Device("cpu", 1e11, 5e10, 1.2e9, "assumed")
    problems = plan_study(study, small).problems
    assert len(problems) == 1 and "base" in problems[0] and "2 processes" in problems[0]


def test_children_wait_for_their_parents_and_seeds_for_nobody():
    study = load_study(STUDIES / "micro.yaml")
    plan = plan_study(study, CORE)
    chain = ("base", "yarn-s16", "yarn-s32")
    seed = study.seeds[0]
    path = sum(plan.wall_hours(of(plan, study.name(arm, seed))) for arm in chain if arm in study.models)
    assert path <= plan.longest_chain() < plan.totals()["wall_hours_one_by_one"]
    assert len([s for s in plan.stages if s.stage == "train"]) == len(study.instances())


def test_every_evaluation_of_a_study_is_planned(planned, paper):
    found = {(s.stage, s.name) for s in planned.computing if s.stage != "train"}
    assert found == {(kind, arm) for kind in KINDS for arm in getattr(paper.evaluations, kind).models}
    assert all(s.flops > 0 and s.peak > 0 for s in planned.computing)


@pytest.mark.parametrize(("tokens", "window", "stride"), [(10, 4, 2), (11, 4, 2), (3, 4, 2), (50_000, 32_768, 256)])
def test_windows_are_counted_as_the_evaluation_lays_them(tokens, window, stride):
    assert window_count(tokens, window, stride) == len(list(windows_of(0, tokens, window, stride)))


def test_the_tables_show_models_components_totals_and_assumptions(planned):
    text = render(planned)
    for part in ("yarn-13b-s32", "layer boundaries", "AdamW moments", "passkey_official", "GPU-hours", "Assumed"):
        assert part in text
    assert max(map(len, text.splitlines())) <= 118
    assert "Cannot run" not in text


def test_the_plan_as_json_has_the_same_totals(planned):
    data = json.loads(json.dumps(planned.as_dict()))
    assert data["totals"]["flops"] == pytest.approx(sum(stage["flops"] for stage in data["stages"]))
    assert {"memory", "device_hours", "wall_hours", "download"} <= set(data["stages"][0])


@pytest.mark.parametrize(("device", "mfu", "expected"), [("tpu", 0.4, "known: h100"), ("h100", 1.5, "up to 1")])
def test_unknown_devices_and_impossible_shares_are_mistakes(paper, device, mfu, expected):
    with pytest.raises(PlanError, match=expected):
        plan_study(paper, device, mfu)


def test_a_plan_needs_no_torch():
    """It is asked for before anything runs: a second, not ten."""
    program = (
        "import sys; from pathlib import Path; from yarnlab.study.load import load_study; from yarnlab.plan import *;"
        f"render(plan_study(load_study(Path({str(STUDIES / 'paper.yaml')!r})), 'h100')); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
