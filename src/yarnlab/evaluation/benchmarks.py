"""Multiple-choice benchmarks inside lm-eval (EleutherAI/lm-evaluation-harness), on the model as it is loaded.

- suite `held-out-code` (held-out-code@1): questions cut from the corpus (battery.py), for models too small for others;
- suite `paper` (paper@1): the four benchmarks of the paper's Table 3 from local snapshots (snapshots.py).

The harness builds prompts, scores and aggregates; the model's pass is ours, so that it runs in the declared precision
and a prompt that is cut to the window is counted instead of only mentioned in a log.
"""

from __future__ import annotations

import io
import math
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yarnlab.corpus.tokenizer import load_tokenizer
from yarnlab.evaluation.battery import Question, build_battery
from yarnlab.evaluation.documents import EvaluationError
from yarnlab.evaluation.snapshots import METRICS, load_paper_tasks, mmlu_subjects
from yarnlab.evaluation.task import Outcome, Task
from yarnlab.modeling import autocast

if TYPE_CHECKING:
    import pandas as pd
    import torch

FEWSHOT_SEED = 1234  # lm-eval's default: it draws ARC's and HellaSwag's examples
GROUP = "mmlu"


def evaluate(task: Task) -> Outcome:
    """One row per benchmark and metric (acc, acc_norm); `extra["samples"]` has one row per question.

    Raises EvaluationError for a corpus too small for the questions asked for, for an incomplete snapshot, for a
    tokenizer that does not do as `add_bos` says, and for a prompt beyond the window that can't be cut.
    """
    return SUITES[task.settings["suite"]](task)


def run_held_out_code(task: Task) -> Outcome:
    """The battery at the original context, whatever the model's own, so that all models are asked the same."""
    settings, window = task.settings, task.architecture.original_context
    battery = build_battery(
        load_tokenizer(task.tokenizer),
        task.corpus,
        items=settings["items"],
        shots=settings["shots"],
        max_tokens=window - settings["add_bos"],
        seed=task.seed,
    )

    def load() -> Any:
        tasks = {name: _battery_task(name, questions, settings["shots"]) for name, questions in battery.items()}
        return {"tasks": tasks, "groups": {}}

    results, truncated = _run(task, load, window)
    if truncated:
        raise EvaluationError(f"{sum(truncated.values())} prompts of held-out-code are longer than {window} tokens")
    table = _table(task, results, truncated)
    samples = _samples(
        task, results, {name: [q.document for q in asked[: settings["items"]]] for name, asked in battery.items()}
    )
    shown = table[table["metric"] == "acc"]
    return Outcome(table, dict(zip(shown["task"] + "/acc", shown["value"], strict=True)), extra={"samples": samples})


def run_paper(task: Task, subjects: tuple[str, ...] | None = None) -> Outcome:
    """ARC-Challenge, HellaSwag, MMLU (`subjects`; all 57 if None) and TruthfulQA as in the paper's Table 3.

    A prompt longer than the model's window loses its beginning, as in the paper's runs; column `truncated` counts
    such requests. MMLU's value is the unweighted mean over subjects (paper/mmlu-average.py:7-8); the harness's own,
    weighted by size, stands beside it as `acc_weighted`.
    """
    subjects = subjects or mmlu_subjects()
    with tempfile.TemporaryDirectory(prefix="yarnlab-benchmarks-") as folder:
        load = partial(load_paper_tasks, task.settings["snapshots"], Path(folder), subjects)
        results, truncated = _run(task, load, task.rope.context)
    hashes = {name: [s["doc_hash"][:16] for s in samples] for name, samples in results["samples"].items()}
    table = _with_mmlu(_table(task, results, truncated), results["groups"][GROUP])
    wanted = table[[METRICS.get(name) == metric for name, metric in zip(table["task"], table["metric"], strict=True)]]
    metrics = dict(zip(wanted["task"] + "/" + wanted["metric"], wanted["value"], strict=True))
    return Outcome(table, metrics, extra={"samples": _samples(task, results, hashes)})


