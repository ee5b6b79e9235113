"""Where things lie in results/<study>."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Layout:
    """Every path follows from the study's results folder."""

    root: Path

    def asset(self, name: str) -> Path:
        return self.root / "assets" / name

    @property
    def tokenizer(self) -> Path:
        return self.root / "data" / "tokenizer"

    def tokenizer_of(self, asset: str | None) -> Path:
        """The folder of an asset's tokenizer, or of the one that the study trains."""
        return self.tokenizer if asset is None else self.asset(asset)

    def corpus(self, name: str) -> Path:
        return self.root / "data" / name

    def model(self, name: str) -> Path:
        return self.root / "models" / name

    def training(self, name: str) -> Path:
        return self.root / "training" / f"{name}.jsonl"

    def state(self, name: str, key: str) -> Path:
        return self.root / "state" / name / key[:16]

    def partial_results(self, kind: str, name: str) -> Path:
        """What unfinished attempts at an evaluation have left, each under its state's key."""
        return self.root / "state" / ".evaluations" / kind / name

    def manifest(self, stage: str, name: str) -> Path:
        """What a stage writes last."""
        if stage in ("asset", "tokenizer", "corpus", "train"):
            places = {"asset": self.asset(name), "train": self.model(name)}
            return places.get(stage, self.corpus(name)) / "manifest.json"
        return self.evaluation(stage, name).with_suffix(".manifest.json")

    def evaluation(self, kind: str, name: str) -> Path:
        return self.root / "evaluations" / kind / f"{name}.parquet"

    def nll(self, corpus: str, name: str) -> Path:
        return self.root / "nll" / corpus / f"{name}.npz"


def columns_of(spec: dict[str, Any]) -> dict[str, Any]:
    """What every row of an evaluation's table begins with."""
    rope = spec["rope"]
    return {
        "model": spec["model"],
        "arm": spec["arm"],
        "method": rope["method"],
        "scale": float(rope["scale"]),
        "seed": spec["seed"],
    }


def tags_of(spec: dict[str, Any]) -> dict[str, str]:
    tags = {key: str(value) for key, value in columns_of(spec).items()}
    return tags | ({"parent": spec["parent"]} if spec.get("parent") else {})


def seeds_of(spec: dict[str, Any]) -> dict[str, int]:
    return {key: spec[key] for key in ("seed", "evaluation_seed") if key in spec}
