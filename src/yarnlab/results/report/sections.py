"""The sections of the report, in their order. Tables and figures name theirs by its id (results/registry.py)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class ReportSection:
    """A section: the id that links lead to, its heading, its word in the navigation, and what stands above the rest."""

    id: str
    heading: str
    word: str
    lead: str = ""


SECTIONS = (
    ReportSection("extension", "The models side by side", "Models"),
    ReportSection(
        "published",
        "Every published number beside ours",
        "Published numbers",
        "The paper’s tables as they are printed, with ours and a verdict in each cell. A number of an analogue "
        "(another model on other text, at the same multiple of L) is shown and not compared. Where the paper’s own "
        "data disagree with what it prints, the CSV says so.",
    ),
    ReportSection("method", "What the methods do to RoPE", "Method"),
    ReportSection(
        "context",
        "The same tokens with more context",
        "Context",
        "What a model gains from tokens further back than L, and whether that is better than cutting the text at L.",
    ),
    ReportSection("perplexity", "Perplexity by context window", "Perplexity"),
    ReportSection(
        "ablation",
        "Which part of YaRN does the work",
        "Ablation",
        "Arms fine-tuned from the same base, on the same batches in the same order, differing in the RoPE method only. "
        "“NTK-by-parts” is YaRN’s ramp alone; “temperature only” is its attention temperature alone; “RoPE unchanged” "
        "is fine-tuning alone.",
    ),
    ReportSection("training", "Training", "Training"),
    ReportSection("passkey", "Passkey retrieval", "Passkey"),
    ReportSection("zero-shot", "Extension without fine-tuning", "Zero-shot"),
    ReportSection(
        "short-context",
        "Is the short context kept?",
        "Short tasks",
        "Multiple-choice questions that fit into the original context, answered by every model. A method that extends "
        "the context should not lose them.",
    ),
    ReportSection(
        "temperature",
        "Temperature",
        "Temperature",
        "The base without any fine-tuning, its frequencies interpolated by NTK-by-parts, its attention factor √(1/t) "
        "varied. The paper sets √(1/t) = 0.1 ln s + 1 after such a sweep.",
    ),
    ReportSection("entropy", "Entropy of the attention", "Entropy"),
    ReportSection(
        "ramp",
        "Shape of the ramp",
        "Ramp",
        "The paper’s Eq. 18 is linear in rotations, the official code in the index of the dimension; they give "
        "different frequencies.",
    ),
    ReportSection(
        "dynamic",
        "Dynamic scaling",
        "Dynamic scaling",
        "The base without any fine-tuning; at each length N the scale is max(1, N/L), so that up to L nothing changes.",
    ),
    ReportSection("sliding-window", "Sliding windows", "Sliding windows"),
    ReportSection("passkey-official", "The official passkey prompt", "Official passkey"),
    ReportSection("cost", "Cost", "Cost"),
)


def ordered(named: Iterable[str]) -> list[ReportSection]:
    """All sections; those that are named and not listed above come last, under their own ids."""
    listed = {section.id for section in SECTIONS}
    words = {name: name.replace("-", " ").capitalize() for name in named if name not in listed}
    return [*SECTIONS, *(ReportSection(name, word, word) for name, word in words.items())]
