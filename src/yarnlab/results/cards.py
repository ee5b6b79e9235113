"""The cards in the models' folders, with what the study has measured."""

from __future__ import annotations

import sys
from pathlib import Path

from yarnlab.lazy import np, pd
from yarnlab.model_card import write_card
from yarnlab.results.results import Results


def write_cards(results: Results) -> list[Path]:
    """Write the card of every model that is there; a folder that can't be written to keeps the one that it has."""
    made = []
    for name in results.models:
        try:
            made.append(write_card(results.directory, name, measured(results, name)))
        except OSError as error:
            print(f"{results.directory / 'models' / name}: no card was written: {error}", file=sys.stderr)
    return [card for card in made if card is not None]


def measured(results: Results, name: str) -> list[str]:
    """Lines of Markdown: perplexity and passkey retrieval of one model by length, with n; empty if neither is there."""
    lines = []
    if (rows := _rows(results, "perplexity", name)) is not None:
        lines += ["| tokens | perplexity | documents |", "|---|---|---|"]
        for length, own in rows.groupby("length"):
            lines.append(f"| {length:,} | {np.exp(own['nll'].mean()):.3f} | {own['document'].nunique()} |")
    if (rows := _rows(results, "passkey", name)) is not None:
        lines += [""] * bool(lines) + ["| tokens | passkeys found | trials |", "|---|---|---|"]
        for length, own in rows.groupby("length"):
            lines.append(f"| {length:,} | {100 * own['hit'].mean():.0f} % | {len(own)} |")
    if lines:
        lines += ["", "Perplexity is the geometric mean over documents; intervals and comparisons: the study's report."]
    return lines


def _rows(results: Results, kind: str, name: str) -> pd.DataFrame | None:
    if kind not in results.frames:
        return None
    frame = results.frames[kind]
    own = frame[frame["model"] == name]
    return None if own.empty else own
