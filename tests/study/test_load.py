"""A study file's mistakes: each is one message with file, line, key and what was expected."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yarnlab.plan import plan_study
from yarnlab.results.results import Model
from yarnlab.study.fields import FactorGrid
from yarnlab.study.load import load_study
from yarnlab.study.read import StudyError, parse
from yarnlab.study.sections import canonical, execution, section
from yarnlab.study.summary import summarise
from yarnlab.study.training import KEY_NAMES
from yarnlab.workflow import Workflow

STUDIES = Path(__file__).resolve().parents[2] / "config" / "studies"

VALID = """\
study: demo
title: a demo
seed: 1
corpora:
  train: {source: python-packages, packages: [transformers], max_tokens: 1000}
  held: {source: python-packages, packages: [sympy], min_tokens: 512, documents: 2}
tokenizer: {train_on: train, vocab_size: 512, split_digits: true, sample_documents: 10}
models:
  base:
    pretrain:
      architecture:
        family: llama
        hidden_size: 64
        intermediate_size: 128
        num_hidden_layers: 2
        num_attention_heads: 1
        num_key_value_heads: 1
        head_dim: 64
        original_context: 64
        rope_theta: 10000.0
        tie_word_embeddings: true
      phases:
        - &phase
          corpus: train
          rows: {}
          steps: 4
          seq_len: 64
          global_batch: 4
          micro_batch: 2
          lr: 2e-5
          schedule: constant
          warmup_steps: 1
          betas: [0.9, 0.95]
          weight_decay: 0.1
          max_grad_norm: 1.0
          precision: bf16
          parallel: {processes: 1, threads: 1, sharding: replicate, activation_checkpointing: none}
          checkpoint_minutes: 1
  long:
    from: base
    rope: {method: yarn, scale: 4}
    train: {<<: *phase, seq_len: 256}
evaluations:
  perplexity:
    corpus: held
    lengths: {start: 64, stop: 512, step: 64}
    models: [base, long]
    precision: bf16
    threads: 1
