"""Read a results directory into frames: `load(results/<study>)` -> `Results`.

What a study *plans* stands in its `study.json`; what it *has* is on disk. Only models that the study names
are read, so a file left over from a removed arm never reaches a table.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from yarnlab.study.evaluations import KINDS

_COLUMNS = {
    "perplexity": "method scale corpus document length tokens nll bucket_start bucket_nll",
    "zero_shot": "method scale corpus document length tokens nll bucket_start bucket_nll",
    "passkey": "method scale length trial depth hit",
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

    ramp: 'dimension' (official code) or 'rotations' (paper, Eq. 18), for methods that have a ramp.
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


@dataclass(frozen=True, eq=False)
class Results:
    """Everything the analysis reads. `frames`: one table for each kind of results found on disk.

    The kinds are the evaluations, their further tables ('benchmarks.samples') and 'training'. Compared and hashed
    by identity, so that what is derived from it can be cached. `form` and `roots`: how claims are judged and which
    root each group of claims is about (study/schema.py: Claims).
    """

    directory: Path
    study: str
    title: str
    original_context: int
    study_sha256: str
    models: dict[str, Model]
    evaluations: dict[str, Any]
    frames: dict[str, pd.DataFrame] = field(default_factory=dict)
    manifests: list[dict[str, Any]] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    form: str = "scale-free"
    roots: dict[str, str | None] = field(default_factory=dict)

    def has(self, need: str) -> bool:
        """Is there anything of an evaluation, of 'training' or of 'manifests'?"""
        return bool(self.manifests) if need == "manifests" else need in self.frames

    def frame(self, need: str) -> pd.DataFrame:
        """The frame called `need`; ResultsError when it is not there."""
        if need not in self.frames:
            raise ResultsError(f"{self.directory}: no {_words(need)} results; run that evaluation first")
        return self.frames[need]

    def missing(self, needs: tuple[str, ...]) -> str | None:
        """Why something of `needs` is absent, or None when all of it is there."""
        for need in needs:
            if self.has(need):
                continue
            kind = need.partition(".")[0]
            if kind in KINDS and self.evaluations.get(kind) is None:
                return f"this study does not include the {_words(kind)} evaluation"
            return f"no {_words(need)} results on disk yet"
        return None

    def arms(self) -> dict[str, Model]:
        """The first model of every arm, in the study's order."""
        arms: dict[str, Model] = {}
        for model in self.models.values():
            arms.setdefault(model.arm, model)
        return arms

    def members(self, arm: str) -> list[str]:
        """Names of the models (one per seed) of an arm."""
        return [m.name for m in self.models.values() if m.arm == arm]

    def base(self) -> Model | None:
        """The model that the others start from; of several roots the one with the most methods fine-tuned from it."""
        roots = [m for m in self.arms().values() if m.kind in ("pretrain", "hub")]
        return max(roots, key=self._methods_from, default=None)

    def _methods_from(self, root: Model) -> int:
        arms = self.arms().values()
        return len({m.method for m in arms if m.kind == "finetune" and self.parent_arm(m) == root.arm})

    def root(self, arm: str) -> str:
        """The arm at the root of an arm's tree."""
        arms = self.arms()
        while (parent := self.parent_arm(arms[arm])) is not None:
            arm = parent
        return arm

    def standing_for(self, published: str) -> Model | None:
        """The first arm that stands for a model of the paper's tables."""
        return next((m for m in self.arms().values() if published in m.published), None)

    def tuned(self, method: str, scale: float | None = None, parent: str | None = None) -> Model | None:
        """The first fine-tuned arm with this method, and this scale and parent arm where given."""
        for model in self.arms().values():
            if model.kind != "finetune" or model.method != method:
                continue
            if scale is not None and model.scale != scale:
                continue
            if parent is not None and self.parent_arm(model) != parent:
                continue
            return model
        return None

    def parent_arm(self, model: Model) -> str | None:
        """The arm of a model's parent."""
        parent = self.models.get(model.parent or "")
        return parent.arm if parent else None

    def ablation(self) -> list[Model]:
        """Arms fine-tuned from the base at the scale that most methods share, YaRN first."""
        base = self.base()
        if base is None:
            return []
        arms = [m for m in self.arms().values() if m.kind == "finetune" and self.parent_arm(m) == base.arm]
        scales = {m.scale: len({n.method for n in arms if n.scale == m.scale}) for m in arms}
        if not scales:
            return []
        scale = max(scales, key=lambda s: (scales[s], s))
        return sorted((m for m in arms if m.scale == scale), key=lambda m: (m.method != "yarn", m.ramp == "rotations"))

    def extended(self) -> Model | None:
        """The YaRN arm that another one continues at a larger scale (s=16 in the paper), else the ablation's."""
        base = self.base()
        arms = [m for m in self.arms().values() if m.method == "yarn" and m.kind == "finetune"]
        for model in arms:
            own = base is not None and self.parent_arm(model) == base.arm
            if own and any(self.parent_arm(m) == model.arm and m.scale > model.scale for m in arms):
                return model
        return next((m for m in self.ablation() if m.method == "yarn"), None)

    def continued(self) -> Model | None:
        """The YaRN arm trained on from `extended` at a larger scale (s=32 in the paper)."""
        first = self.extended()
        if first is None:
            return None
        return next(
            (
                m
                for m in self.arms().values()
                if m.method == "yarn" and m.scale > first.scale and self.parent_arm(m) == first.arm
            ),
            None,
        )


