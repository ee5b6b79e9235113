"""docs/models.md: how families fare, as the installed transformers has them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from yarnlab.families.survey import as_markdown, survey

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- families:begin -->\n", "<!-- families:end -->\n"
LISTED = (
    "apertus", "arcee", "cohere", "cohere2", "deepseek_v2", "deepseek_v3", "ernie4_5", "ernie4_5_moe", "exaone4",
    "falcon", "falcon_h1", "gemma", "gemma2", "gemma3_text", "gemma4_text", "glm", "glm4", "glm4_moe", "gpt2", "gpt_neox", "gpt_oss",
    "gptj", "granite", "granitemoe", "helium", "hunyuan_v1_dense", "hy_v3", "hyperclovax", "iquestcoder", "jamba",
    "lfm2", "llama", "llama4_text", "ministral", "ministral3", "mistral", "mixtral", "nanochat", "nemotron", "olmo",
    "olmo2", "olmo3", "persimmon", "phi", "phi3", "phimoe", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "qwen3_next",
    "seed_oss", "smollm3", "stablelm", "starcoder2", "youtu",
)  # fmt: skip


def page() -> str:
    """The page with the table of now in it."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    return before + BEGIN + as_markdown(list(survey(LISTED))) + END + rest.split(END)[1]


@pytest.mark.slow
def test_the_table_is_that_of_now():
    """`python tests/families/test_table.py` writes it."""
    fares = {fare.family: fare for fare in survey(LISTED)}
    assert as_markdown(list(fares.values())) == PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]
    supported = [name for name, fare in fares.items() if fare.adopted and fare.extended]
    assert len(supported) >= 25, supported
    assert all(fare.apart < 1e-3 for name, fare in fares.items() if name in supported)
    assert all(fare.reason for fare in fares.values() if not (fare.adopted and fare.extended and fare.trained))


if __name__ == "__main__":
    sys.exit(PAGE.write_text(page(), encoding="utf-8") and 0)