"""


RETRIEVAL = "rows: {{retrieval: {{share: 1, min_keys: 1, max_keys: {}, asked: {}, answer_weight: 1}}}}"


def write(folder: Path, text: str, name: str = "demo") -> Path:
    file = folder / f"{name}.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_valid_study(tmp_path):
    study = load_study(write(tmp_path, VALID))
    assert study.models["base"].phases[0].lr == 2e-5  # YAML 1.1 would read a string
    assert study.rope("long").context == 256
    assert study.rope("base").method == "none"


def test_a_ramp_has_the_familys_borders(tmp_path):
    """α and β of the architecture reach its arms' ropes and the check of what is swept, and stay below their own."""
    study = load_study(
        write(tmp_path, VALID.replace("head_dim: 64", "head_dim: 64\n        alpha: 2\n        beta: 8"))
    )
    assert (study.rope("long").alpha, study.rope("long").beta) == (2, 8)
    entry = summarise(study)["models"]["long"]
    assert Model.of("long", entry).official_ramp and entry["family_beta"] == 8
    with pytest.raises(StudyError, match="alpha must be below beta, got 32 and 32"):
        load_study(write(tmp_path, VALID.replace("head_dim: 64", "head_dim: 64\n        alpha: 32")))
    own = study.models["long"].rope.model_copy(update={"beta": 32})
    assert own.make(study.architecture("long")).beta == 32


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "vocab_size: 512",
            "vocab_sise: 512",
            "tokenizer.vocab_sise: unknown key; did you mean 'vocab_size'?",
        ),
        ("seed: 1", 'seed: "1"', "seed: input should be a valid integer, found '1'"),
        (
            "steps: 4",
            "steps: 0",
            "models.base.pretrain.phases.0.steps: input should be greater than 0, found 0",
        ),
        ("scale: 4", "scale: 0.5", "models.long.rope.scale: input should be greater than or equal to 1"),
        ("method: yarn", "method: yarm", "models.long.rope.method: unknown method 'yarm'; known: none, pi"),
        ("method: yarn", "method: pi, beta: 16", "models.long.rope.beta: beta has no effect with method pi"),
        ("from: base", "from: bass", "models.long.from: there is no model 'bass'; did you mean 'base'?"),
        ("from: base", "parent: base", "models.long.parent: unknown key"),
        ("from: base", "from: long", "models.long.from: a cycle: long -> long"),
        ("stop: 512", "stop: 1024", "1024 tokens are longer than the documents of corpus held"),
        (
            "corpus: held",
            "corpus: hold",
            "evaluations.perplexity.corpus: there is no corpus 'hold'; did you mean 'held'?",
        ),
        (
            "models: [base, long]",
            "models: [base, lung]",
            "evaluations.perplexity.models.1: there is no model 'lung'",
        ),
        ("seq_len: 256", "seq_len: 512", "512 is longer than the model's context of 256 tokens"),
        ("micro_batch: 2", "micro_batch: 3", "3 rows on each of 1 replicas must divide global_batch 4"),
        ("packages: [sympy]", "packages: [transformers]", "transformers is training text too"),
        ("start: 64,", "start: 1,", "lengths.start: input should be greater than or equal to 2"),
        ("stop: 512", "stop: 32", "evaluations.perplexity.lengths: stop 32 is below start 64"),
        ("seq_len: 256", "seq_len: 1000", "1000 needs a corpus of more tokens; train has at most 1000"),
        ("title: a demo\n", "", "title: is missing"),
        ("study: demo", "study: other", "is 'other', but the file is named demo.yaml"),
        ("betas: [0.9, 0.95]", "betas: [0.9]", "models.base.pretrain.phases.0.betas"),
        (
            "precision: bf16\n          parallel",
            "precision: fp8\n          parallel",
            "input should be 'auto', 'bf16', 'fp32' or 'pure-bf16'",
        ),
        ("seed: 1", "seed: 1\nseed: 2", "seed: the key is given twice"),
        ("method: yarn", "method: yarn, base: 5", "models.long.rope.base: base is set elsewhere, it is no option of"),
        ("method: yarn", "method: yarn, head_dim: 64", "models.long.rope.head_dim: head_dim is set elsewhere"),
        ("method: yarn", "method: pi, original_context: 4", "rope.original_context: original_context is set elsewhere"),
        (
            "method: yarn",
            "method: ntk-aware, theta: big",
            "models.long.rope: theta is the larger base of a static rope",
        ),
        (
            "method: yarn",
            "method: ntk-aware, theta: 9000",
            "models.long.rope: theta is the larger base of a static rope",
        ),
        ("method: yarn", "method: yarn, alpha: [1]", "models.long.rope: alpha and beta must satisfy"),
        ("lr: 2e-5", "lr: .inf", "models.base.pretrain.phases.0.lr: input should be a finite number, found inf"),
        ("betas: [0.9, 0.95]", "betas: [0.9, 1.0]", "phases.0.betas.1: input should be less than 1, found 1.0"),
        ("betas: [0.9, 0.95]", "betas: [-0.1, 0.9]", "betas.0: input should be greater than or equal to 0, found -0.1"),
        (
            "rows: {}",
            RETRIEVAL.format(33, "together"),
            "phases.0.rows.retrieval.max_keys: 33 keys can't be",
        ),
        ("rows: {}", RETRIEVAL.format(34, "apart"), "phases.0.rows.retrieval.max_keys: 34 keys can't be"),
        ("packages: [sympy]", "packages: 7", "corpora.held.packages: input should be a valid array, found 7"),
        ("corpus: held", "corpus: 7", "evaluations.perplexity.corpus: input should be a valid string, found 7"),
        ("packages: [sympy]", "packages: [sympy, Sympy]", "corpora.held.packages: 'sympy' is listed twice"),
    ],
)
def test_mistakes(tmp_path, old, new, message):
    """The message names file, line and key, and says what was expected."""
    assert old in VALID
    mistaken = VALID.replace(old, new, 1)
    file = write(tmp_path, mistaken)
    with pytest.raises(StudyError) as caught:
        load_study(file)
    text = str(caught.value)
    # The line of the change; what is missing is reported where its section begins.
    pairs = zip(VALID.splitlines(), mistaken.splitlines(), strict=False)
    line = next(i for i, (a, b) in enumerate(pairs, 1) if a != b) if new else 1
    assert f"{file}:{line}: " in text, text
    assert message in text, text


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("models: [base, long]", "models: [base]", ":39: models.long: no evaluation uses this model"),
        ("seed: 1", "seed: [1", ":4: not valid YAML"),
    ],
)
def test_mistakes_seen_elsewhere(tmp_path, old, new, expected):
    """What is wrong because of another line is reported where the user must look."""
    with pytest.raises(StudyError, match=expected):
        load_study(write(tmp_path, VALID.replace(old, new, 1)))


