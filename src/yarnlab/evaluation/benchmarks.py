"""Multiple-choice benchmarks inside lm-eval (EleutherAI/lm-evaluation-harness), on the model as it is loaded.

- suite `held-out-code` (held-out-code@1): questions cut from the corpus (held_out_code.py), for small models;
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
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from yarnlab.evaluation.base import Evaluation, Outcome, Passes, Task
from yarnlab.evaluation.documents import EvaluationError
from yarnlab.evaluation.held_out_code import CHOICES, CODE_TASKS, Question, build_questions, question_tokens
from yarnlab.evaluation.snapshots import METRICS, load_paper_tasks, mmlu_subjects
from yarnlab.lazy import np, pd, torch
from yarnlab.study.fields import Distinct, Name, Positive, Problem

if TYPE_CHECKING:
    from yarnlab.study.schema import Study

FEWSHOT_SEED = 1234  # lm-eval's default: it draws ARC's and HellaSwag's examples
GROUP = "mmlu"
# Tokens of the paper's benchmarks for one model with Llama's tokenizer. Estimates from item counts and prompt lengths:
# HellaSwag 10,042 × 4 endings of 10-shot prompts; MMLU 14,042 5-shot prompts, whose four choices share one pass;
# ARC-Challenge 1,172 25-shot prompts; TruthfulQA 817.
PAPER_TOKENS = {"hellaswag": 46e6, "mmlu": 26e6, "arc_challenge": 9e6, "truthfulqa": 2e6}
PROMPT = 1024  # tokens of a benchmark's prompt, on average; the longest are about four times as long


class Benchmarks(Evaluation):
    """Multiple-choice tasks through lm-eval.

    `suite: held-out-code` cuts questions from the corpus; `suite: paper` runs the paper's four benchmarks, whose shots
    are fixed.
    """

    kind = "benchmarks"
    order = 11
    PROTOCOL = "benchmarks@1"
    COLUMNS = "method scale task metric value stderr n shots"
    FURTHER: ClassVar = {"samples": "task item acc acc_norm"}

    suite: Literal["held-out-code", "paper"]
    """Which tasks."""
    items: int | None = Field(default=None, ge=10)
    """Of held-out-code: questions of each task."""
    shots: int | None = Field(default=None, ge=0)
    """Of held-out-code: examples before each question."""
    tasks: Distinct[Literal["next-line", "brackets", "identifier", "last-word"]] | None = None
    """Of held-out-code: which of its tasks; without it those of code, all but `last-word`, which needs sentences."""
    prompt_tokens: Positive | None = None
    """Of held-out-code: tokens of a prompt at most; without it the original context."""
    snapshots: dict[Literal["arc_challenge", "hellaswag", "mmlu", "truthfulqa"], Name] | None = None
    """Of the paper's suite: each benchmark's dataset, an asset."""
    batch_size: Positive
    """Requests that are run together; fixed, since it changes the last digits."""
    add_bos: bool
    """Whether a prompt begins with BOS."""

    @model_validator(mode="after")
    def _of_the_suite(self) -> Benchmarks:
        needed = {"held-out-code": ("items", "shots"), "paper": ("snapshots",)}[self.suite]
        for key, value in (("items", self.items), ("shots", self.shots), ("snapshots", self.snapshots)):
            if (value is None) == (key in needed):
                raise ValueError(f"suite {self.suite} {'needs' if key in needed else 'has no use for'} `{key}`")
        for key in ("tasks", "prompt_tokens") if self.suite == "paper" else ():
            if getattr(self, key) is not None:
                raise ValueError(f"suite paper has no use for `{key}`")
        return self

    def window(self, original_context: int) -> int:
        """Tokens of a question of held-out-code with all that stands before it, the same for all models."""
        return self.prompt_tokens or original_context

    @property
    def reads_corpus(self) -> bool:
        return self.suite == "held-out-code"

    @property
    def datasets(self) -> dict[str, str]:
        return dict((self.snapshots or {}).items())

    def check(self, study: Study, arm: str) -> Iterator[Problem]:
        context = study.architecture(arm).original_context
        if self.shots is not None:
            try:
                question_tokens(self.window(context) - self.add_bos, self.shots)
            except ValueError as error:
                yield ("shots",), f"{error} (the original context of {arm} is {context})"
        if self.window(context) > context:
            yield ("prompt_tokens",), f"{self.prompt_tokens} is more than the original context of {arm}, {context}"

    def cost(self, study: Study, arm: str) -> Passes:
        if self.items is None:
            asked, rows = sum(PAPER_TOKENS[name] for name in self.datasets), 4 * PROMPT * self.batch_size
            note = (
                f"benchmarks: {asked / 1e6:.0f} million tokens a model, an estimate (HellaSwag 46, MMLU 26, ARC 9, "
                "TruthfulQA 2)"
            )
            return Passes([(asked / PROMPT, PROMPT)], rows, rows, note=note)
        window = self.window(study.architecture(arm).original_context)
        rows = self.batch_size * window
        return Passes([(self.items * len(self.tasks or CODE_TASKS) * CHOICES, window)], rows, rows)

    def evaluate(self, task: Task) -> Outcome:
        """One row per benchmark and metric (acc, acc_norm); `extra["samples"]` has one row per question.

        Raises EvaluationError for a corpus too small for the questions asked for, for an incomplete snapshot, for a
        tokenizer that does not do as `add_bos` says, and for a prompt beyond the window that can't be cut.
        """
        return run_held_out_code(self, task) if self.suite == "held-out-code" else run_paper(self, task)


def run_held_out_code(settings: Benchmarks, task: Task) -> Outcome:
    """The questions at the declared length or the original context, so that all models are asked the same."""
    from yarnlab.corpus.tokenizer import load_tokenizer

    window, items, shots = settings.window(task.architecture.original_context), settings.items, settings.shots
    assert items is not None and shots is not None
    by_task = build_questions(
        load_tokenizer(task.tokenizer),
        task.corpus,
        items=items,
        shots=shots,
        max_tokens=window - settings.add_bos,
        seed=task.seed,
        tasks=settings.tasks or CODE_TASKS,
    )

    def load() -> Any:
        tasks = {name: _harness_task(name, questions, shots) for name, questions in by_task.items()}
        return {"tasks": tasks, "groups": {}}

    results, truncated = _run(settings, task, load, window)
    if truncated:
        raise EvaluationError(f"{sum(truncated.values())} prompts of held-out-code are longer than {window} tokens")
    table = _table(settings, task, results, truncated)
    asked = {name: [q.document for q in questions[:items]] for name, questions in by_task.items()}
    samples = _samples(task, results, asked)
    shown = table[table["metric"] == "acc"]
    return Outcome(table, dict(zip(shown["task"] + "/acc", shown["value"], strict=True)), extra={"samples": samples})


def run_paper(settings: Benchmarks, task: Task, subjects: tuple[str, ...] | None = None) -> Outcome:
    """ARC-Challenge, HellaSwag, MMLU (`subjects`; all 57 if None) and TruthfulQA as in the paper's Table 3.

    A prompt longer than the model's window loses its beginning, as in the paper's runs; column `truncated` counts
    such requests. MMLU's value is the unweighted mean over subjects (paper/mmlu-average.py:7-8); the harness's own,
    weighted by size, stands beside it as `acc_weighted`.
    """
    subjects = subjects or mmlu_subjects()
    with tempfile.TemporaryDirectory(prefix="yarnlab-benchmarks-") as folder:
        load = partial(load_paper_tasks, task.datasets, Path(folder), subjects)
        results, truncated = _run(settings, task, load, task.rope.context)
    hashes = {name: [s["doc_hash"][:16] for s in samples] for name, samples in results["samples"].items()}
    table = _with_mmlu(_table(settings, task, results, truncated), results["groups"][GROUP])
    wanted = table[[METRICS.get(name) == metric for name, metric in zip(table["task"], table["metric"], strict=True)]]
    metrics = dict(zip(wanted["task"] + "/" + wanted["metric"], wanted["value"], strict=True))
    return Outcome(table, metrics, extra={"samples": _samples(task, results, hashes)})


def _number(value: object) -> float:
    """lm-eval says 'N/A' for a standard error that it can't give, of a single item for instance."""
    return float(value) if isinstance(value, int | float) else math.nan


