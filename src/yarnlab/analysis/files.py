"""What a study left on disk: its models as `study.json` describes them, the tables and manifests of its stages.

Only what the study plans is read: a file left over from a removed model, or from one that an evaluation no longer
names, never reaches a table.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from yarnlab.study.evaluations import KINDS

_COLUMNS = {
    "perplexity": "method scale corpus document length tokens nll bucket_start bucket_nll",
    "zero_shot": "method scale corpus document length tokens nll bucket_start bucket_nll",
    "passkey": "method scale length trial depth hit expected_accuracy margin",
    "sliding_window": "method scale corpus document window_index start tokens nll",
    "dynamic": "corpus method document length scale_in_force nll tail_nll tokens",
    "key_cache": "corpus method cache document bucket_start bucket_end nll",
    "temperature": "corpus method scale factor kind document segment start tokens nll",
    "ramp": "corpus variant method scale document length tokens nll bucket_start bucket_nll",
    "entropy": "corpus method scale document layer head length entropy normalised_entropy",
    "passkey_official": "method scale length trial depth hit",
    "benchmarks": "method scale task metric value stderr n shots",
    "benchmarks.samples": "task item acc acc_norm",
}
# Further tables of an evaluation, beside its first: <model>.<name>.parquet, called '<kind>.<name>' here.
_FURTHER = {"benchmarks": ("samples",)}


class ResultsError(Exception):
    """A results directory cannot be read; the message says what, where and what to do."""


@dataclass(frozen=True)
class Model:
    """One model of the study, as `study.json` describes it; lengths in tokens.

    ramp: 'dimension' (official code) or 'rotations' (paper, Eq. 18), for methods that have a ramp; truncate: whether
    its borders are rounded; alpha, beta: rotations within the original context at them. attention_factor: √(1/t).
    tokens: that it was trained on, in `steps`; batches: as JSON, what decides with the seed which ones a batch holds:
    corpus, kinds of rows, their length, rows a batch.
    """

    name: str
    arm: str
    method: str
    scale: float
    parent: str | None
    seed: int
    trained_length: int | None
    kind: str
    ramp: str = "dimension"
    original_context: int = 0
    published: tuple[str, ...] = ()
    truncate: bool = True
    alpha: float = 1.0
    beta: float = 32.0
    attention_factor: float = 1.0
    steps: int = 0
    tokens: int = 0
    batches: str = ""

    @classmethod
    def of(cls, name: str, entry: dict[str, Any]) -> Model:
        """The model that an entry of `study.json` describes. Raises KeyError, TypeError or ValueError for a bad one."""
        length = entry["trained_length"]
        # A method without a ramp, and its options, has none to describe: null.
        ramp = {key: entry[key] for key in ("ramp", "truncate", "alpha", "beta") if entry.get(key) is not None}
        return cls(
            name=name,
            arm=entry["arm"],
            method=entry["method"],
            scale=float(entry["scale"]),
            parent=entry["parent"],
            seed=int(entry["seed"]),
            trained_length=None if length is None else int(length),
            kind=entry["kind"],
            original_context=int(entry.get("original_context") or 0),
            published=tuple(entry.get("published") or ()),
            attention_factor=float(entry.get("attention_factor") or 1.0),
            steps=int(entry.get("steps") or 0),
            tokens=int(entry.get("tokens") or 0),
            batches=json.dumps(entry.get("batches", []), sort_keys=True),
            **ramp,
        )

    @property
    def recipe(self) -> tuple[float, int | None, str]:
        """Scale, row length and batches: what arms that are compared must share, however long they were trained."""
        return self.scale, self.trained_length, self.batches

    @property
    def budget(self) -> tuple[Any, ...]:
        """Recipe, steps and tokens: what arms that are compared after the whole training must share."""
        return *self.recipe, self.steps, self.tokens

    @property
    def official_ramp(self) -> bool:
        """Is its ramp, if it has one, the official code's, rounded and with the borders that the paper gives?"""
        return (self.ramp, self.truncate, self.alpha, self.beta) == ("dimension", True, 1.0, 32.0)


def read_frames(
    directory: Path, models: dict[str, Model], planned: dict[str, Any]
) -> tuple[dict[str, pd.DataFrame], dict[str, str]]:
    """The tables under `directory` (results/<study>) of every kind that the study plans, each of its models there.

    And for each kind of which a file lacks columns (an older version wrote it), or is missing although its manifest
    names it, in place of its table, what to do.
    """
    found: dict[str, pd.DataFrame | None] = {}
    unreadable = {}
    for kind in KINDS:
        if planned[kind] is not None:
            folder, own = directory / "evaluations" / kind, evaluated(models, planned[kind])
            for suffix in ("", *(f".{further}" for further in _FURTHER.get(kind, ()))):
                try:
                    found[f"{kind}{suffix}"] = _evaluation(folder, own, f"{kind}{suffix}", suffix)
                except ResultsError as error:
                    unreadable[f"{kind}{suffix}"] = str(error)
    found["training"] = _training(directory, models)
    return {need: frame for need, frame in found.items() if frame is not None}, unreadable


def evaluated(models: dict[str, Model], evaluation: dict[str, Any]) -> list[str]:
    """Names of the models that an evaluation is planned for; of all where `study.json` does not say which."""
    arms = evaluation.get("models")
    return [name for name, model in models.items() if arms is None or model.arm in arms]


def read_manifests(directory: Path, models: dict[str, Model], planned: dict[str, Any]) -> list[dict[str, Any]]:
    """The manifests of the study's data, models and evaluations, each with its `path` below `directory`."""
    paths = sorted(directory.glob("data/*/manifest.json"))
    paths += [directory / "models" / name / "manifest.json" for name in models]
    for kind in KINDS:
        if planned[kind] is not None:
            folder = directory / "evaluations" / kind
            paths += [folder / f"{name}.manifest.json" for name in evaluated(models, planned[kind])]
    found = []
    for path in paths:
        if path.is_file():
            manifest = json.loads(path.read_text())
            found.append({**manifest, "path": os.path.relpath(path, directory).replace(os.sep, "/")})
    return found


def _evaluation(folder: Path, models: list[str], need: str, suffix: str) -> pd.DataFrame | None:
    frames: list[pd.DataFrame] = []
    for name in models:
        path = folder / f"{name}{suffix}.parquet"
        if not path.is_file():
            if (manifest := folder / f"{name}.manifest.json").is_file() and path.name in manifest.read_text():
                raise ResultsError(
                    f"{path} is missing, but {manifest.name} names it: delete that and run the study again"
                )
            continue
        frame = pd.read_parquet(path)
        absent = {"model", "arm", "seed", *_COLUMNS[need].split()} - set(frame.columns)
        if absent:
            raise ResultsError(f"{path} lacks {', '.join(sorted(absent))}: delete it and run the study again")
        frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else None


def _training(directory: Path, models: dict[str, Model]) -> pd.DataFrame | None:
    frames = []
    for model in models.values():
        path = directory / "training" / f"{model.name}.jsonl"
        if model.kind == "zero-shot" or not path.is_file():
            continue
        rows = []
        for line in path.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                break  # a stage that is still writing leaves half a last line
        if rows:
            frame = pd.DataFrame(rows).drop_duplicates("step", keep="last")
            frame.insert(0, "model", model.name)
            frame.insert(1, "arm", model.arm)
            frame.insert(2, "seed", model.seed)
            for column in ("text_loss", "answer_loss"):
                frame[column] = frame.get(column, pd.Series(np.nan, index=frame.index)).astype(float)
            frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else None
