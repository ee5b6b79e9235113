"""Commands that README and docs name are commands that work: Snakemake reads them as meant, and their targets exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
WITHOUT_CORES = ("--unlock", "--report", "-n", "--profile")


def commands() -> list[tuple[str, str]]:
    """(page, arguments) of every `snakemake …` in code blocks and inline code."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        lines = [
            line
            for block in re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
            for line in block.splitlines()
        ]
        lines += [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", text)]
        for line in lines:
            match = re.match(r"(?:[A-Z_]+=\S+ )*(?:envs/run (?:--\w+ )*)?snakemake (.+)", line)
            if match:
                found.append((page.name, match[1]))
    return found


def targets() -> set[str]:
    """Every rule, and the paper's own names of tables and figures."""
    text = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "workflow" / "rules").glob("*.smk"))
    from yarnlab.results.registry import paper_targets

    return {*re.findall(r"^\s*(?:rule|localrule) (\w+):", text, re.MULTILINE), *paper_targets()}


def test_there_are_commands():
    assert len(commands()) > 20


@pytest.mark.parametrize(("page", "command"), commands())
def test_snakemake_reads_a_command_as_it_is_meant(page, command):
    """No target is taken for a value of an option before it, and cores are given where Snakemake needs them."""
    from snakemake.cli import get_argument_parser

    words = shlex.split(command, comments=True)
    args = get_argument_parser().parse_args(words)
    assert all("=" in setting for setting in args.config or ())
    assert args.cores is not None or any(word in words for word in WITHOUT_CORES)
    for target in args.targets:
        assert target.startswith("results/") or target in targets(), target
