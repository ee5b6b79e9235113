"""README and docs name what exists: commands that work, paths, modules in the order of their imports."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "yarnlab"
PAGES = (ROOT / "README.md", ROOT / "config" / "README.md", *sorted((ROOT / "docs").glob("*.md")))
WITHOUT_CORES = ("--unlock", "--report", "-n", "--profile")


@cache
def blocks(page: Path) -> list[str]:
    """The lines of all code blocks."""
    found = re.findall(r"^ *```\w*\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [line.strip() for block in found for line in block.splitlines()]


@cache
def spans(page: Path) -> list[str]:
    """All inline code."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", text)]


def commands(program: str = "snakemake") -> list[tuple[str, str]]:
    """(page, arguments) of every `snakemake …` in code blocks and inline code."""
    pattern = re.compile(rf"(?:[A-Z_]+=\S+ )*(?:envs/run (?:--\w+ )*)?{program} (.+)")
    found = ((page.name, pattern.match(line)) for page in PAGES for line in [*blocks(page), *spans(page)])
    return [(name, match[1]) for name, match in found if match]


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


@pytest.mark.parametrize(("page", "command"), commands("yarnlab"))
def test_yarnlab_has_the_verb_and_its_options(page, command):
    import typer

    from yarnlab.cli import app

    verb, *words = shlex.split(command, comments=True)
    known = typer.main.get_command(app).commands
    assert verb in known
    options = {option for parameter in known[verb].params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options


def paths() -> list[tuple[str, str]]:
    """(page, path) of all that looks like a file or folder of the project.

    Not results, patterns, or what has a line or commit behind it: files of the official repository. In deviations.md
    those stand without a folder too.
    """
    found = []
    for page in PAGES:
        for span in spans(page):
            bare = bool(re.fullmatch(r"[\w.-]+\.(?:py|md|yaml|json|smk|lock|toml|in)", span))
            if not bare and not re.fullmatch(r"[\w.-]+(?:/[\w.+-]+)*/?", span):
                continue
            named = ("/" in span or bare) and not re.match(r"(?:results|jquesnelle|deepspeed)/", span)
            if named and not (bare and page.name == "deviations.md"):
                found.append((page.name, span))
        text = page.read_text(encoding="utf-8")
        found += [(page.name, path) for path in re.findall(r"\b(?:tests|src|docs|benchmarks)/[\w/]+\.\w+", text)]
    return sorted(set(found))


# What a study writes, what a reader makes or has, and what only looks like a path.
NONE_HERE = {"study.json", "analysis.json", "claims.json", "config.json", "tracking/planned.json", "tracking/runs.json"}
NONE_HERE |= {
    "asset.json",
    "place.json",
    ".finished/",
    "generation_config.json",
    "manifest.json",
    "mlartifacts/",
    "tokenizer.json",
}
NONE_HERE |= {".snakemake/", "workflow/profiles/NAME", "owner/name", "sL/2", "sympy/sympy/core"}


def headings_of_code(page: Path) -> str:
    """The lines above code blocks, which name the files that a how-to makes."""
    return "\n".join(re.findall(r"^(.+:)\n\n```", page.read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize(("page", "path"), paths())
def test_a_path_exists(page, path):
    """Below the project, its settings, the library or its results/; a bare name anywhere in the library."""
    page = ROOT / "docs" / page
    if path in NONE_HERE or (page.name.startswith("how-to-") and f"`{path}`" in headings_of_code(page)):
        return
    names = (
        folder / name for folder in (ROOT, SOURCE, SOURCE / "results", ROOT / "config") for name in (path, f"{path}.py")
    )
    assert any(name.exists() for name in names) or ("/" not in path and [*SOURCE.rglob(path)])


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_modules_import_those_above_them():
    """docs/architecture.md lists all modules, low to high; a row may import itself and what is above."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("\n## Modules")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ((?:`[\w/]+`(?:, )?)+) \|", text, re.MULTILINE)
    place = {name.strip("/"): i for i, row in enumerate(rows) for name in re.findall(r"[\w/]+", row)}

    def row(module: str) -> int:
        parts = module.split(".")
        return place["/".join(parts[:2]) if "/".join(parts[:2]) in place else parts[0]]

    assert all((SOURCE / name).is_dir() or (SOURCE / f"{name}.py").is_file() for name in place), place
    for file in SOURCE.rglob("*.py"):
        module = ".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        if module.startswith("__") or module == "study.evaluations":
            continue
        for name in imported(ast.parse(file.read_text(encoding="utf-8"))):
            assert name.endswith(".version") or row(name) <= row(module), f"{module} imports {name}"


def imported(node: ast.AST) -> Iterator[str]:
    """Modules of yarnlab that are imported when the code runs, not for types alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ImportFrom) and child.module == "yarnlab":
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and (child.module or "").startswith("yarnlab."):
            yield child.module.removeprefix("yarnlab.")
        elif isinstance(child, ast.Import):
            names = (alias.name for alias in child.names)
            yield from (name.removeprefix("yarnlab.") for name in names if name.startswith("yarnlab."))
        elif not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from imported(child)
