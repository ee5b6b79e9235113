"""The paper's four benchmarks as lm-eval tasks over local dataset snapshots; nothing is fetched.

lm-eval's own task files are kept (prompts, metrics, versions) and only pointed at parquet files, by overlays that
are written when they are needed, since `include` takes an absolute path. A snapshot is the dataset's repository as it
lies on the hub: ai2_arc, hellaswag, truthful_qa, mmlu.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yarnlab.evaluation.documents import EvaluationError

MMLU_SUBJECTS = 57
MISSING_SHOWN = 5


@dataclass(frozen=True)
class Benchmark:
    """One task of the harness on one snapshot.

    file: lm-eval's task file, below its folder `tasks`.
    snapshot: the study's name for the dataset.
    splits: split → pattern of its parquet files in the dataset.
    examples: the split that the `shots` examples come from.
    metric: what the paper reports (eval-harness.sh:6-9 for the shots).
    """

    file: str
    snapshot: str
    splits: dict[str, str]
    columns: tuple[str, ...]
    examples: str
    shots: int
    metric: str


PAPER = {
    "arc_challenge": Benchmark(
        file="arc/arc_challenge.yaml",
        snapshot="arc_challenge",
        splits={"train": "ARC-Challenge/train-*.parquet", "test": "ARC-Challenge/test-*.parquet"},
        columns=("question", "choices", "answerKey"),
        examples="train",
        shots=25,
        metric="acc_norm",
    ),
    "hellaswag": Benchmark(
        file="hellaswag/hellaswag.yaml",
        snapshot="hellaswag",
        splits={"train": "data/train-*.parquet", "validation": "data/validation-*.parquet"},
        columns=("activity_label", "ctx_a", "ctx_b", "endings", "label"),
        examples="train",
        shots=10,
        metric="acc_norm",
    ),
    "truthfulqa_mc2": Benchmark(
        file="truthfulqa/truthfulqa_mc2.yaml",
        snapshot="truthfulqa",
        splits={"validation": "multiple_choice/validation-*.parquet"},
        columns=("question", "mc1_targets", "mc2_targets"),
        examples="validation",
        shots=0,
        metric="acc",
    ),
}
METRICS = {"mmlu": "acc"} | {name: benchmark.metric for name, benchmark in PAPER.items()}


def mmlu_subjects() -> tuple[str, ...]:
    """MMLU's 57 subjects as lm-eval names them.

    Raises EvaluationError if the installed lm-eval has another number: its mean would not be the paper's.
    """
    names = sorted(path.stem.removeprefix("mmlu_") for path in _task_files().glob("mmlu/default/mmlu_*.yaml"))
    if len(names) != MMLU_SUBJECTS:
        raise EvaluationError(f"the installed lm-eval has {len(names)} MMLU subjects, the paper's mean is over 57")
    return tuple(names)


def load_paper_tasks(snapshots: Mapping[str, Path], scratch: Path, subjects: tuple[str, ...]) -> Any:
    """What lm-eval's `evaluate` takes: the three tasks and the MMLU `subjects` as the group `mmlu`.

    `snapshots`: dataset, as the study names it → its folder.
    `scratch` receives the overlays and the datasets' cache, and must live until the evaluation is done.
    Raises EvaluationError if a snapshot is missing, incomplete or not what its name says.
    """
    import yaml
    from datasets import disable_progress_bars
    from lm_eval.tasks import TaskManager

    benchmarks = PAPER | {f"mmlu_{subject}": _mmlu(subject) for subject in subjects}
    files = {name: _checked_files(snapshots, benchmark) for name, benchmark in benchmarks.items()}
    missing = [pattern for found in files.values() for pattern, paths in found.values() if not paths]
    if missing:
        more = f" and {len(missing) - MISSING_SHOWN} more" if len(missing) > MISSING_SHOWN else ""
        raise EvaluationError(
            f"the datasets are incomplete; missing: {', '.join(missing[:MISSING_SHOWN])}{more}. "
            "Download the dataset's pinned revision again, or correct `snapshots`"
        )
    overlays = {name: _overlay(name, benchmark, files[name], scratch) for name, benchmark in benchmarks.items()}
    overlays["mmlu"] = {
        "group": "mmlu",
        "task": [f"mmlu_{subject}" for subject in subjects],
        "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}],
    }
    for name, overlay in overlays.items():
        (scratch / f"{name}.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")
    disable_progress_bars()
    return TaskManager(include_path=str(scratch), include_defaults=False).load([*PAPER, "mmlu"])


def _mmlu(subject: str) -> Benchmark:
    return Benchmark(
        file=f"mmlu/default/mmlu_{subject}.yaml",
        snapshot="mmlu",
        splits={"dev": f"{subject}/dev-*.parquet", "test": f"{subject}/test-*.parquet"},
        columns=("question", "choices", "answer"),
        examples="dev",
        shots=5,
        metric="acc",
    )


def _checked_files(snapshots: Mapping[str, Path], benchmark: Benchmark) -> dict[str, tuple[str, list[str]]]:
    """split → (its pattern, its files). Raises EvaluationError for files that can't serve."""
    import pyarrow
    from pyarrow import parquet

    found = {}
    for split, pattern in benchmark.splits.items():
        place = snapshots[benchmark.snapshot]
        paths = sorted(place.glob(pattern))
        rows = 0
        for path in paths:
            try:
                metadata = parquet.read_metadata(path)
            except (OSError, pyarrow.ArrowInvalid) as error:
                raise EvaluationError(f"{path} is not a readable parquet file ({error}): download it again") from error
            rows += metadata.num_rows
            absent = [name for name in benchmark.columns if name not in metadata.schema.to_arrow_schema().names]
            if absent:
                raise EvaluationError(f"{path} lacks the columns {', '.join(absent)}: it is another dataset's")
        if paths and rows < max(1, benchmark.shots if split == benchmark.examples else 0):
            raise EvaluationError(f"{place / pattern} has {rows} rows, {benchmark.shots} are needed as examples")
        found[split] = (str(place / pattern), [str(path.resolve()) for path in paths])
    return found


def _overlay(name: str, benchmark: Benchmark, files: dict[str, tuple[str, list[str]]], scratch: Path) -> dict[str, Any]:
    return {
        "include": str(_task_files() / benchmark.file),
        "task": name,
        "tag": None,
        "dataset_path": "parquet",
        "dataset_name": None,
        "dataset_kwargs": {
            "data_files": {split: paths for split, (_, paths) in files.items()},
            "cache_dir": str(scratch / "cache"),
        },
        "num_fewshot": benchmark.shots,
    }


def _task_files() -> Path:
    """lm-eval's own folder of task files."""
    from importlib.util import find_spec

    spec = find_spec("lm_eval")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "tasks"