HOW = "corpus: held, models: [base, long], precision: bf16, threads: 1"
BATTERY = "suite: held-out-code, items: 20, shots: 0, batch_size: 8, add_bos: true"


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        ("sliding_window: {%s, window: 64, stride: 64}", "stride 64 must be below window 64"),
        ("dynamic: {%s, methods: [none], lengths: [64, 128], tail: 64}", "tail 64 must be below the shortest length"),
        ("dynamic: {%s, methods: [yarn], lengths: [128], tail: 64}", "'yarn' is neither dynamic nor none"),
        ("key_cache: {%s, methods: [none], length: 128, documents: 1}", "'none' is not a dynamic method"),
        ("key_cache: {%s, methods: [dynamic-pi], length: 128, documents: 3}", "corpus held has 2 documents, got 3"),
        ("entropy: {%s, methods: [dynamic-pi], scales: [2], length: 64}", "'dynamic-pi' is not a static method"),
        (
            "ramp: {%s, method: yarn, variants: {odd: {gamma: 1}}, scales: [2], documents: 1, max_length: 128}",
            "evaluations.ramp.variants.odd.gamma: gamma",
        ),
        (
            "temperature: {%s, method: yarn, scales: [2], factors: {start: 1, stop: 2, step: 0.5}, segments: 2, "
            "documents: 1, max_length: 128}",
            "evaluations.temperature.method: 'yarn' is not a static interpolation without a temperature of its own; known: pi, ",
        ),
        ("benchmarks: {%s, " + BATTERY.replace("shots: 0, ", "") + "}", "suite held-out-code needs `shots`"),
        (
            "benchmarks: {%s, " + BATTERY + ", snapshots: {mmlu: here}}",
            "suite held-out-code has no use for `snapshots`",
        ),
        ("benchmarks: {%s, " + BATTERY.replace("held-out-code", "paper") + "}", "suite paper has no use for `items`"),
        (
            "benchmarks: {%s, suite: paper, batch_size: 8, add_bos: true, snapshots: {mmlu: here}, prompt_tokens: 64}",
            "suite paper has no use for `prompt_tokens`",
        ),
        (
            "benchmarks: {%s, " + BATTERY + ", prompt_tokens: 4096}",
            "benchmarks.prompt_tokens: 4096 is more than the original context of base, ",
        ),
        (
            "benchmarks: {%s, " + BATTERY + ", tasks: [last-words]}",
            "benchmarks.tasks.0: input should be 'next-line', 'brackets', 'identifier' or 'last-word', found 'last-words'",
        ),
        ("passkey_official: {%s, lengths: [512], trials: 2, new_tokens: 10, decoding: best}", "'greedy' or 'released'"),
        (
            "ramp: {%s, method: yarn, variants: {odd: {scale: 2}}, scales: [2], documents: 1, max_length: 128}",
            "evaluations.ramp.variants.odd.scale: scale is set elsewhere, it is no option of method yarn",
        ),
        (
            "ramp: {%s, method: yarn, variants: {odd: {base: 2}}, scales: [2], documents: 1, max_length: 128}",
            "evaluations.ramp.variants.odd.base: base is set elsewhere",
        ),
        (
            "ramp: {%s, method: yarn, variants: {odd: {method: pi}}, scales: [2], documents: 1, max_length: 128}",
            "evaluations.ramp.variants.odd.method: method has no effect with method yarn",
        ),
        (
            "ramp: {%s, method: yarn, variants: {odd: {alpha: 64}}, scales: [2], documents: 1, max_length: 128}",
            "evaluations.ramp.variants.odd: alpha and beta must satisfy 0 < alpha < beta, got 64, 32.0",
        ),
        ("passkey: {%s, lengths: [31, 128], trials: 10}", "passkey.lengths: the prompt takes 32 tokens at least"),
        (
            "passkey_official: {%s, lengths: [47], trials: 2, new_tokens: 10, decoding: greedy}",
            "passkey_official.lengths: the prompt takes 48 tokens at least, without any filler; got 47",
        ),
        ("passkey: {%s, lengths: [128, 128], trials: 10}", "passkey.lengths: 128 is listed twice"),
        ("zero_shot: {%s, methods: [pi, pi], scales: [2], max_length: 128}", "methods: 'pi' is listed twice"),
        ("zero_shot: {%s, methods: [pi], scales: [2, 2.0], max_length: 128}", "scales: 2.0 is listed twice"),
        ("zero_shot: {%s, methods: [pi], scales: [0.5], max_length: 128}", "should be greater than or equal to 1"),
        ("entropy: {%s, methods: [pi], scales: [2], length: 65}", "65 is longer than the original context of base"),
        (
            "zero_shot: {%s, methods: [pi], scales: [2], max_length: 63}",
            "zero_shot.max_length: 63 is below the original context of base, 64 tokens",
        ),
        (
            "ramp: {%s, method: yarn, variants: {own: {}}, scales: [2], documents: 1, max_length: 1}",
            "ramp.max_length: input should be greater than or equal to 2",
        ),
        (
            "benchmarks: {%s, " + BATTERY.replace("shots: 0", "shots: 3") + "}",
            "benchmarks.shots: 3 shots and a question of 16 tokens or more each do not fit into 63 tokens; at most 2 "
            "shots do (the original context of base is 64)",
        ),
        ("key_cache: {%s, methods: [dynamic-pi], length: 64, documents: 1}", "64 must exceed the original context"),
        (
            "temperature: {%s, method: pi, scales: [2], factors: {start: 1, stop: 2, step: 0.5}, segments: 65, "
            "documents: 1, max_length: 128}",
            "evaluations.temperature.segments: 65 segments need 2 tokens each, base is read for 128",
        ),
        (
            "temperature: {%s, method: pi, scales: [2], factors: {start: 2, stop: 1, step: 0.5}, segments: 2, "
            "documents: 1, max_length: 128}",
            "evaluations.temperature.factors: stop 1 is below start 2",
        ),
    ],
)
def test_mistakes_in_evaluations(tmp_path, evaluation, message):
    """A setting that can have no effect or no meaning is named before anything runs, with its line."""
    file = write(tmp_path, VALID + "  " + evaluation.replace("%s", HOW) + "\n")
    with pytest.raises(StudyError) as caught:
        load_study(file)
    assert message in str(caught.value)
    assert f"{file}:{len(VALID.splitlines()) + 1}: " in str(caught.value)


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        ("", "perplexity.models.1: long rescales with the input's length, which perplexity cannot follow"),
        (
            "  context: {corpus: held, models: [long], precision: bf16, threads: 1, contexts: [64], max_length: 128}\n",
            "context.models.0: long rescales",
        ),
        (
            "  passkey_official: {corpus: held, models: [long], precision: bf16, threads: 1, lengths: [512], trials: 2, "
            "new_tokens: 10, decoding: greedy}\n",
            "passkey_official.models.0: long rescales",
        ),
    ],
)
def test_a_dynamic_model_is_kept_from_protocols_that_cannot_run_it(tmp_path, evaluation, message):
    """Before its parent is trained, not after."""
    text = VALID.replace("    train: {<<: *phase, seq_len: 256}\n", "").replace("method: yarn", "method: dynamic-yarn")
    with pytest.raises(StudyError) as caught:
        load_study(write(tmp_path, text + evaluation))
    assert message in str(caught.value)