SUITES = {"held-out-code": run_held_out_code, "paper": run_paper}


def _number(value: object) -> float:
    """lm-eval says 'N/A' for a standard error that it can't give, of a single item for instance."""
    return float(value) if isinstance(value, int | float) else math.nan


def _battery_task(name: str, questions: list[Question], shots: int) -> Any:
    """The battery's questions as an lm-eval task; the last `shots` of them are the examples."""
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    rows = [asdict(question) for question in questions]
    items = len(rows) - shots
    splits = {"items": Dataset.from_list(rows[:items]), "shots": Dataset.from_list(rows[items:])}
    return ConfigurableTask(
        config={
            "task": name,
            "custom_dataset": lambda **_: splits,
            "test_split": "items",
            "fewshot_split": "shots",
            "fewshot_config": {"sampler": "first_n"},
            "num_fewshot": shots,
            "output_type": "multiple_choice",
            "doc_to_text": "context",
            "doc_to_choice": "choices",
            "doc_to_target": "gold",
            "target_delimiter": "",
            "metric_list": [
                {"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in ("acc", "acc_norm")
            ],
            "metadata": {"version": 1},
        }
    )


def _run(task: Task, load: Callable[[], Any], window: int) -> tuple[Any, Counter[str]]:
    """lm-eval's results on the tasks that `load` gives and, by task, how many requests were longer than `window`."""
    from lm_eval.evaluator import evaluate as run_harness

    terminal = sys.stderr
    with redirect_stderr(io.StringIO()):  # the harness's own bars and warnings; our progress still goes to `terminal`
        tasks = load()
        for each in tasks["tasks"].values():
            each.set_fewshot_seed(FEWSHOT_SEED)
        model = _language_model(task, window, terminal)
        results = run_harness(lm=model, task_dict=tasks, log_samples=True, bootstrap_iters=1)
    return results, model.truncated


def _language_model(task: Task, window: int, terminal: Any) -> Any:
    """The task's model as lm-eval sees it: inputs of at most `window` tokens, right-padded in batches."""
    import torch
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    settings = task.settings

    class LanguageModel(HFLM):
        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
            answers = super().loglikelihood(requests, disable_tqdm=True)
            self.truncated = Counter(r.task_name for r, cut in zip(requests, self._cut, strict=True) if cut)
            return answers

        def _loglikelihood_tokens(self, requests: list[Any], *args: Any, **kwargs: Any) -> list[tuple[float, bool]]:
            inputs = [len(context) + len(choice) - 1 for _, context, choice in requests]  # the last is only a target
            if task.rope.dynamic and max(inputs) > task.rope.original_context:
                raise EvaluationError(
                    f"{task.rope.method} rescales with the input's length, and a prompt of {max(inputs)} tokens is "
                    f"beyond {task.rope.original_context}: its score would depend on what it is batched with"
                )
            self._cut = [length > window for length in inputs]
            rows = {(*context, *choice[:-1]) for _, context, choice in requests}  # what the harness runs once
            self._progress = task.progress(len(rows), "prompt")
            return super()._loglikelihood_tokens(requests, *args, **kwargs)

        @torch.inference_mode()
        def _model_call(self, inps: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            with autocast(settings["precision"]):
                hidden = self.model.model(input_ids=inps, use_cache=False)[0]
            head = self.model.lm_head
            # Weights are fp32 on CPUs, where bf16 logits would be too coarse to rank close choices of small models. On
            # GPUs they are bf16, and logits are rounded as the official evaluation's are.
            logits = head(hidden.to(head.weight.dtype)).float()
            with redirect_stderr(terminal):
                self._progress.advance(len(inps))
            return logits

    tokenizer = AutoTokenizer.from_pretrained(task.tokenizer, add_bos_token=settings["add_bos"])
    if len(tokenizer) > task.model.config.vocab_size:
        raise EvaluationError(
            f"the tokenizer in {task.tokenizer} has {len(tokenizer)} tokens, the model {task.model.config.vocab_size}"
        )
    begins = tokenizer.encode("a", add_special_tokens=settings["add_bos"])[0] == tokenizer.bos_token_id
    if begins != settings["add_bos"]:
        raise EvaluationError(f"add_bos is {settings['add_bos']}, the tokenizer in {task.tokenizer} does otherwise")
    task.model.set_attn_implementation("sdpa")
    return LanguageModel(
        pretrained=task.model,
        tokenizer=tokenizer,
        batch_size=settings["batch_size"],
        add_bos_token=settings["add_bos"],
        max_length=window,
    )


def _table(task: Task, results: Any, truncated: Counter[str]) -> pd.DataFrame:
    """One row per task and metric that lm-eval gives."""
    from importlib.metadata import version

    import pandas as pd

    rows = []
    for name in results["samples"]:
        scores = results["results"][name]
        for metric in ("acc", "acc_norm"):
            if f"{metric},none" not in scores:  # MMLU and TruthfulQA declare acc alone
                continue
            rows.append(
                {
                    **task.columns,
                    "task": name,
                    "metric": metric,
                    "value": float(scores[f"{metric},none"]),
                    "stderr": _number(scores[f"{metric}_stderr,none"]),
                    "n": results["n-samples"][name]["effective"],
                    "shots": results["n-shot"][name],
                    "truncated": truncated[name],
                    "lm_eval": version("lm-eval"),
                    "protocol": f"{task.settings['suite']}@1",
                }
            )
    return pd.DataFrame(rows)


def _with_mmlu(table: pd.DataFrame, weighted: dict[str, Any]) -> pd.DataFrame:
    """`table` with two more rows: the subjects' unweighted mean accuracy, and the harness's weighted one."""
    import pandas as pd

    subjects = table[table["task"].str.startswith(f"{GROUP}_")]
    whole = {
        **subjects.iloc[0].to_dict(),
        "task": GROUP,
        "n": int(subjects["n"].sum()),
        "truncated": int(subjects["truncated"].sum()),
    }
    error = math.sqrt((subjects["stderr"] ** 2).sum()) / len(subjects)
    macro = {**whole, "metric": "acc", "value": float(subjects["value"].mean()), "stderr": error}
    micro = {
        **whole,
        "metric": "acc_weighted",
        "value": float(weighted["acc,none"]),
        "stderr": _number(weighted["acc_stderr,none"]),
    }
    return pd.concat([table, pd.DataFrame([macro, micro])], ignore_index=True)


def _samples(task: Task, results: Any, documents: dict[str, list[str]]) -> pd.DataFrame:
    """One row per question: gold, what was picked, the scores, and each choice's log-likelihood in nats (ll_0, …)."""
    import numpy as np
    import pandas as pd

    rows = []
    for name, samples in results["samples"].items():
        delimiter = results["configs"][name]["target_delimiter"]
        for sample, document in zip(sorted(samples, key=lambda s: s["doc_id"]), documents[name], strict=True):
            lls = np.array([ll for ll, _ in sample["filtered_resps"]])
            if not np.isfinite(lls).all():
                raise EvaluationError(
                    f"{name}, question {sample['doc_id']}: log-likelihood not finite: the weights or rope are broken"
                )
            characters = np.array([len(choice) for _, choice in sample["arguments"]]) - len(delimiter)
            rows.append(
                {
                    **task.columns,
                    "task": name,
                    "item": sample["doc_id"],
                    "document": document,
                    "gold": int(sample["target"]),
                    "choice_acc": int(np.argmax(lls)),
                    "choice_acc_norm": int(np.argmax(lls / characters)),
                    "acc": float(sample["acc"]),
                    "acc_norm": float(sample.get("acc_norm", np.nan)),
                    **{f"ll_{k}": float(ll) for k, ll in enumerate(lls)},
                }
            )
    return pd.DataFrame(rows)
