"""Whether an evaluation here read the text that a published number is about.

An evaluation's rows name their corpus; the corpus's manifest says where its documents come from. Where the published
side took the first documents that are long enough, the same data set, minimal length and number of documents are the
same documents, since this side always does. How others were selected was not published, and they are never the same.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from yarnlab.results.published.reference_rows import Protocol
from yarnlab.results.results import Results


@dataclass(frozen=True)
class Text:
    """Documents read here beside those of a protocol.

    other: why the text is another one, None where it is from the same data set.
    same_documents: whether the very same documents were read.
    """

    other: str | None
    same_documents: bool = False


def text_of(results: Results, corpus: str, protocol: Protocol, documents: int) -> Text:
    """The corpus called `corpus`, of which `documents` documents were read, beside a protocol's text."""
    spec = _corpus(results, corpus)
    if spec is None:
        return Text(f"no manifest says where the corpus {corpus} comes from")
    asset = spec.get("asset")
    repository = _repository(results, str(asset)) if asset else None
    if repository is None:
        return Text(f"the text is the study's own corpus {corpus}, not {protocol.datasets[0]}")
    if repository.casefold() not in {name.casefold() for name in protocol.datasets}:
        return Text(f"the text is {repository}, not {protocol.datasets[0]}")
    counted = documents == protocol.documents and spec.get("min_tokens") == protocol.min_tokens
    same = protocol.selection == "first" and counted
    return Text(None, same)


@lru_cache(maxsize=64)
def _corpus(results: Results, corpus: str) -> dict[str, Any] | None:
    path = f"data/{corpus}/manifest.json"
    found = next((m for m in results.manifests if m["path"] == path), None)
    spec = (found or {}).get("spec", {}).get("corpus")
    return spec if isinstance(spec, dict) else None


@lru_cache(maxsize=64)
def _repository(results: Results, asset: str) -> str | None:
    path = results.directory / "assets" / asset / "manifest.json"
    if not path.is_file():
        return None
    repo = json.loads(path.read_text(encoding="utf-8")).get("spec", {}).get("asset", {}).get("repo")
    return str(repo) if repo else None