def _harness_task(name: str, questions: list[Question], shots: int) -> Any:
    """Questions as an lm-eval task; the last `shots` of them are the examples."""
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


def _run(settings: Benchmarks, task: Task, load: Callable[[], Any], window: int) -> tuple[Any, Counter[str]]:
    """lm-eval's results on the tasks that `load` gives and, by task, how many requests were longer than `window`."""
    from lm_eval.evaluator import evaluate as run_harness

    terminal = sys.stderr
    with redirect_stderr(io.StringIO()):  # the harness's own bars and warnings; our progress still goes to `terminal`
        tasks = load()
        for each in tasks["tasks"].values():
            each.set_fewshot_seed(FEWSHOT_SEED)
        model = _language_model(settings, task, window, terminal)
        results = run_harness(lm=model, task_dict=tasks, log_samples=True, bootstrap_iters=1)
    return results, model.truncated


def _language_model(settings: Benchmarks, task: Task, window: int, terminal: Any) -> Any:
    """The task's model as lm-eval sees it: inputs of at most `window` tokens, right-padded in batches."""
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    from yarnlab.attention import masked
    from yarnlab.families.logits import logits_of
    from yarnlab.families.parts import decoder, head
    from yarnlab.modeling import autocast

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
            with autocast(settings.precision):
                hidden = decoder(self.model)(input_ids=inps, use_cache=False)[0]
            # Weights are fp32 on CPUs, where bf16 logits would be too coarse to rank close choices of small models. On
            # GPUs they are bf16, and logits are rounded as the official evaluation's are.
            logits = logits_of(self.model, hidden.to(head(self.model).weight.dtype)).float()
            with redirect_stderr(terminal):
                self._progress.advance(len(inps))
            return logits

    tokenizer = AutoTokenizer.from_pretrained(task.tokenizer, add_bos_token=settings.add_bos)
    if len(tokenizer) > task.model.config.vocab_size:
        raise EvaluationError(
            f"the tokenizer in {task.tokenizer} has {len(tokenizer)} tokens, the model {task.model.config.vocab_size}"
        )
    begins = tokenizer.encode("a", add_special_tokens=settings.add_bos)[0] == tokenizer.bos_token_id
    if begins != settings.add_bos:
        raise EvaluationError(f"add_bos is {settings.add_bos}, the tokenizer in {task.tokenizer} does otherwise")
    task.model.set_attn_implementation(masked(task.model))
    return LanguageModel(
        pretrained=task.model,
        tokenizer=tokenizer,
        batch_size=settings.batch_size,
        add_bos_token=settings.add_bos,
        max_length=window,
    )


def _table(settings: Benchmarks, task: Task, results: Any, truncated: Counter[str]) -> pd.DataFrame:
    """One row per task and metric that lm-eval gives."""
    from importlib.metadata import version

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
                    "protocol": f"{settings.suite}@1",
                }
            )
    return pd.DataFrame(rows)


def _with_mmlu(table: pd.DataFrame, weighted: dict[str, Any]) -> pd.DataFrame:
    """`table` with two more rows: the subjects' unweighted mean accuracy, and the harness's weighted one."""
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