def load(directory: Path | str) -> Results:
    """Read `study.json` and all result files under `directory` (results/<study>).

    Raises ResultsError when `study.json` is absent or a file lacks columns.
    """
    directory = Path(directory)
    path = directory / "study.json"
    if not path.is_file():
        raise ResultsError(f"{path} is missing: run the study first (it writes this file before any stage)")
    try:
        study = json.loads(path.read_text())
        models = {name: Model(name=name, **_model_fields(entry)) for name, entry in study["models"].items()}
        evaluations = {kind: study["evaluations"].get(kind) for kind in KINDS}
        head = {key: study[key] for key in ("study", "title", "original_context", "study_sha256")}
        head["notes"] = tuple(study.get("notes", ()))
        judged = study.get("claims") or {}
        head |= {"form": judged.get("form", "scale-free"), "roots": judged.get("roots", {})}
    except (ValueError, KeyError, TypeError) as error:
        raise ResultsError(f"{path} cannot be read ({type(error).__name__}: {error}): rerun the study") from error
    found = Results(
        directory=directory,
        models=models,
        evaluations=evaluations,
        frames={name: frame for name, frame in _frames(directory, models, evaluations) if frame is not None},
        manifests=_manifests(directory, models, evaluations),
        **head,
    )
    base = found.base()
    if base is None or not base.original_context:
        return found
    return replace(found, original_context=base.original_context)


def _model_fields(entry: dict[str, Any]) -> dict[str, Any]:
    length = entry["trained_length"]
    return {
        "arm": entry["arm"],
        "method": entry["method"],
        "scale": float(entry["scale"]),
        "parent": entry["parent"],
        "seed": int(entry["seed"]),
        "trained_length": None if length is None else int(length),
        "kind": entry["kind"],
        "ramp": entry.get("ramp") or "dimension",
        "original_context": int(entry.get("original_context") or 0),
        "published": tuple(entry.get("published") or ()),
    }


def _words(need: str) -> str:
    return need.replace("_", "-").replace(".", " ")


def _frames(
    directory: Path, models: dict[str, Model], planned: dict[str, Any]
) -> Iterator[tuple[str, pd.DataFrame | None]]:
    """Every kind that the study plans, read once; what it does not plan is not looked for."""
    for kind in KINDS:
        if planned[kind] is not None:
            folder = directory / "evaluations" / kind
            for suffix in ("", *(f".{further}" for further in _FURTHER.get(kind, ()))):
                yield f"{kind}{suffix}", _evaluation(folder, models, f"{kind}{suffix}", suffix)
    yield "training", _training(directory, models)


def _evaluation(folder: Path, models: dict[str, Model], need: str, suffix: str) -> pd.DataFrame | None:
    frames: list[pd.DataFrame] = []
    for name in models:
        path = folder / f"{name}{suffix}.parquet"
        if not path.is_file():
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


def _manifests(directory: Path, models: dict[str, Model], planned: dict[str, Any]) -> list[dict[str, Any]]:
    paths = sorted(directory.glob("data/*/manifest.json"))
    paths += [directory / "models" / name / "manifest.json" for name in models]
    for kind in KINDS:
        if planned[kind] is not None:
            paths += [directory / "evaluations" / kind / f"{name}.manifest.json" for name in models]
    found = []
    for path in paths:
        if path.is_file():
            manifest = json.loads(path.read_text())
            found.append({**manifest, "path": os.path.relpath(path, directory).replace(os.sep, "/")})
    return found