def test_a_given_base_is_compared_with_the_models_own(tmp_path):
    """theta 20,000 is larger than the usual base of 10,000, not than that of a model with 50,000."""
    text = VALID.replace("method: yarn", "method: ntk-aware, theta: 20000")
    assert load_study(write(tmp_path, text)).rope("long").inv_freq()[-1] < 1e-4
    with pytest.raises(StudyError, match=r"demo\.yaml:\d+: models\.long\.rope: theta .*above 50000; got 20000"):
        load_study(write(tmp_path, text.replace("rope_theta: 10000.0", "rope_theta: 50000.0")))


def test_the_limits_of_rows_and_prompts_are_those_of_their_texts(tiny_data):
    """A row can hold as many keys as there are names; a prompt has the words that its lengths are compared with."""
    from yarnlab.corpus.passkey import NAMES, PasskeyText
    from yarnlab.corpus.tokenizer import load_tokenizer
    from yarnlab.evaluation import passkey, passkey_official

    assert len(NAMES) == KEY_NAMES
    text = PasskeyText.load(tiny_data / "tokenizer")
    key = text.key_ids("12345")
    prompt = np.concatenate([text.test.opening, text.test.statement(key), text.test.question, key])
    words = len(re.findall(r"\w+", load_tokenizer(tiny_data / "tokenizer").decode(prompt)))
    assert words + 1 == passkey.WORDS
    official = passkey_official.Trial(key=50000, garbage=0, prefix=0, draw=0).text
    assert len(re.findall(r"\w+", official)) + 1 == passkey_official.WORDS


