"""Builds a corpus from whichever source its section names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from yarnlab.corpus import tokens


def build_corpus(
    spec: dict[str, Any], tokenizer_folder: Path, folder: Path, *, asset: Path | None, log: Path | None
) -> dict[str, Any]:
    """Write tokens.npy and documents.json; returns the counts and the source in words."""
    facts = tokens.build_corpus(spec, tokenizer_folder, folder, log=log)
    return facts | {"source": ", ".join(f"{package} {version}" for package, version in facts["versions"].items())}
