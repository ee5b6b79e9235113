"""Which code decides a protocol's numbers, and what it was when somebody last looked: tests/protocols.lock.

A result is valid by its protocol's version (src/yarnlab/fingerprint.py), so whoever changes code that decides numbers
must say whether they change: raise the version, or declare a refactoring. Either is written down by

    python tests/bless_protocols.py
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from yarnlab import fingerprint
from yarnlab.study.evaluations import KINDS

SHARED = "stages.data"  # the glue of several stages; what it imports is that of the stage at hand
LOCK = Path(__file__).with_name("protocols.lock")
# Stage -> the modules that decide its numbers; what they import from yarnlab counts too.
ENTRIES = {
    "asset": ("hub.fetch", "stages.data"),
    "tokenizer": ("corpus.packages", "corpus.tokenizer", "stages.data"),
    "corpus": ("corpus.build", "stages.data"),
    "train": ("stages.models",),
    **{kind: (f"evaluation.{kind}", "stages.evaluate") for kind in KINDS},
}
# What stages pass through and no number depends on. RoPE classes are in the keys, each where it is used; how a study is
# read and checked is not, since a section holds the values that came of it; nor is what only refuses a model.
NEUTRAL = {"errors", "fingerprint", "model_card", "processes", "progress", "provenance", "rope", "tracking", "study"}
NEUTRAL |= {f"families.{name}" for name in ("keys", "parity", "shrink", "survey")}  # they refuse, no more
NEUTRAL |= {"cost", "cost.devices", "hub.errors", "stages.finished", "stages.layout", "stages.run", "training.lock"}
NEUTRAL |= {
    f"study.{name}"
    for name in ("check", "check_held_out", "data", "evaluations", "fields", "load", "options", "read", "sections")
}
WHERE = {"asset": "hub/version.py", "tokenizer": "corpus/version.py", "corpus": "corpus/version.py"}
WHERE |= {"train": "training/version.py"}


def problem(stage: str, source: Path = fingerprint.SOURCE, lock: Path = LOCK) -> str:
    """What has changed without a decision, and what to do; empty if nothing has."""
    known = json.loads(lock.read_text(encoding="utf-8"))
    now, then = fingerprint.protocol(stage), known["protocols"].get(stage)
    changed = [m for m, digest in modules(stage, source).items() if known["modules"].get(m) != digest]
    if now == then and not changed:
        return ""
    what = f"{', '.join(changed)} changed" if now == then else f"the version was {then}"
    where = WHERE.get(stage, f"evaluation/{stage}.py")
    return (
        f"{stage}: {now}, but {what}. If its numbers are other ones, raise the version (src/yarnlab/{where}); if they are "
        "the same, it is a refactoring. In both cases run `python tests/bless_protocols.py` and commit protocols.lock."
    )


def modules(stage: str, source: Path = fingerprint.SOURCE) -> dict[str, str]:
    """Module -> digest, of those that decide a stage's numbers."""
    found: dict[str, str] = {}
    todo = [*ENTRIES[stage]]
    while todo:
        module = todo.pop()
        place = source.joinpath(*module.split("."))
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        if module and module not in found and not ignored(module) and file.is_file():
            found[module], used = read(file.read_text(encoding="utf-8"))
            todo += () if module == SHARED else used
    return dict(sorted(found.items()))


def ignored(module: str) -> bool:
    return module in NEUTRAL or module.startswith("tracking.")


@cache
def read(source: str) -> tuple[str, tuple[str, ...]]:
    """The digest of a module and what it imports."""
    return fingerprint.digest(fingerprint.statements(source)), tuple(imported(source))


def imported(source: str) -> Iterator[str]:
    """Modules of yarnlab that a module imports, at its head or in a function; also names that are none."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "yarnlab":
            base = node.module.removeprefix("yarnlab").lstrip(".")
            yield from (base, *(f"{base}.{alias.name}".lstrip(".") for alias in node.names))
        elif isinstance(node, ast.Import):
            yield from (a.name.removeprefix("yarnlab.") for a in node.names if a.name.startswith("yarnlab."))


def bless(source: Path = fingerprint.SOURCE, lock: Path = LOCK) -> None:
    """Write the versions and the code as they are now."""
    decided = {module: digest for stage in ENTRIES for module, digest in modules(stage, source).items()}
    content = {
        "protocols": {stage: fingerprint.protocol(stage) for stage in ENTRIES},
        "modules": dict(sorted(decided.items())),
    }
    lock.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    for stage in ENTRIES if LOCK.exists() else ():
        if said := problem(stage):
            print(said.split(". If ")[0])
    bless()
    print(f"{LOCK} is up to date")