@pytest.mark.parametrize("written", ["1e6", "1.0e6", "1E6", "1e+6", "1_000_000", "1000000"])
def test_a_number_in_any_spelling_is_the_same(written, tmp_path):
    file = tmp_path / "demo.yaml"
    file.write_text(VALID.replace("rope_theta: 10000.0", f"rope_theta: {written}"))
    found = load_study(file).architecture("base").rope_theta
    assert found == 1e6 and isinstance(found, float)


@pytest.mark.parametrize("written", ['"1e6"', "'1000000'"])
def test_a_number_in_quotes_is_refused_by_its_key(written, tmp_path):
    file = tmp_path / "demo.yaml"
    file.write_text(VALID.replace("rope_theta: 10000.0", f"rope_theta: {written}"))
    with pytest.raises(StudyError, match="rope_theta"):
        load_study(file)


@given(start=st.integers(1, 200), steps=st.integers(0, 40), step=st.integers(1, 50), spare=st.floats(0, 0.99))
def test_a_grid_of_factors_ends_where_it_says(start, steps, step, spare):
    """In hundredths: `steps` steps from start and nothing beyond stop, wherever between two values that lies."""
    start, step = start / 100, step / 100
    values = FactorGrid(start=start, stop=start + (steps + spare) * step, step=step).values()
    assert len(values) == steps + 1
    assert values[0] == start and values[-1] == pytest.approx(start + steps * step)


def test_longer_cycle(tmp_path):
    text = VALID.replace(
        "evaluations:",
        "  other: {from: third, rope: {method: pi, scale: 2}}\n  third: {from: other, rope: {method: pi, scale: 2}}\nevaluations:",
    )
    with pytest.raises(StudyError, match="a cycle: other -> third -> other"):
        load_study(write(tmp_path, text))


def test_every_mistake_is_reported_at_once(tmp_path):
    text = VALID.replace("vocab_size: 512", "vocab_size: 5").replace("seed: 1", "seed: -1")
    with pytest.raises(StudyError) as caught:
        load_study(write(tmp_path, text))
    assert len(str(caught.value).splitlines()) == 2


def test_missing_study_lists_those_that_exist(tmp_path):
    write(tmp_path, VALID)
    with pytest.raises(StudyError, match=r"no such study file; studies in .*: demo"):
        load_study(tmp_path / "none.yaml")


