"""What the harness reports must be what the model says, question by question, and need nothing from outside."""

from __future__ import annotations

import dataclasses
import socket

import numpy as np
import pandas as pd
import pytest
import torch

from yarnlab.corpus.tokenizer import load_tokenizer
from yarnlab.evaluation.benchmarks import Benchmarks, run_paper
from yarnlab.evaluation.documents import EvaluationError
from yarnlab.evaluation.held_out_code import CODE_TASKS, QUESTION_TYPES, build_questions
from yarnlab.evaluation.snapshots import PAPER, load_paper_tasks, mmlu_subjects
from yarnlab.rope import make_rope


def evaluate(task):
    return Benchmarks(**task.settings).evaluate(task)


def paper(task, subjects):
    return run_paper(Benchmarks(**task.settings), task, subjects)


BATTERY = {"suite": "held-out-code", "items": 12, "shots": 0, "batch_size": 5, "add_bos": True}
SUBJECTS = {"abstract_algebra": 4, "anatomy": 8}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args):
        raise AssertionError("an evaluation reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def log_likelihood(model, prefix: list[int], choice: list[int]) -> float:
    """One sequence alone, nothing padded, stock logits."""
    ids = torch.tensor([prefix + choice])
    with torch.no_grad():
        log_p = model(input_ids=ids[:, :-1], use_cache=False).logits[0].float().log_softmax(-1)
    return log_p[len(prefix) - 1 :].gather(-1, ids[0, len(prefix) :, None]).sum().item()


@pytest.mark.parametrize("add_bos", [True, False])
def test_scores_are_the_models_own(tiny_task, tiny_data, architecture, add_bos):
    """Each choice's log-likelihood from padded batches equals (1e-4 relative, fp32) that of the prompt run alone
    with exactly the declared BOS; accuracies follow from them, over the same questions."""
    task = tiny_task({**BATTERY, "add_bos": add_bos})
    outcome = evaluate(task)
    samples, tokenizer = outcome.extra["samples"], load_tokenizer(tiny_data / "tokenizer")
    window = architecture.original_context - add_bos
    by_task = build_questions(tokenizer, task.corpus, items=12, shots=0, max_tokens=window, seed=0)
    lengths = set()
    for row in samples.itertuples():
        question = by_task[row.task][row.item]
        prefix = [0] * add_bos + tokenizer.encode(question.context).ids
        scores = []
        for choice in question.choices:
            ids = [0] * add_bos + tokenizer.encode(question.context + choice).ids
            scores.append(log_likelihood(task.model, prefix, ids[len(prefix) :]))
            lengths.add(len(ids))
        assert [row.ll_0, row.ll_1, row.ll_2, row.ll_3] == pytest.approx(scores, rel=1e-4)
        normed = [score / len(choice) for score, choice in zip(scores, question.choices, strict=True)]
        assert (row.choice_acc, row.choice_acc_norm) == (np.argmax(scores), np.argmax(normed))
        assert (row.acc, row.acc_norm) == (row.choice_acc == question.gold, row.choice_acc_norm == question.gold)
        assert (row.gold, row.document) == (question.gold, question.document)
    assert len(lengths) > 5  # or nothing was padded
    means = samples.groupby("task")[["acc", "acc_norm"]].mean()
    for row in outcome.table.itertuples():
        assert row.value == pytest.approx(means.loc[row.task, row.metric])
        p = row.value
        assert (row.n, row.stderr) == (12, pytest.approx((p * (1 - p) / 11) ** 0.5))
    assert outcome.metrics == {f"{task}/acc": pytest.approx(means.loc[task, "acc"]) for task in CODE_TASKS}


def test_the_table_names_protocol_version_and_shots(tiny_task, architecture):
    """With one example before each question; every task and metric has its row."""
    task = tiny_task({**BATTERY, "items": 10, "shots": 1})
    wide = architecture.model_copy(update={"original_context": 256})
    table = evaluate(dataclasses.replace(task, architecture=wide)).table
    assert list(zip(table["task"], table["metric"], strict=True)) == [
        (t, m) for t in CODE_TASKS for m in ("acc", "acc_norm")
    ]
    assert table.columns[:5].tolist() == ["model", "arm", "method", "scale", "seed"]
    assert set(table["protocol"]) == {"held-out-code@1"} and set(table["lm_eval"]) == {"0.4.13"}
    assert set(table["shots"]) == {1} and set(table["n"]) == {10} and set(table["truncated"]) == {0}


def test_a_study_may_name_every_task_that_there_is():
    """The schema's names are those of the questions, so none is out of a study's reach."""
    named = Benchmarks.model_json_schema()["properties"]["tasks"]["anyOf"][0]["items"]["enum"]
    assert named == list(QUESTION_TYPES) and set(CODE_TASKS) < set(named)


def test_prompts_are_as_long_as_declared_whatever_the_window(tiny_task, tiny_data, architecture):
    """With `prompt_tokens` the questions are those of a model of such a window; `tasks` says which are asked."""
    task = tiny_task({**BATTERY, "items": 10, "tasks": ["brackets", "identifier"], "prompt_tokens": 48})
    assert architecture.original_context > 48
    outcome = evaluate(task)
    narrow = architecture.model_copy(update={"original_context": 48})
    same = evaluate(
        dataclasses.replace(tiny_task({**BATTERY, "items": 10, "tasks": ["identifier"]}), architecture=narrow)
    )
    found = outcome.extra["samples"]
    assert set(outcome.metrics) == {"identifier/acc", "brackets/acc"}
    pd.testing.assert_frame_equal(
        found[found["task"] == "identifier"].reset_index(drop=True), same.extra["samples"], check_like=True
    )


def test_the_declared_precision_is_used(tiny_task):
    """bf16 changes every score, by less than 5 %."""
    full, half = (
        evaluate(tiny_task({**BATTERY, "items": 10, "precision": precision})).extra["samples"].filter(like="ll_")
        for precision in ("fp32", "bf16")
    )
    change = (half / full - 1).abs().to_numpy()
    assert (change > 0).all() and change.max() < 0.05


def test_a_tokenizer_of_another_model_is_an_error(tiny_task):
    task = tiny_task(BATTERY)
    task.model.config.vocab_size = 100
    with pytest.raises(EvaluationError, match="has 512 tokens, the model 100"):
        evaluate(task)


def test_a_model_with_broken_weights_is_an_error(tiny_task):
    task = tiny_task(BATTERY)
    with torch.no_grad():
        task.model.model.norm.weight[0] = float("nan")
    with pytest.raises(EvaluationError, match="log-likelihood not finite"):
        evaluate(task)


def write(path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(path, index=False)


def write_snapshots(folder, answers: dict[str, list[int]]) -> None:
    """Stand-ins with the real datasets' files and columns; `answers` are those of the MMLU test questions."""
    name = "{}-00000-of-00001.parquet".format
    letters = np.array(["A", "B", "C", "D"])
    options = np.array(["red", "green", "blue", "dark grey"])
    for split, count in (("train", 30), ("validation", 3), ("test", 4)):
        rows = [
            {"id": str(i), "question": f"Colour {i}?", "choices": {"text": options, "label": letters}, "answerKey": "ABCD"[i % 4]}
            for i in range(count)
        ]  # fmt: skip
        write(folder / "arc_challenge" / "ARC-Challenge" / name(split), rows)
    for split, count in (("train", 14), ("validation", 4), ("test", 2)):
        rows = [
            {
                "ind": i, "activity_label": "Cooking", "ctx_a": f"A pot has {i} eggs.", "ctx_b": "she",
                "ctx": f"A pot has {i} eggs. she", "endings": options, "source_id": str(i), "split": split,
                "split_type": "indomain", "label": str(i % 4),
            }
            for i in range(count)
        ]  # fmt: skip
        write(folder / "hellaswag" / "data" / name(split), rows)
    truths = {"choices": np.array(["yes", "no", "perhaps"]), "labels": np.array([1, 0, 1])}
    rows = [{"question": f"Is {i} odd?", "mc1_targets": truths, "mc2_targets": truths} for i in range(3)]
    write(folder / "truthfulqa" / "multiple_choice" / name("validation"), rows)
    for subject, right in answers.items():
        dev = [{"question": f"{i}?", "subject": subject, "choices": options, "answer": i % 4} for i in range(5)]
        test = [
            {"question": f"Which {subject} {i}?", "subject": subject, "choices": options, "answer": answer}
            for i, answer in enumerate(right)
        ]
        write(folder / "mmlu" / subject / name("dev"), dev)
        write(folder / "mmlu" / subject / name("test"), test)


@pytest.fixture
def snapshots(tmp_path):
    # The first subject's answers are all alike and the second's are not, so no habit is as good at both.
    answers = {"abstract_algebra": [0] * 4, "anatomy": [0, 1, 1, 2, 2, 3, 3, 3]}
    write_snapshots(tmp_path / "snapshots", answers)
    return {name: tmp_path / "snapshots" / name for name in ("arc_challenge", "hellaswag", "truthfulqa", "mmlu")}


@pytest.fixture
def paper_task(tiny_task, snapshots):
    def make(rope=None):
        assets = {name: name.replace("_", "-") for name in snapshots}
        settings = {"suite": "paper", "snapshots": assets, "batch_size": 4, "add_bos": True}
        task = tiny_task(settings, rope=rope or make_rope("pi", scale=64, original_context=64, head_dim=16))
        return dataclasses.replace(task, datasets=snapshots)

    return make


def test_the_papers_suite_runs_offline_and_mmlu_counts_every_subject_alike(paper_task):
    """MMLU is the mean of the subjects' means, and the harness's own the mean of all questions: 4 in one subject, 8
    in the other."""
    outcome = paper(paper_task(), tuple(SUBJECTS))
    table, samples = outcome.table.set_index(["task", "metric"]), outcome.extra["samples"]
    right = {s: samples[samples["task"] == f"mmlu_{s}"]["acc"].tolist() for s in SUBJECTS}
    macro, micro = np.mean([np.mean(r) for r in right.values()]), np.mean([x for r in right.values() for x in r])
    assert {s: len(r) for s, r in right.items()} == SUBJECTS and macro != micro
    assert table.loc[("mmlu", "acc"), "value"] == pytest.approx(macro)
    assert table.loc[("mmlu", "acc_weighted"), "value"] == pytest.approx(micro)
    assert table.loc[("mmlu", "acc"), "n"] == 12
    assert table["shots"].groupby("task").first().to_dict() == {
        "arc_challenge": 25, "hellaswag": 10, "truthfulqa_mc2": 0, "mmlu": 5, "mmlu_abstract_algebra": 5, "mmlu_anatomy": 5,
    }  # fmt: skip
    assert set(outcome.metrics) == {"arc_challenge/acc_norm", "hellaswag/acc_norm", "truthfulqa_mc2/acc", "mmlu/acc"}
    assert set(table["protocol"]) == {"paper@1"} and (table["truncated"] == 0).all()
    truthful = samples[samples["task"] == "truthfulqa_mc2"]
    p = np.exp(truthful[["ll_0", "ll_1", "ll_2"]].to_numpy())
    assert truthful["acc"].tolist() == pytest.approx(((p[:, 0] + p[:, 2]) / p.sum(1)).tolist())


def test_prompts_have_the_papers_shots(snapshots, tmp_path):
    """25, 10, 0 and 5 solved examples stand before the question in the prompt itself; in TruthfulQA the six fixed
    questions that its prompt always begins with."""
    tasks = load_paper_tasks(snapshots, tmp_path, tuple(SUBJECTS))["tasks"]
    marks = {"arc_challenge": "Question:", "hellaswag": "Cooking:", "truthfulqa_mc2": "\nA:", "mmlu_anatomy": "Answer:"}
    counts = {}
    for name, mark in marks.items():
        tasks[name].set_fewshot_seed(0)
        tasks[name].build_all_requests()
        counts[name] = {instance.args[0].count(mark) for instance in tasks[name].instances}
    assert counts == {"arc_challenge": {26}, "hellaswag": {11}, "truthfulqa_mc2": {7}, "mmlu_anatomy": {6}}
    assert {name: task.VERSION for name, task in tasks.items() if name in PAPER} == {
        "arc_challenge": 1.0, "hellaswag": 1.0, "truthfulqa_mc2": 3.0,
    }  # fmt: skip


def test_prompts_beyond_the_window_are_counted_or_refused(paper_task):
    """At a window of 64 tokens every ARC prompt is cut, and the table says so; a dynamic rope refuses, since its
    frequencies would follow the batch."""
    table = paper(paper_task(make_rope("none", original_context=64, head_dim=16)), tuple(SUBJECTS)).table
    assert set(table[table["task"] == "arc_challenge"]["truncated"]) == {16}
    with pytest.raises(EvaluationError, match="dynamic-yarn rescales with the input's length"):
        paper(paper_task(make_rope("dynamic-yarn", original_context=64, head_dim=16)), tuple(SUBJECTS))


def test_an_incomplete_snapshot_is_an_error_that_names_what_is_missing(paper_task, snapshots):
    """All 57 subjects are asked for where nothing else is said: 55 × 2 files are missing here, and what else is gone
    or foreign is named by its path."""
    assert len(mmlu_subjects()) == 57
    with pytest.raises(EvaluationError, match=r"incomplete; missing: \S+/mmlu/astronomy/dev-\*.*and 105 more"):
        evaluate(paper_task())
    arc = snapshots["arc_challenge"] / "ARC-Challenge"
    (arc / "train-00000-of-00001.parquet").unlink()
    with pytest.raises(EvaluationError, match=r"missing: \S+/arc_challenge/ARC-Challenge/train-\*\.parquet\. Download"):
        paper(paper_task(), tuple(SUBJECTS))
    write(arc / "train-00000-of-00001.parquet", [{"question": "", "choices": "", "answerKey": ""}] * 24)
    with pytest.raises(EvaluationError, match="has 24 rows, 25 are needed"):
        paper(paper_task(), tuple(SUBJECTS))
    write(arc / "train-00000-of-00001.parquet", [{"question": ""}] * 25)
    with pytest.raises(EvaluationError, match="lacks the columns choices, answerKey"):
        paper(paper_task(), tuple(SUBJECTS))
    (arc / "train-00000-of-00001.parquet").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(EvaluationError, match="not a readable parquet file"):
        paper(paper_task(), tuple(SUBJECTS))