def test_extends_merges_and_removes(tmp_path):
    """Mappings merge, scalars replace, null removes; a mistake is reported in the file where it stands."""
    write(tmp_path, VALID)
    child = (
        "extends: demo.yaml\nstudy: child\nseed: 7\nmodels: {long: null}\nevaluations: {perplexity: {models: [base]}}\n"
    )
    study = load_study(write(tmp_path, child, "child"))
    assert study.seed == 7 and list(study.models) == ["base"] and study.title == "a demo"
    with pytest.raises(StudyError, match=r"child\.yaml:3: seed: input should be a valid integer"):
        load_study(write(tmp_path, child.replace("seed: 7", "seed: x"), "child"))


def test_extends_in_a_circle(tmp_path):
    write(tmp_path, "extends: b.yaml", "a")
    with pytest.raises(StudyError, match="circle"):
        load_study(write(tmp_path, "extends: a.yaml", "b"))


def test_replicates_give_one_model_for_each_seed(tmp_path):
    study = load_study(write(tmp_path, VALID.replace("seed: 1", "seed: 1\nreplicates: 2")))
    assert list(study.instances()) == ["base-seed1", "base-seed2", "long-seed1", "long-seed2"]
    spec = section(study, "train", "long-seed2")
    assert (spec["seed"], spec["parent"]) == (2, "base-seed2")


def test_what_is_not_trained_here_exists_once():
    """A published root and its zero-shot arms have the arm's name and the first seed; those that are trained, and what
    comes of them, one of each seed, with the one root as parent."""
    template = load_study(STUDIES / "template.yaml")
    arms = {name: model for name, model in template.models.items() if model.kind in ("hub", "finetune")}
    base, long = next(iter(arms)), next(name for name in arms if arms[name].kind == "finetune")
    arms["zero"] = arms[long].model_copy(update={"train": None})
    arms["longer"] = arms[long].model_copy(update={"train": None, "parent": long})
    study = template.model_copy(update={"models": arms, "replicates": 2, "seed": 7})
    of = {arm: [name for name, (own, _) in study.instances().items() if own == arm] for arm in arms}
    assert (of[base], of["zero"]) == ([base], ["zero"])
    assert (of[long], of["longer"]) == ([f"{long}-seed7", f"{long}-seed8"], ["longer-seed7", "longer-seed8"])
    specs = {name: section(study, "train", name) for name in study.instances()}
    assert (specs[f"{long}-seed8"]["seed"], specs[f"{long}-seed8"]["parent"], specs[base]["seed"]) == (8, base, 7)
    assert (specs["longer-seed8"]["parent"], specs["zero"]["parent"]) == (f"{long}-seed8", base)
    kind = next(kind for kind, settings in study.evaluations if settings is not None and base in settings.models)
    assert section(study, kind, base)["seed"] == 7
    assert summarise(study)["models"][f"{long}-seed8"]["parent"] == base
    flow = Workflow(study)
    assert flow.train_source(SimpleNamespace(model=f"{long}-seed8")).endswith(f"/models/{base}/manifest.json")
    assert {stage.name for stage in plan_study(study).stages if stage.stage == "train"} == set(study.instances())


def test_sections_hold_exactly_what_a_stage_reads(tmp_path):
    """Changing an evaluation changes that evaluation's section alone; changing a model's training, that model's."""
    one = load_study(write(tmp_path, VALID))
    two = load_study(write(tmp_path, VALID.replace("step: 64}", "step: 32}")))
    three = load_study(write(tmp_path, VALID.replace("seq_len: 256", "seq_len: 128")))

    def sections(study):
        jobs = [
            ("train", "base"),
            ("train", "long"),
            ("perplexity", "base"),
            ("perplexity", "long"),
            ("corpus", "held"),
        ]
        return {job: canonical(section(study, *job)) for job in jobs}

    def changed(a, b):
        return {job for job in sections(a) if sections(a)[job] != sections(b)[job]}

    assert changed(one, two) == {("perplexity", "base"), ("perplexity", "long")}
    assert changed(one, three) == {("train", "long")}


def test_how_a_job_computes_is_in_no_section(tmp_path):
    """Threads, recomputation and the time between checkpoints make nothing out of date, and reach the stage."""
    one = load_study(write(tmp_path, VALID))
    text = VALID.replace("threads: 1, sharding", "threads: 7, sharding")
    text = text.replace("    threads: 1", "    threads: 5\n    processes: 3")
    text = text.replace("checkpoint_minutes: 1", "checkpoint_minutes: 9")
    two = load_study(write(tmp_path, text.replace("activation_checkpointing: none", "activation_checkpointing: full")))
    for job in (("train", "base"), ("train", "long"), ("perplexity", "base")):
        assert section(one, *job) == section(two, *job)
    assert execution(two, "perplexity", "base") == {"threads": 5, "processes": 3}
    how = {"checkpoint_minutes": 9.0, "parallel": {"threads": 7, "activation_checkpointing": "full"}}
    assert execution(two, "train", "long") == {"execution": [how]}
    assert execution(two, "corpus", "held") == {}


def test_adding_a_model_to_an_evaluation_changes_no_other_section(tmp_path):
    both = load_study(write(tmp_path, VALID))
    text = VALID.replace("models: [base, long]", "models: [long]")
    only = load_study(write(tmp_path, text))
    assert section(both, "perplexity", "long") == section(only, "perplexity", "long")


@pytest.mark.parametrize("name", sorted(f.stem for f in STUDIES.glob("*.yaml")))
def test_shipped_studies_are_sound(name):
    load_study(STUDIES / f"{name}.yaml")


def test_loading_a_study_imports_nothing_heavy():
    """The Snakefile loads the study at every start: no torch, transformers, pandas or MLflow."""
    code = (
        "import sys; from pathlib import Path; from yarnlab.workflow import Workflow;"
        f"Workflow.load('micro', Path({str(STUDIES)!r}));"
        "print([m for m in ('torch', 'transformers', 'pandas', 'mlflow', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_survive_yaml_however_written(value):
    """repr() of any float, including forms such as 2e-05, is read back as that number."""
    assert parse(f"x: {value!r}", Path("study.yaml"))[0]["x"] == value


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=5))
def test_canonical_does_not_depend_on_key_order(value):
    assert canonical(value) == canonical(dict(reversed(value.items())))


def child(tmp_path, parents: str, own: str):
    """VALID with a third model below `long`, whose rope is `parents`."""
    text = VALID.replace("method: yarn, scale: 4", parents, 1)
    text = text.replace("models: [base, long]", "models: [base, long, further]", 1)
    text = text.replace("\nevaluations:", f"\n  further:\n    from: long\n    rope: {{{own}}}\nevaluations:", 1)
    return load_study(write(tmp_path, text))


@pytest.mark.parametrize(
    ("parents", "own"),
    [("method: yarn, scale: 4", "method: yarn, scale: 8"), ("method: yarn, scale: 4", "method: pi, scale: 4"),
     ("method: yarn, scale: 4", "method: none, scale: 1"), ("method: none, scale: 4", "method: yarn, scale: 2"),
     ("method: llama3, scale: 8, max_position_embeddings: 256", "method: yarn, scale: 4")],
)  # fmt: skip
def test_a_child_that_goes_further_or_back_to_plain_is_sound(tmp_path, parents, own):
    child(tmp_path, parents, own)


@pytest.mark.parametrize("parents", ["method: yarn, scale: 4", "method: llama3, scale: 4"])
def test_a_child_that_is_shorter_than_its_extended_parent_is_named(tmp_path, parents):
    """`scale: 2` on a parent of scale 4 is meant as twice as long, and would be half."""
    with pytest.raises(StudyError, match=r"models.further.rope.scale: 2 x \d+ tokens are fewer than the \d+ of"):
        child(tmp_path, parents, "method: yarn, scale: 2")
